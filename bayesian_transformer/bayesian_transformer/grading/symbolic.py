"""LaTeX answers as sympy objects: parsing, equality and a canonical text, on math-verify and latex2sympy2-extended.

The input is what normal_form.normalize leaves of an answer. Text reaches sympy through the LaTeX grammar only, see
latex.py, never through sympify or parse_expr, which evaluate Python. Decimals are made fractions before sympy solves or
simplifies, as it sends its guesses at their closed form through parse_expr. Where a library does so all the same (the
lcm of decimals), the worker refuses. No function here limits time or memory: call them in a worker.
"""

from collections.abc import Sequence

import sympy as sp
from latex2sympy2_extended.sets import FiniteSet  # keeps the order
from math_verify import verify
from sympy.core.function import AppliedUndef
from sympy.core.relational import Relational
from sympy.functions.elementary.trigonometric import TrigonometricFunction
from sympy.polys.polyerrors import BasePolynomialError

from .latex import ParseError, Value, parse
from .normal_form import RELATIVE_TOLERANCE, ROUGHLY

DIGITS = 12  # significant digits of an irrational number in a canonical text

# What sympy raises on an expression that it cannot treat. RecursionError and MemoryError are not among them: those
# are limits, and the caller counts them as undecided.
SYMPY_ERRORS: tuple[type[Exception], ...] = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    BasePolynomialError,
    LookupError,
    NotImplementedError,
    TypeError,
    ValueError,
)


def equal(gold: str, answer: str) -> bool:
    """Whether two normalised answers are equal. An unreadable answer is unequal to any.

    Where both have commas, 30,150 is read as a number and as a list. ParseError if `gold` cannot be read.
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
    if r"\{" in gold + answer:  # a set has every element once, a list may repeat one
        expected, given = _once(expected), _once(given)
    return _same(expected, given)


def _once(value: Value) -> Value:
    return FiniteSet(*dict.fromkeys(_elements(value) or ())) if isinstance(value, sp.FiniteSet) else value


def _oriented(value: Value) -> Value:
    """5 = n as n = 5, x = 2 + 3 = 5 as x = 5, and x = 16/3 = 5.33 as x = 16/3."""
    parts = getattr(value, "_unsorted_args", value.args) if isinstance(value, sp.And) else ()
    if parts and all(isinstance(part, sp.Eq) for part in parts):
        before, last = parts[-1].args
        value = sp.Eq(parts[0].lhs, before if _is_rounded(before, last) else last, evaluate=False)
    is_reversed = isinstance(value, sp.Eq) and _is_name(value.rhs) and not _is_name(value.lhs)
    return sp.Eq(value.rhs, value.lhs, evaluate=False) if is_reversed else value


def _same(gold: Value, answer: Value) -> bool:
    """Containers element by element, numbers within RELATIVE_TOLERANCE if one is a decimal, the rest symbolically."""
    gold, answer = _oriented(gold), _oriented(answer)
    if isinstance(gold, sp.Eq) != isinstance(answer, sp.Eq) and not (_named(gold) or _named(answer)):
        return any(_same(*pair) for pair in _sides(gold, answer))
    gold, answer = _positional(_union(gold, answer), _union(answer, gold))
    if isinstance(gold, sp.Interval) and isinstance(answer, sp.Interval):
        ends = (gold.left_open, gold.right_open) == (answer.left_open, answer.right_open)
        return ends and _same(gold.start, answer.start) and _same(gold.end, answer.end)
    left, right = _elements(gold), _elements(answer)
    if left is not None and right is not None:
        if isinstance(gold, sp.FiniteSet):
            return _same_unordered(left, right)
        return len(left) == len(right) and all(map(_same, left, right))
    if len(left or right or ()) > 1 and (_is_number(gold) or _is_number(answer)):  # 1/2 or 0.5, but not 2, 2
        values, one = (left, answer) if left else (right or [], gold)
        return len(set(values)) == len(values) and all(_same(one, value) for value in values)
    if isinstance(gold, sp.And) and isinstance(answer, sp.And):  # 1 < x < 2
        return _same_unordered(gold.args, answer.args)
    if _is_number(gold) and _is_number(answer):
        if gold.has(sp.Float) or answer.has(sp.Float):
            return bool(abs(sp.N(gold - answer, 30)) <= RELATIVE_TOLERANCE * abs(sp.N(gold, 30)))
        if (gold.has(sp.I) or answer.has(sp.I)) and sp.expand(gold - answer) == 0:
            return True
    if isinstance(gold, sp.Eq | sp.Ne) and type(gold) is type(answer):
        return _same_equation(gold, answer)
    exact = _exact(gold), _exact(answer)
    return bool(verify(*exact, allow_set_relation_comp=True, timeout_seconds=None, raise_on_error=True))


def _exact(value: Value) -> Value:
    """`value` with its decimals as fractions."""
    if isinstance(value, sp.And | Relational):  # not evaluated, as 11/10 = 1.1 would no longer be a relation
        return type(value)(*map(_exact, getattr(value, "_unsorted_args", value.args)), evaluate=False)
    decimals = {part: sp.Rational(str(part)) for part in value.atoms(sp.Float)}
    return value.xreplace(decimals) if decimals else value


def _same_equation(gold: Relational, answer: Relational) -> bool:
    """Whether the right sides are equal, for the same name or no name at all, or the differences of the sides.

    Those up to a factor, unless `gold` gives a value: x = 2 is not 3x = 6. The library would solve both and take two
    equations without a solution for one.
    """
    is_same_name = _is_name(gold.lhs) and gold.lhs == answer.lhs
    if is_same_name or (_is_number(gold.lhs) and _is_number(answer.lhs)):
        return _same(gold.rhs, answer.rhs)
    sides = [*gold.args, *answer.args]
    if any(isinstance(side, sp.MatrixExpr) or not isinstance(side, sp.Expr) for side in sides):
        return False
    expected, given = _difference(gold), _difference(answer)
    is_value = _is_name(gold.lhs) and not gold.rhs.free_symbols
    return (not is_value and _is_multiple(expected, given)) or _same(expected, given) or _same(expected, -given)


def _difference(equation: Relational) -> sp.Expr:
    return _exact(equation.lhs) - _exact(equation.rhs)


def _is_multiple(gold: sp.Expr, answer: sp.Expr) -> bool:
    try:
        return _canonical_equation(gold) == _canonical_equation(answer)
    except SYMPY_ERRORS:
        return False


def _sides(gold: Value, answer: Value) -> list[tuple[sp.Basic, sp.Basic]]:
    """What of an equation is compared with a plain answer: the value of a name or of a number, not of 2x = 6."""
    equation = answer if isinstance(answer, sp.Eq) else gold
    first, last = equation.args
    if _is_name(first):
        sides = [last]
    elif first.free_symbols or last.free_symbols:
        sides = [last] if sp.expand(first - last) == 0 else []
    else:
        sides = [last, first] if _is_rounded(first, last) else [last]
    return [(gold, side) if equation is answer else (side, answer) for side in sides]


def _is_rounded(exact: sp.Basic, rounded: sp.Basic) -> bool:
    """Whether the second number is the first, written without decimals, or a rounding of it; 4 is not one of 9/2."""
    if not (_is_number(exact) and _is_number(rounded)) or exact.has(sp.Float):
        return False
    tolerance = ROUGHLY if rounded.has(sp.Float) or not exact.is_rational else 0
    return bool(abs(sp.N(exact - rounded)) <= tolerance * abs(sp.N(exact)))


def _union(value: Value, other: Value) -> Value:
    """Relations for one name, joined by "or", as the set that they describe, where the other answer is a union."""
    parts = _elements(value) or []
    is_list = len(parts) > 1 and all(isinstance(part, Relational | sp.And) for part in parts)
    if not (is_list and isinstance(other, sp.Union) and len(value.free_symbols) == 1):
        return value
    return sp.Union(*(_exact(part).as_set() for part in parts))


def _named(value: Value) -> dict[sp.Symbol, sp.Basic] | None:
    """The values by name of x = 1, y = 2 or (x, y) = (1, 2), else None; also if a name occurs twice."""
    pairs: list[tuple[sp.Basic, sp.Basic]] = []
    parts = list(map(_oriented, _elements(value) or ()))
    if isinstance(value, sp.Eq):
        names, values = _elements(value.lhs) or (), _elements(value.rhs) or ()
        pairs = list(zip(names, values, strict=True)) if len(names) == len(values) else []
    elif len(parts) > 1 and all(isinstance(part, sp.Eq) for part in parts):
        pairs = [(part.lhs, part.rhs) for part in parts]
    named = dict(pairs)
    return named if len(named) == len(pairs) > 0 and all(map(_is_name, named)) else None


def _positional(gold: Value, answer: Value) -> tuple[Value, Value]:
    """Named values as tuples: in the same order of names, or, next to values without names, x before y."""
    left, right = _named(gold), _named(answer)
    if left and right:
        return sp.Tuple(*left.values()), sp.Tuple(*(right[name] for name in left if left.keys() == right.keys()))
    if left and _elements(answer) is not None:
        return _by_name(left), answer
    if right and _elements(gold) is not None:
        values = _by_name(right)
        return sp.Tuple(*(_elements(gold) or ())) if isinstance(values, sp.Tuple) else gold, values
    return gold, answer


def _by_name(named: dict[sp.Symbol, sp.Basic]) -> sp.Basic:
    """The values of x, y or a, b, c in that order and of other names as they come; of x_1, x_2 without order."""
    letters = [str(name)[0] for name in named]
    is_row = len(set(letters)) in (1, ord(max(letters)) - ord(min(letters)) + 1)
    values = [named[name] for name in (sorted(named, key=str) if is_row else named)]
    return FiniteSet(*values) if len(set(letters)) == 1 else sp.Tuple(*values)


def _is_name(side: sp.Basic) -> bool:
    is_trigonometric = isinstance(side, TrigonometricFunction) and all(map(_is_name, side.args))
    return isinstance(side, sp.Symbol | AppliedUndef) or is_trigonometric


def _is_number(value: Value) -> bool:
    return bool(getattr(value, "is_number", False)) and not isinstance(value, sp.MatrixBase)


def _elements(value: Value) -> list[sp.Basic] | None:
    """Entries of a tuple, set, matrix or open interval (which is how the grammar reads a pair of numbers), or None."""
    if isinstance(value, sp.FiniteSet):
        return list(getattr(value, "_unsorted_args", value.args))
    if isinstance(value, sp.Tuple):
        return list(value.args)
    if isinstance(value, sp.MatrixBase):
        return [sp.Tuple(*row) for row in value.tolist()] if 1 not in value.shape else list(value.flat())
    if isinstance(value, sp.Interval) and value.left_open and value.right_open:
        return [value.start, value.end]
    return None


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


def canonical(text: str) -> str:
    """A text that is the same for answers that are cheaply shown to be equal. ParseError if it cannot be read."""
    value = _oriented(parse(text))
    return _canonical(_exact(_once(value) if r"\{" in text else value))


def _canonical(value: Value) -> str:
    if isinstance(value, sp.MatrixBase):
        return "[" + ",".join(_canonical(sp.Tuple(*row)) for row in value.tolist()) + "]"
    if isinstance(value, sp.FiniteSet):
        return "{" + ",".join(sorted(map(_canonical, _elements(value) or ()))) + "}"
    if isinstance(value, sp.Tuple):
        return "(" + ",".join(map(_canonical, value.args)) + ")"
    if isinstance(value, sp.Interval):
        left, right = "(" if value.left_open else "[", ")" if value.right_open else "]"
        return f"{left}{_canonical(value.start)},{_canonical(value.end)}{right}"
    if isinstance(value, sp.Union | sp.And):
        return f"{type(value).__name__}({','.join(sorted(map(_canonical, value.args)))})"
    if isinstance(value, sp.Eq):
        is_value = _is_name(value.lhs) or _is_number(value.lhs)
        return _canonical(value.rhs) if is_value else _canonical_equation(value.lhs - value.rhs)
    if isinstance(value, sp.Set | Relational):
        return str(value.canonical if isinstance(value, Relational) else value)
    return _canonical_number(value) if _is_number(value) else str(sp.cancel(sp.together(sp.expand(value.doit()))))


def _canonical_equation(difference: sp.Expr) -> str:
    """The difference of the two sides as numerator = 0, without its constant factor and with a fixed sign."""
    numerator, _ = sp.together(sp.expand(difference.doit())).as_numer_denom()
    _, polynomial = sp.expand(numerator).primitive()
    return f"{min(str(polynomial), str(sp.expand(-polynomial)))}=0"


def _canonical_number(value: sp.Basic) -> str:
    """A rational number exactly, p or p/q; any other to DIGITS significant digits. Of a complex one both parts."""
    value = value.doit()
    parts = value.as_real_imag() if value.is_real is not True else (value, sp.Integer(0))
    real, imaginary = map(_canonical_real, parts)
    return real if imaginary == "0" else f"{real}+{imaginary}*i"


def _canonical_real(value: sp.Basic) -> str:
    if value is sp.nan or value is sp.zoo:
        raise ParseError("a division by zero has no value")
    if isinstance(value, sp.Rational) or not value.is_comparable:  # also infinity
        return str(value)
    decimal = sp.N(value, DIGITS + 10)
    return str(sp.N(decimal, DIGITS)) if abs(decimal) > 10**-DIGITS else "0"
