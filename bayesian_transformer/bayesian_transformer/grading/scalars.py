"""Comparing two numbers or two formulas of sympy: exactly, but for decimals (tolerance.py).

Decimals are made fractions before sympy solves or simplifies, as it sends its guesses at their closed form through
parse_expr. No function here limits time: call them in a worker, after sizes.check.
"""

import re
from fractions import Fraction

import sympy as sp
from sympy.core.function import AppliedUndef
from sympy.core.relational import Relational
from sympy.polys.polyerrors import BasePolynomialError

from .latex import Value
from .tolerance import RELATIVE_TOLERANCE, is_rounding, last_place

DIGITS = 1000  # that a number which is not rational is computed to, at most, before its difference counts as zero
_ROOT = sp.Rational(1, 2)

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


def is_number(value: Value) -> bool:
    return bool(getattr(value, "is_number", False)) and not isinstance(value, sp.MatrixBase)


def exact(value: Value) -> Value:
    """`value` with its decimals as fractions."""
    if isinstance(value, sp.And | Relational):  # not evaluated, as 11/10 = 1.1 would no longer be a relation
        return type(value)(*map(exact, getattr(value, "_unsorted_args", value.args)), evaluate=False)
    decimals = {part: sp.Rational(str(part)) for part in value.atoms(sp.Float)}
    return value.xreplace(decimals) if decimals else value


def same_number(gold: sp.Expr, answer: sp.Expr) -> bool:
    """Whether two numbers are equal: next to a gold answer with decimals within a tolerance, else as tolerance.py says.

    ValueError if `gold` has no value, as 1/0.
    """
    gold_value, answer_value = exact(gold).doit(), exact(answer).doit()
    if gold_value.has(sp.nan, sp.zoo):
        raise ValueError("a division by zero has no value")
    if answer_value.has(sp.nan, sp.zoo):
        return False
    if gold_value.is_infinite or answer_value.is_infinite:
        return bool(gold_value == answer_value)
    if any(part != int(part) for part in gold.atoms(sp.Float)):
        return bool(abs(sp.N(gold_value - answer_value, 30)) <= RELATIVE_TOLERANCE * abs(sp.N(gold_value, 30)))
    if is_zero(gold_value - answer_value):
        return True
    if not answer.has(sp.Float):
        return False
    if not answer.has(sp.I):
        return _is_rounding(gold_value, answer)
    parts = zip(gold_value.as_real_imag(), sp.expand(answer).as_real_imag(), strict=True)
    return all(is_zero(one - exact(other)) or _is_rounding(one, other) for one, other in parts)


def is_zero(value: sp.Expr) -> bool:
    """Whether an exact number is 0, however small; one that is not rational is computed until digits are known."""
    value = value.doit()
    if value.is_Rational:
        return bool(value == 0)
    value = sp.expand(value)
    known = value.is_zero
    if known is not None:
        return bool(known)
    computed = sp.N(value, 15, maxn=DIGITS)
    parts = [part for part in computed.as_real_imag() if part != 0]
    if not all(isinstance(part, sp.Float) for part in parts):
        return bool(sp.simplify(value) == 0)
    return not _shows_life(computed)


def _is_rounding(gold: sp.Expr, answer: sp.Expr) -> bool:
    """Whether `answer` is a decimal, which may be times a power of ten, and `gold` rounded to its digits."""
    factors = sp.Mul.make_args(answer)
    decimals = [factor for factor in factors if isinstance(factor, sp.Float)]
    scale = sp.Mul(*(factor for factor in factors if not isinstance(factor, sp.Float))).doit()
    number = gold if gold.is_Rational else sp.N(gold, 40)
    is_decimal = len(decimals) == 1 and re.fullmatch(r"-?1(?:0*|/10+)", str(scale))
    if not is_decimal or not isinstance(number, sp.Rational | sp.Float):
        return False
    value = _fraction(exact(decimals[0]) * scale)
    unit = last_place(_fraction(exact(decimals[0]))) * _fraction(abs(scale))
    return is_rounding(_fraction(sp.Rational(str(number))), value, unit)


def _fraction(value: sp.Rational) -> Fraction:
    return Fraction(int(value.p), int(value.q))


def same_formula(gold: sp.Expr, answer: sp.Expr) -> bool:
    """Whether the difference of two formulas, without decimals, simplifies to zero. Not, if sympy cannot tell."""
    difference = gold - answer
    try:
        if _differs_at_points(difference):
            return False
        if is_zero_formula(sp.simplify(difference)):
            return True
        apart = _with_roots_apart(difference)
        return apart != difference and is_zero_formula(sp.simplify(apart))
    except SYMPY_ERRORS:
        return False


def is_zero_formula(value: sp.Expr) -> bool:
    return is_zero(value) if is_number(value) else bool(value.is_zero)


def _differs_at_points(difference: sp.Expr) -> bool:
    """Whether a formula that shall be zero is not, where its names are below 1 and where they are above. Cheap.

    At both, as a root or a logarithm may be another branch where the formula is not meant to hold.
    """
    names = sorted(difference.free_symbols, key=str)
    if not names or difference.has(AppliedUndef, sp.Derivative, sp.Integral, sp.Limit, sp.Sum, sp.Product):
        return False
    for first, step in ((11, 7), (2, 1)):
        point = {name: sp.Rational(4 * index + 3, first + step * index) for index, name in enumerate(names)}
        computed = sp.N(difference, 15, subs=point, maxn=DIGITS)  # in floats, as exact powers could be long
        if not _shows_life(computed):
            return False
    return True


def _shows_life(computed: sp.Expr) -> bool:
    """Whether digits of a computed number are known, so that it is not zero."""
    return any(isinstance(part, sp.Float) and part != 0 and part._prec > 10 for part in computed.as_real_imag())


def _with_roots_apart(value: sp.Expr) -> sp.Expr:
    r"""\sqrt{x/y} as \sqrt{x}/\sqrt{y}, which sympy keeps apart because both could be negative."""

    def apart(power: sp.Pow) -> sp.Expr:
        above, below = power.base.as_numer_denom()
        return above**power.exp / below**power.exp

    return value.replace(lambda part: isinstance(part, sp.Pow) and part.exp in (_ROOT, -_ROOT), apart)


def without_factor(difference: sp.Expr) -> str:
    """The difference of the two sides of an equation as a text: numerator = 0, without its constant factor and sign."""
    numerator, _ = sp.together(sp.expand(difference.doit())).as_numer_denom()
    _, polynomial = sp.expand(numerator).primitive()
    return f"{min(str(polynomial), str(sp.expand(-polynomial)))}=0"
