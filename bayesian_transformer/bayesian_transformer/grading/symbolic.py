"""Equality of two LaTeX answers as sympy objects: containers, equations, inequalities; on math-verify for sets.

The input is what normal_form.normalize leaves of an answer. Text reaches sympy through the LaTeX grammar only, see
latex.py, never through sympify or parse_expr, which evaluate Python. Where a library does so all the same (the lcm of
decimals), the worker refuses. Numbers and formulas are compared in scalars.py; numbers too large to be written out are
told apart by their size or refused (sizes.py). No function here limits time or memory: call them in a worker.
"""

from collections.abc import Sequence

import sympy as sp
from latex2sympy2_extended.sets import FiniteSet  # keeps the order
from math_verify import verify
from sympy.core.relational import Relational

from .latex import ParseError, Value, parse
from .named_values import components, elements, is_name, is_rounded, named, oriented, positional
from .scalars import SYMPY_ERRORS, exact, is_number, same_formula, same_number, without_factor
from .sizes import TooLarge, size


def equal(gold: str, answer: str) -> bool:
    """Whether two normalised answers are equal. An unreadable answer is unequal to any.

    Where both have commas, 30,150 is read as a number and as a list. ParseError if `gold` cannot be read, TooLarge if
    a number would have to be written out that has no end.
    """
    if _equal(gold, answer, grouped=True):
        return True
    return "," in gold and "," in answer and _equal(gold, answer, grouped=False)


def _equal(gold: str, answer: str, grouped: bool) -> bool:
    expected = parse(gold, grouped)
    try:
        given = parse(answer, grouped)
    except ParseError:
        return False
    sizes = size(expected), size(given)
    if sizes[0].is_too_large or sizes[1].is_too_large:
        if is_number(expected) and is_number(given) and sizes[0].differs(sizes[1]):
            return False
        if expected == given:
            return True
        raise TooLarge
    if r"\{" in gold + answer:  # a set has every element once, a list may repeat one
        expected, given = once(expected), once(given)
    return _same(expected, given)


def once(value: Value) -> Value:
    return FiniteSet(*dict.fromkeys(elements(value) or ())) if isinstance(value, sp.FiniteSet) else value


def _same(gold: Value, answer: Value) -> bool:
    """Containers element by element, equations and inequalities by their sides, numbers and formulas as such."""
    gold, answer = (value.doit() if isinstance(value, sp.MatrixExpr) else oriented(value) for value in (gold, answer))
    if isinstance(gold, sp.Eq) != isinstance(answer, sp.Eq) and not (named(gold) or named(answer)):
        return any(_same(*pair) for pair in _sides(gold, answer))
    gold, answer = positional(_as_union(gold, answer), _as_union(answer, gold))
    if isinstance(gold, sp.Interval) and isinstance(answer, sp.Interval):
        ends = (gold.left_open, gold.right_open) == (answer.left_open, answer.right_open)
        return ends and _same(gold.start, answer.start) and _same(gold.end, answer.end)
    left, right = elements(gold), elements(answer)
    if left is not None and right is not None:
        if isinstance(gold, sp.FiniteSet):
            return _same_unordered(left, right)
        return len(left) == len(right) and all(map(_same, left, right))
    if left is not None and (vector := components(answer, len(left))) and not isinstance(gold, sp.FiniteSet):
        return all(map(_same, left, vector))
    if right is not None and (vector := components(gold, len(right))) and not isinstance(answer, sp.FiniteSet):
        return all(map(_same, vector, right))
    if len(left or right or ()) > 1 and (is_number(gold) or is_number(answer)):  # 1/2 or 0.5, but not 2, 2
        pairs = [(value, answer) for value in left] if left else [(gold, value) for value in right or ()]
        return len(set(left or right or ())) == len(pairs) and all(_same(*pair) for pair in pairs)
    return _same_single(gold, answer)


def _same_single(gold: Value, answer: Value) -> bool:
    """Whether two values are equal of which at least one has no elements."""
    if isinstance(gold, sp.And) and isinstance(answer, sp.And):  # 1 < x < 2
        return _same_unordered(gold.args, answer.args)
    if is_number(gold) and is_number(answer):
        return same_number(gold, answer)
    if isinstance(gold, sp.Eq | sp.Ne) and type(gold) is type(answer):
        return _same_equation(gold, answer)
    expected, given = exact(gold), exact(answer)
    if isinstance(expected, Relational) and isinstance(given, Relational):
        return _same_inequality(expected, given)
    is_formula = [isinstance(value, sp.Expr) and not isinstance(value, sp.MatrixExpr) for value in (expected, given)]
    if all(is_formula) and not (isinstance(expected, sp.Symbol) or isinstance(given, sp.Symbol)):
        return same_formula(expected, given)
    return bool(verify(expected, given, allow_set_relation_comp=True, timeout_seconds=None, raise_on_error=True))


def _same_equation(gold: Relational, answer: Relational) -> bool:
    """Whether the right sides are equal, for the same name or no name at all, or the differences of the sides.

    Those up to a factor, unless `gold` gives a value: x = 2 is not 3x = 6. The library would solve both and take two
    equations without a solution for one.
    """
    is_same_name = is_name(gold.lhs) and gold.lhs == answer.lhs
    if is_same_name or (is_number(gold.lhs) and is_number(answer.lhs)):
        return _same(gold.rhs, answer.rhs)
    sides = [*gold.args, *answer.args]
    if any(isinstance(side, sp.MatrixExpr) or not isinstance(side, sp.Expr) for side in sides):
        return False
    expected, given = _difference(gold), _difference(answer)
    is_value = is_name(gold.lhs) and not gold.rhs.free_symbols
    return (not is_value and _is_multiple(expected, given)) or _same(expected, given) or _same(expected, -given)


def _same_inequality(gold: Relational, answer: Relational) -> bool:
    """Whether two inequalities, written with < or >, hold for the same: their sides differ by a positive factor.

    Of one name, also if they are solved by the same numbers. A solved one equals no unsolved one: x > 2 is not 2x > 4.
    """
    if not all(isinstance(side, sp.Expr) for side in (*gold.args, *answer.args)):
        return False
    strict = [isinstance(value, sp.StrictLessThan | sp.StrictGreaterThan) for value in (gold, answer)]
    if strict[0] != strict[1] or isinstance(gold, sp.Eq | sp.Ne) or isinstance(answer, sp.Eq | sp.Ne):
        return False
    expected, given = (sp.expand(value.lts - value.gts) for value in (gold, answer))
    if same_formula(expected, given):
        return True
    is_solved = any(is_name(side) for side in gold.args) and any(is_number(side) for side in gold.args)
    if is_solved:
        return False
    if expected.primitive()[1] == given.primitive()[1]:
        return True
    if len(gold.free_symbols) != 1 or gold.free_symbols != answer.free_symbols:
        return False
    try:
        return bool(gold.as_set() == answer.as_set())
    except SYMPY_ERRORS:
        return False


def _difference(equation: Relational) -> sp.Expr:
    return exact(equation.lhs) - exact(equation.rhs)


def _is_multiple(gold: sp.Expr, answer: sp.Expr) -> bool:
    try:
        return without_factor(gold) == without_factor(answer)
    except SYMPY_ERRORS:
        return False


def _sides(gold: Value, answer: Value) -> list[tuple[sp.Basic, sp.Basic]]:
    """What of an equation is compared with a plain answer: the value of a name or of a number, not of 2x = 6."""
    equation = answer if isinstance(answer, sp.Eq) else gold
    first, last = equation.args
    if is_name(first):
        sides = [last]
    elif first.free_symbols or last.free_symbols:
        sides = [last] if sp.expand(first - last) == 0 else []
    else:
        sides = [last, first] if is_rounded(first, last) else [last]
    return [(gold, side) if equation is answer else (side, answer) for side in sides]


def _as_union(value: Value, other: Value) -> Value:
    """Relations for one name as the set that they describe, where the other answer is a union.

    Several are joined by "or"; after one of them x != 9 makes an exception.
    """
    parts = elements(value) or [value]
    is_list = all(isinstance(part, Relational | sp.And) for part in parts)
    if not (is_list and isinstance(other, sp.Union | sp.Complement) and len(value.free_symbols) == 1):
        return value
    exceptions = [part for part in parts if isinstance(part, sp.Ne)]
    ranges = [exact(part).as_set() for part in parts if not isinstance(part, sp.Ne)]
    if not exceptions:
        return sp.Union(*ranges) if len(parts) > 1 else value
    if len(ranges) > 1:
        return value
    return sp.Intersection(*ranges, *(exact(part).as_set() for part in exceptions))


def _same_unordered(gold: Sequence[sp.Basic], answer: Sequence[sp.Basic]) -> bool:
    """Whether the elements can be paired off; greedy, which is enough as equality is close to transitive."""
    if len(gold) != len(answer):
        return False
    left = list(answer)
    for one in gold:
        match = next((index for index, other in enumerate(left) if _same(one, other)), None)
        if match is None:
            return False
        del left[match]
    return True
