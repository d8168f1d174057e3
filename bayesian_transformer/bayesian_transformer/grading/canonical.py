"""A text that is the same for equal answers, where that is cheap to show; for voting."""

import sympy as sp
from sympy.core.relational import Relational

from .latex import ParseError, Value, parse
from .named_values import elements, is_name, oriented
from .scalars import exact, is_number, without_factor
from .sizes import check
from .symbolic import once

DIGITS = 12  # significant digits of an irrational number in a canonical text


def canonical(text: str) -> str:
    """A text that is the same for answers that are cheaply shown to be equal. ParseError, TooLarge."""
    value = oriented(parse(text))
    check(value)
    return _canonical(exact(once(value) if r"\{" in text else value))


def _canonical(value: Value) -> str:
    if isinstance(value, sp.MatrixBase):
        return "[" + ",".join(_canonical(sp.Tuple(*row)) for row in value.tolist()) + "]"
    if isinstance(value, sp.FiniteSet):
        return "{" + ",".join(sorted(map(_canonical, elements(value) or ()))) + "}"
    if isinstance(value, sp.Tuple):
        return "(" + ",".join(map(_canonical, value.args)) + ")"
    if isinstance(value, sp.Interval):
        left, right = "(" if value.left_open else "[", ")" if value.right_open else "]"
        return f"{left}{_canonical(value.start)},{_canonical(value.end)}{right}"
    if isinstance(value, sp.Union | sp.And):
        return f"{type(value).__name__}({','.join(sorted(map(_canonical, value.args)))})"
    if isinstance(value, sp.Eq):
        is_value = is_name(value.lhs) or is_number(value.lhs)
        return _canonical(value.rhs) if is_value else without_factor(value.lhs - value.rhs)
    if isinstance(value, sp.Set | Relational):
        return str(value.canonical if isinstance(value, Relational) else value)
    return _canonical_number(value) if is_number(value) else str(sp.cancel(sp.together(sp.expand(value.doit()))))


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
