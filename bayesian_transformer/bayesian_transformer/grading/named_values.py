"""Values in their places: the elements of a list, x = 1 and y = 2, the components of i - 2j + 2k."""

import sympy as sp
from latex2sympy2_extended.sets import FiniteSet  # keeps the order
from sympy.core.function import AppliedUndef
from sympy.functions.elementary.trigonometric import TrigonometricFunction

from .latex import Value
from .scalars import exact, is_number
from .tolerance import ROUGHLY


def elements(value: Value) -> list[sp.Basic] | None:
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


def oriented(value: Value) -> Value:
    """5 = n as n = 5, x = 2 + 3 = 5 as x = 5, and x = 16/3 = 5.33 as x = 16/3."""
    parts = getattr(value, "_unsorted_args", value.args) if isinstance(value, sp.And) else ()
    if parts and all(isinstance(part, sp.Eq) for part in parts):
        before, last = parts[-1].args
        value = sp.Eq(parts[0].lhs, before if is_rounded(before, last) else last, evaluate=False)
    is_reversed = isinstance(value, sp.Eq) and is_name(value.rhs) and not is_name(value.lhs)
    return sp.Eq(value.rhs, value.lhs, evaluate=False) if is_reversed else value


def is_rounded(given: sp.Basic, rounded: sp.Basic) -> bool:
    """Whether the second number is the first, written without decimals, or a rounding of it; 4 is not one of 9/2."""
    if not (is_number(given) and is_number(rounded)) or given.has(sp.Float):
        return False
    tolerance = ROUGHLY if rounded.has(sp.Float) or not given.is_rational else 0
    return bool(abs(sp.N(given - rounded)) <= tolerance * abs(sp.N(given)))


def named(value: Value) -> dict[sp.Symbol, sp.Basic] | None:
    """The values by name of x = 1, y = 2 or (x, y) = (1, 2), else None; also if a name occurs twice."""
    pairs: list[tuple[sp.Basic, sp.Basic]] = []
    parts = list(map(oriented, elements(value) or ()))
    if isinstance(value, sp.Eq):
        names, sides = elements(value.lhs) or (), elements(value.rhs) or ()
        pairs = list(zip(names, sides, strict=True)) if len(names) == len(sides) else []
    elif len(parts) > 1 and all(isinstance(part, sp.Eq) for part in parts):
        pairs = [(part.lhs, part.rhs) for part in parts]
    values = dict(pairs)
    return values if len(values) == len(pairs) > 0 and all(map(is_name, values)) else None


def positional(gold: Value, answer: Value) -> tuple[Value, Value]:
    """Named values as tuples: in the same order of names, or, next to values without names, x before y."""
    left, right = named(gold), named(answer)
    if left and right:
        return sp.Tuple(*left.values()), sp.Tuple(*(right[name] for name in left if left.keys() == right.keys()))
    if left and elements(answer) is not None:
        return _by_name(left), answer
    if right and elements(gold) is not None:
        values = _by_name(right)
        return sp.Tuple(*(elements(gold) or ())) if isinstance(values, sp.Tuple) else gold, values
    return gold, answer


def _by_name(named: dict[sp.Symbol, sp.Basic]) -> sp.Basic:
    """The values of x, y or a, b, c in that order and of other names as they come; of x_1, x_2 without order."""
    letters = [str(name)[0] for name in named]
    is_row = len(set(letters)) in (1, ord(max(letters)) - ord(min(letters)) + 1)
    values = [named[name] for name in (sorted(named, key=str) if is_row else named)]
    return FiniteSet(*values) if len(set(letters)) == 1 else sp.Tuple(*values)


def is_name(side: sp.Basic) -> bool:
    is_trigonometric = isinstance(side, TrigonometricFunction) and all(map(is_name, side.args))
    return isinstance(side, sp.Symbol | AppliedUndef) or is_trigonometric


def components(vector: Value, count: int) -> list[sp.Basic] | None:
    """The `count` numbers of a vector such as i - 2j + 2k, with two or three of its unit vectors; else None.

    The letter i has been read as the imaginary unit.
    """
    letters = [sp.Symbol(letter) for letter in "ijk"]
    if not isinstance(vector, sp.Expr) or not {str(name) for name in vector.free_symbols} <= {"i", "j", "k"}:
        return None
    if count not in (2, 3) or any(power.exp.free_symbols for power in vector.atoms(sp.Pow)):
        return None
    plain = exact(vector).xreplace({name: sp.Symbol(str(name)) for name in vector.free_symbols})
    plain = sp.expand(plain.xreplace({sp.I: letters[0]}).doit())
    values = [plain.coeff(letter) for letter in letters]
    is_linear = sp.expand(plain - sum(value * letter for value, letter in zip(values, letters, strict=True))) == 0
    if not is_linear or not all(map(is_number, values)) or sum(value != 0 for value in values) < 2:
        return None
    return values[:count] if count == 3 or values[2] == 0 else None
