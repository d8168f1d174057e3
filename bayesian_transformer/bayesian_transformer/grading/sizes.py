"""How large the numbers of an expression are, told from its unevaluated tree before anything is computed.

A power tower or the factorial of a billion has more digits than there is memory or time for. Its logarithm is known at
once. That is enough to tell it from a small number, and to refuse it where it would have to be written out.
"""

import math
from dataclasses import dataclass

import sympy as sp

MOST_BITS = 1 << 20  # of a number that is written out; 2^{65536} has a sixteenth of them
MOST_TERMS = 2_000  # of the expansion of a power of a sum of names
_COUNTABLE = 50.0  # bits of a number that is as good as exact as a float

_INFINITE = math.inf


class TooLarge(Exception):
    """A number would have too many digits to be written out."""


@dataclass(frozen=True)
class Size:
    """Bounds of log2 of the absolute value, and the bits that the parts need while the value is computed exactly."""

    low: float = -_INFINITE
    high: float = _INFINITE
    work: float = 1.0

    @property
    def is_too_large(self) -> bool:
        return self.work > MOST_BITS

    def differs(self, other: "Size") -> bool:
        """Whether the two values cannot be equal."""
        return self.low > other.high or other.low > self.high


_HUGE = Size(_INFINITE, _INFINITE, _INFINITE)


def check(*values: sp.Basic | sp.MatrixBase) -> None:
    """TooLarge if any of the values has a part that is too large to be written out."""
    if any(size(value).is_too_large for value in values):
        raise TooLarge


def size(value: sp.Basic | sp.MatrixBase) -> Size:
    """The size of a value; of a matrix, set or relation only the work of its parts."""
    if isinstance(value, sp.MatrixBase):
        return Size(work=sum(size(entry).work for entry in value.flat()))
    if isinstance(value, sp.Rational):
        above, below = (math.log2(part) if part else -_INFINITE for part in (abs(value.p), value.q))
        return _about(above - below, max(above, 0.0) + below)
    if isinstance(value, sp.Float):
        _, mantissa, exponent, bits = value._mpf_
        return Size(exponent + bits - 1, exponent + bits, abs(exponent) + bits) if mantissa else Size(high=-_INFINITE)
    parts = [size(part) for part in value.args]
    work = sum(part.work for part in parts)
    if isinstance(value, sp.Pow):
        return _of_power(value.base, value.exp, *parts)
    if isinstance(value, sp.exp):
        return _of_power(sp.E, value.args[0], size(sp.E), *parts)
    if isinstance(value, sp.factorial | sp.gamma | sp.binomial):
        return _of_product(value, parts)
    if isinstance(value, sp.Mul):
        low, high = sum(part.low for part in parts), sum(part.high for part in parts)
        return Size(work=work) if math.isnan(low) or math.isnan(high) else Size(low, high, work)
    if isinstance(value, sp.Add):
        return _of_sum(parts, work)
    if isinstance(value, sp.NumberSymbol):
        return _about(math.log2(float(value)))
    return Size(work=max(work, 1.0))


def _about(bits: float, work: float = 1.0) -> Size:
    margin = 1e-13 * max(abs(bits), 1.0) if abs(bits) < _INFINITE else 0.0
    return Size(bits - margin, bits + margin, work)


def _of_sum(parts: list[Size], work: float) -> Size:
    """At most the largest part times their number; at least about the largest, if the others are far below it."""
    first, *others = sorted(parts, key=lambda part: part.low, reverse=True)
    extra = math.log2(len(parts))
    rest = max((part.high for part in others), default=-_INFINITE) + extra
    low = first.low - 1 if first.low > rest + 1 else -_INFINITE
    return Size(low, max(part.high for part in parts) + extra, work)


def _of_power(base: sp.Basic, exponent: sp.Basic, of_base: Size, of_exponent: Size) -> Size:
    if base in (sp.S.Zero, sp.S.One, sp.S.NegativeOne):
        return Size(of_base.low, of_base.high, of_exponent.work)
    if of_exponent.low > _COUNTABLE and not exponent.free_symbols:
        return _HUGE if of_base.low > 0 and _is_positive(exponent) else Size(work=_INFINITE)
    power = _as_float(exponent, of_exponent)
    if power is None:
        return Size(work=of_base.work + of_exponent.work)
    is_expanded = isinstance(base, sp.Add) and base.free_symbols and power == int(power) and power > 1
    if is_expanded and math.comb(int(min(power, MOST_TERMS)) + len(base.args) - 1, len(base.args) - 1) > MOST_TERMS:
        return Size(work=_INFINITE)
    low, high = sorted(0.0 if power == 0 else power * bound for bound in (of_base.low, of_base.high))
    if isinstance(base, sp.Symbol):
        return Size(low, high)
    is_whole = power == int(power)  # else it is computed as a float
    return Size(low, high, of_base.work * max(abs(power), 1.0) if is_whole else max(of_base.work, of_exponent.work))


def _of_product(value: sp.Basic, parts: list[Size]) -> Size:
    """The size of a factorial, of a value of the gamma function or of a binomial coefficient."""
    work = sum(part.work for part in parts)
    if parts[0].low > _COUNTABLE and not value.free_symbols:
        return Size(work=_INFINITE) if isinstance(value, sp.binomial) else _HUGE
    numbers = [_as_float(part, of_part) for part, of_part in zip(value.args, parts, strict=True)]
    if any(number is None or number < 0 for number in numbers):
        return Size(work=work)
    first, *others = (float(number or 0) for number in numbers)
    logarithm = math.lgamma(first + 1 if not isinstance(value, sp.gamma) else max(first, 1.0))
    if others:
        if others[0] > first:
            return Size(work=work)
        margin = logarithm * 1e-9  # as nearly equal numbers are subtracted
        logarithm -= math.lgamma(others[0] + 1) + math.lgamma(first - others[0] + 1)
        return Size((logarithm - margin) / math.log(2), (logarithm + margin) / math.log(2), logarithm / math.log(2))
    return _about(logarithm / math.log(2), logarithm / math.log(2))


def _as_float(value: sp.Basic, of_value: Size) -> float | None:
    """A real number that is small enough as a float, else None."""
    if value.free_symbols or not of_value.high <= _COUNTABLE or of_value.is_too_large:
        return None
    try:
        return float(sp.N(value, 20))
    except TypeError:  # complex, or without a value
        return None


def _is_positive(value: sp.Basic) -> bool:
    """Whether a number is plainly positive, without computing it."""
    if isinstance(value, sp.Rational | sp.Float | sp.NumberSymbol):
        return bool(value > 0)
    plain = isinstance(value, sp.Mul | sp.Add | sp.factorial | sp.exp)
    return (isinstance(value, sp.Pow) and _is_positive(value.base)) or (plain and all(map(_is_positive, value.args)))
