"""LaTeX answers as sympy objects: parsing, equality and a canonical text, on math-verify and latex2sympy2-extended.

The name is that of the file with this role in the published code; nothing else is taken from it. The input is what
run.utils.math.normalize leaves of an answer. Text reaches sympy through the LaTeX grammar only, never through
sympify or parse_expr, which evaluate Python. No function here limits time or memory: call them in a worker.
"""

import re
from collections.abc import Sequence

from latex2sympy2_extended import NormalizationConfig, normalize_latex
from latex2sympy2_extended.latex2sympy2 import _Latex2Sympy
from math_verify import verify
from sympy import And as Conjunction
from sympy import (
    Basic,
    Eq,
    FiniteSet,
    Float,
    I,
    Integer,
    Interval,
    MatrixBase,
    N,
    Rational,
    Set,
    Symbol,
    Tuple,
    Union,
    cancel,
    expand,
    nan,
    together,
    zoo,
)
from sympy.core.relational import Relational
from sympy.polys.polyerrors import BasePolynomialError

from run.utils.math import RELATIVE_TOLERANCE

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

_CONFIG = NormalizationConfig(basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none")
_IMAGINARY_UNIT = re.compile(r"(?<![A-Za-z\\])i(?![A-Za-z])(?:\s*(\^))?")
_SUM = re.compile(r"\\(?:sum|prod)|_\s*\{?i|i\s*=")  # here i is an index


class ParseError(ValueError):
    """The text is not LaTeX mathematics that the grammar knows."""


class _Converter(_Latex2Sympy):
    """The library's converter, but for the digits of a number: it hands those to sympify, which evaluates Python."""

    def parse_number(self, text: str) -> Integer | Float:
        digits = text.replace(",", "")
        return Integer(digits) if digits.isdecimal() else Float(digits)


def parse(text: str) -> Basic | MatrixBase:
    """The sympy object of one normalised LaTeX answer, unevaluated where the grammar allows it."""
    if not _SUM.search(text):
        text = _IMAGINARY_UNIT.sub(lambda match: "(I)^" if match[1] else "I", text)  # the grammar drops the power of I
    text = re.sub(r"\\begin\{(?:[bvBV]?matrix|smallmatrix|array)\}(?:\{[lcr|]*\})?", r"\\begin{pmatrix}", text)
    text = re.sub(r"\\end\{(?:[bvBV]?matrix|smallmatrix|array)\}", r"\\end{pmatrix}", text)
    text = re.sub(r"(?<![0-9,.])[0-9]{1,3}(?:,[0-9]{3})+(?![0-9,])", _without_commas, text.replace("%", ""))
    try:
        parsed = _Converter(is_real=True).parse(normalize_latex(text, _CONFIG))
    except (MemoryError, RecursionError, PermissionError):
        raise
    except Exception as error:  # the grammar raises plain Exception for a syntax error
        raise ParseError(f"not an expression: {text[:80]!r}") from error
    if not isinstance(parsed, Basic | MatrixBase):
        raise ParseError(f"not a single expression: {text[:80]!r}")
    return parsed


def _without_commas(match: re.Match[str]) -> str:
    return match[0].replace(",", "")


def equal(gold: str, answer: str) -> bool:
    """Whether two normalised answers are equal. An unreadable answer is unequal to any.

    ParseError if `gold` cannot be read.
    """
    expected = parse(gold)
    try:
        given = parse(answer)
    except ParseError:
        return False
    return _same(expected, given)


def _same(gold: Basic | MatrixBase, answer: Basic | MatrixBase) -> bool:
    """Containers element by element, numbers within RELATIVE_TOLERANCE if one is a decimal, the rest symbolically."""
    gold, answer = _unwrap(gold, answer)
    if isinstance(gold, Interval) and isinstance(answer, Interval):
        ends = (gold.left_open, gold.right_open) == (answer.left_open, answer.right_open)
        return ends and _same(gold.start, answer.start) and _same(gold.end, answer.end)
    left, right = _elements(gold), _elements(answer)
    if left is not None and right is not None:
        if isinstance(gold, FiniteSet):
            return _same_unordered(gold.args, answer.args if isinstance(answer, FiniteSet) else right)
        return len(left) == len(right) and all(map(_same, left, right))
    if _are_inequalities(gold) and _are_inequalities(answer):
        return _same_unordered(gold.args, answer.args)
    if _is_number(gold) and _is_number(answer):
        if gold.has(Float) or answer.has(Float):
            return bool(abs(N(gold - answer, 30)) <= RELATIVE_TOLERANCE * abs(N(gold, 30)))
        if (gold.has(I) or answer.has(I)) and expand(gold - answer) == 0:
            return True
    if isinstance(gold, Eq) and isinstance(answer, Eq) and not _is_name(gold.lhs) and _same_equation(gold, answer):
        return True
    return bool(verify(gold, answer, allow_set_relation_comp=True, timeout_seconds=None, raise_on_error=True))


def _same_equation(gold: Eq, answer: Eq) -> bool:
    """Whether the two equations are one polynomial = 0, up to a factor. False if they have no polynomial form."""
    try:
        return _canonical_equation(gold) == _canonical_equation(answer)
    except SYMPY_ERRORS:
        return False


def _are_inequalities(value: Basic | MatrixBase) -> bool:
    """Whether this is a chain such as 1 < x < 2."""
    return isinstance(value, Conjunction) and not any(isinstance(part, Eq) for part in value.args)


def _unwrap(gold: Basic | MatrixBase, answer: Basic | MatrixBase) -> tuple[Basic | MatrixBase, Basic | MatrixBase]:
    """Drop the left side of an assignment such as x = 5 where only one of the two has it."""
    if isinstance(answer, Eq) and not isinstance(gold, Eq) and _is_name(answer.lhs):
        return gold, answer.rhs
    if isinstance(gold, Eq) and not isinstance(answer, Relational | Conjunction) and _is_name(gold.lhs):
        return gold.rhs, answer
    return gold, answer


def _is_name(side: Basic) -> bool:
    return isinstance(side, Symbol) or (getattr(side, "is_Function", False) and all(map(_is_name, side.args)))


def _is_number(value: Basic | MatrixBase) -> bool:
    return bool(getattr(value, "is_number", False)) and not isinstance(value, MatrixBase)


def _elements(value: Basic | MatrixBase) -> list[Basic] | None:
    """Entries of a tuple, set, matrix or open interval (which is how the grammar reads a pair of numbers), or None."""
    if isinstance(value, FiniteSet):
        return list(getattr(value, "_unsorted_args", value.args))
    if isinstance(value, Tuple):
        return list(value.args)
    if isinstance(value, MatrixBase):
        return [Tuple(*row) for row in value.tolist()] if 1 not in value.shape else list(value.flat())
    if isinstance(value, Interval) and value.left_open and value.right_open:
        return [value.start, value.end]
    return None


def _same_unordered(gold: Sequence[Basic], answer: Sequence[Basic]) -> bool:
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
    value = parse(text)
    decimals = {part: Rational(str(part)) for part in value.atoms(Float)}
    return _canonical(value.xreplace(decimals) if decimals else value)


def _canonical(value: Basic | MatrixBase) -> str:
    if isinstance(value, MatrixBase):
        return "[" + ",".join(_canonical(Tuple(*row)) for row in value.tolist()) + "]"
    if isinstance(value, FiniteSet):
        return "{" + ",".join(sorted(map(_canonical, value.args))) + "}"
    if isinstance(value, Tuple):
        return "(" + ",".join(map(_canonical, value.args)) + ")"
    if isinstance(value, Interval):
        left, right = "(" if value.left_open else "[", ")" if value.right_open else "]"
        return f"{left}{_canonical(value.start)},{_canonical(value.end)}{right}"
    if isinstance(value, Union | Conjunction):
        return f"{type(value).__name__}({','.join(sorted(map(_canonical, value.args)))})"
    if isinstance(value, Eq):
        is_value = _is_name(value.lhs) or _is_number(value.lhs)
        return _canonical(value.rhs) if is_value else _canonical_equation(value)
    if isinstance(value, Set | Relational):
        return str(value.canonical if isinstance(value, Relational) else value)
    return _canonical_number(value) if _is_number(value) else str(cancel(together(expand(value.doit()))))


def _canonical_equation(equation: Eq) -> str:
    """The equation as numerator = 0, without its constant factor and with a fixed sign."""
    _, polynomial = expand(together(expand((equation.lhs - equation.rhs).doit())).as_numer_denom()[0]).primitive()
    return f"{min(str(polynomial), str(expand(-polynomial)))}=0"


def _canonical_number(value: Basic) -> str:
    """A rational number exactly, p or p/q; any other to DIGITS significant digits. Of a complex one both parts."""
    value = value.doit()
    real, imaginary = map(_canonical_real, value.as_real_imag() if value.is_real is not True else (value, Integer(0)))
    return real if imaginary == "0" else f"{real}+{imaginary}*i"


def _canonical_real(value: Basic) -> str:
    if value is nan or value is zoo:
        raise ParseError("a division by zero has no value")
    if isinstance(value, Rational) or not value.is_comparable:  # also infinity
        return str(value)
    decimal = N(value, DIGITS + 10)
    return str(N(decimal, DIGITS)) if abs(decimal) > 10**-DIGITS else "0"
