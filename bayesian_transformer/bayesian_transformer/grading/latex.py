"""The sympy object of a normalised LaTeX answer, read by the grammar of latex2sympy2-extended and nothing else."""

import re
from typing import Any, TypeAlias

import sympy as sp
from latex2sympy2_extended import NormalizationConfig, normalize_latex
from latex2sympy2_extended.latex2sympy2 import _Latex2Sympy

from .sizes import TooLarge, check

Value: TypeAlias = sp.Basic | sp.MatrixBase

_CONFIG = NormalizationConfig(basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none")
_IMAGINARY_UNIT = re.compile(r"(?<![A-Za-z\\])i(?![A-Za-z])(?:\s*(\^))?")
_COMMAS = re.compile(r"(\\[{}]|[()\[\]]|(?<![0-9,.])[0-9]{1,3}(?:,[0-9]{3})+(?!,?[0-9])|,(?=[0-9]))")
_GROUPED = re.compile(r"[0-9]+(?:,[0-9]{3})+")
_OPENING, _CLOSING = frozenset(("(", "[", r"\{")), frozenset((")", "]", r"\}"))
_MIXED = re.compile(r"(?<![_^0-9.])([0-9]+)\s+([0-9]+)\s*/\s*([0-9]+)")
_SPACED = re.compile(r"(?<![0-9.,])[0-9]{1,3}(?:\s[0-9]{3})+(?![0-9])")
_ONE_DIGIT = re.compile(r"(?:[_^]|\\(?:frac|sqrt))\s*[0-9]")  # an argument without braces, so that a number may follow
_SUM = re.compile(r"\\(?:sum|prod)|_\s*\{?i|i\s*=")  # here i is an index


class ParseError(ValueError):
    """The text is not LaTeX mathematics that the grammar knows."""


class _Converter(_Latex2Sympy):
    """The library's converter, but for the digits of a number: it hands those to sympify, which evaluates Python.

    And but for what it computes at once, however large the result.
    """

    def parse_number(self, text: str) -> sp.Integer | sp.Float:
        digits = text.replace(",", "")
        return sp.Integer(digits) if digits.isdecimal() else sp.Float(digits)

    def convert_interval(self, expr: Any) -> sp.Basic:
        check(*map(self.convert_expr, expr.expr()))  # the library computes the two ends to compare them
        return super().convert_interval(expr)

    def convert_binom(self, binom: Any) -> sp.Basic:
        return sp.binomial(self.convert_expr(binom.upper), self.convert_expr(binom.lower), evaluate=False)

    def convert_func(self, func: Any) -> sp.Basic:
        name = func.func_normal_single_arg()
        if name and name.start.text in (r"\Gamma", r"\gamma"):  # the library computes it
            argument = func.func_single_arg() or func.func_single_arg_noparens()
            return sp.gamma(self.convert_func_arg(argument), evaluate=False)
        return super().convert_func(func)


def parse(text: str, grouped: bool = True) -> Value:
    """The sympy object of one normalised LaTeX answer, unevaluated where the grammar allows it.

    A comma in brackets separates; elsewhere 1,234 is a number if `grouped`, else two.
    """
    if not _SUM.search(text):
        text = _IMAGINARY_UNIT.sub(lambda match: "(I)^" if match[1] else "I", text)  # the grammar drops the power of I
    text = re.sub(r"\\begin\{(?:[bvBV]?matrix|smallmatrix|array)\}(?:\{[lcr|]*\})?", r"\\begin{pmatrix}", text)
    text = re.sub(r"\\end\{(?:[bvBV]?matrix|smallmatrix|array)\}", r"\\end{pmatrix}", text)
    text = _separate(_side_by_side(text.replace("%", "")), grouped)
    try:
        parsed = _Converter(is_real=True).parse(normalize_latex(text, _CONFIG))
    except (MemoryError, RecursionError, PermissionError, TooLarge):
        raise
    except Exception as error:  # the grammar raises plain Exception for a syntax error
        raise ParseError(f"not an expression: {text[:80]!r}") from error
    if not isinstance(parsed, Value):
        raise ParseError(f"not a single expression: {text[:80]!r}")
    return parsed


def _side_by_side(text: str) -> str:
    """`text` with 2 1/2 as a mixed number and 10 000 joined. ParseError if other numbers stand side by side.

    The grammar would add 1 and 2 in "1 2", or join them.
    """
    text = _MIXED.sub(r"\1\\frac{\2}{\3}", text)
    text = _SPACED.sub(lambda match: "".join(match[0].split()), text)
    if re.search(r"[0-9.]\s+[0-9.]", _ONE_DIGIT.sub("x", text)):
        raise ParseError(f"numbers side by side: {text[:80]!r}")
    return text


def _separate(text: str, grouped: bool) -> str:
    """`text` without the commas that mark thousands and with a space after the others, so that they stay apart."""
    depth, pieces = 0, []
    for piece in _COMMAS.split(text):
        depth += (piece in _OPENING) - (piece in _CLOSING and depth > 0)
        is_number = "," in piece and grouped and depth == 0 and _GROUPED.fullmatch(piece) is not None
        pieces.append(piece.replace(",", "" if is_number else ", "))
    return "".join(pieces)
