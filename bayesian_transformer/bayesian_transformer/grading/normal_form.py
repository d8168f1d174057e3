"""The normal form of an answer and plain numbers, by bounded text rules.

Nothing here evaluates what a model wrote. Every pattern runs in time linear in the text.
"""

import re
import unicodedata
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from itertools import accumulate
from typing import Self

from .chinese import SCALES as CHINESE_SCALES
from .notation import unified
from .sexagesimal import with_decimal_angles
from .tolerance import RELATIVE_TOLERANCE, ROUGHLY, is_near, is_rounding

MAX_BRACES = 20  # pairs around an answer that are taken off
MAX_NUMBER = 60  # characters of a number that is read as an exact fraction
MAX_EXPONENT = 300  # of scientific notation; beyond it a number is left to the symbolic comparison

DECIMAL = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+"
VULGAR = "¼-¾⅐-⅞"  # one-character fractions
_SCALES = {"hundred": "10^2", "thousand": "10^3", "million": "10^6", "billion": "10^9", "trillion": "10^12"}
SCALE = rf"(?:{'|'.join(_SCALES)}|dozen)s?\b"
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_SYMBOLS = {
    "−": "-", "–": "-", "—": "-", "×": r"\times ", "·": r"\cdot ", "÷": "/", "⁄": "/", "π": r"\pi ", "∞": r"\infty ",
    "θ": r"\theta ", "√": r"\sqrt ", "°": r"^\circ", "∪": r"\cup ", "∩": r"\cap ", "≤": r"\le ", "≥": r"\ge ",
    "≠": r"\ne ", "±": r"\pm ", "∅": r"\emptyset ", "∈": r"\in ", "≈": r"\approx ", "ℝ": r"\mathbb{R}", "\u200b": "",
}  # fmt: skip
_FONT = r"\\(?:text|mbox|textbf|textit|textrm|textsf|texttt|textnormal|math(?:rm|bf|it|sf)|rm|operatorname)"
TEXT = _FONT + r"\s*\{([^{}\\]*)\}"  # as plain words
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_DEGREES = re.compile(r"([0-9]+(?:\.[0-9]+)?|\\frac\{[0-9]+\}\{[0-9]+\})\s*°")
_ANGLE = re.compile(
    r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-z])(?:\s*\^\s*(?:[0-9]|\{[0-9]+\}))?"
    r"\s*(?:\([^()]*\)|\{[^{}]*\}|-?\s*[0-9.]+\s*°)"
)
_CLEAN: list[tuple[re.Pattern[str], str]] = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"[\x00-\x08\x0b-\x1f\x7f]", ""),  # no control characters beyond the tab and the line break
        (r"\\(?:boxed|fbox)\s*\{(.*)\}", r"\1"),  # a box in a box
        (r"\\\(|\\\)|\\\[|\\\](?!\s*[0-9.]+\s*(?:pt|em|ex))|\$\$", " "),
        (r"\\\$|\$|[€£¥₹]|\\(?:pounds|euro)\b|\b(?:Rs\.?|USD|EUR)\s*(?=[0-9])", ""),
        (r"^\s*\*\*(.*)\*\*\W*$", r"\1"),  # bold in Markdown
        (r"\*\*", "^"),
        (r"(?<=[0-9])\s*(?:\{\s*,\s*\}|,\s*\\!)\s*(?=[0-9]{3}(?![0-9]))", ""),  # commas that mark thousands
        (r"\\!\s*|,?\s*\\(?:ldots|dots|cdots)\s*$|[`¢]|\\cent\b|\\(?:text)?color\s*\{[^{}]*\}|\\\\\s*$", ""),
        (r"\\(?:bf|it|sf|tt|em|bfseries|itshape|small|normalsize|large|Large|LARGE|huge|Huge)(?![A-Za-z])", " "),
        (r"\\(?:underline|boldsymbol|bm|emph)(?=\s*\{)", ""),
        (r"(?<!\\)\\[,;:> ]|\\q?quad\b|~|\\displaystyle\b|\\left\b|\\right\b|\\[bB]igg?[lr]?\b(?![a-z])", " "),
        (r"\{\s*,\s*\}", ","),
        (r"\\[dtc]frac", r"\\frac"),
        (r"\\%|\s*\\text\s*\{\s*(?:percent|%|\\%)\s*\}|\s*\bper ?cent(?:age)?\b", "%"),
        (r"\s*\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![a-z]))|\^?\s*\\degree\b|\s*\\text\s*\{\s*degrees?\s*\}", "° "),
        (r",?\s*\\(?:text|mbox)\s*\{\s*(?:,\s*)?(?:and|or)\s*\}", ","),
        (rf"{_FONT}\s*\{{([^{{}}\\]*(?:[0-9]|\b{SCALE})[^{{}}\\]*)\}}", r" \1 "),
        (rf"^\s*{_FONT}\s*\{{[^{{}}\\]*(?:[:=]|\b(?:is|are))\s*\}}", ""),  # a sentence before the answer
        (r"\^\s*\{?\s*(?:\\text\s*\{)?\s*(?:st|nd|rd|th)\s*\}{1,2}", ""),
        (r"(?<=[^A-Za-z\\]),?\s+(?:and|or)\s+(?=[^A-Za-z]|[a-z]\s*=)", ","),
        (r"\\langle|\\lparen", "("),
        (r"\\rangle|\\rparen", ")"),
        (r"\\varnothing|\{\s*\\\}|\\\{\s*\\\}", r"\\emptyset "),
        (r"\\(le|ge|ne)q(?:slant)?\b", r"\\\1 "),
        (r"(?<![A-Za-z\\])(pi|sqrt|infty|theta|(?:sin|cos|tan)(?=\s*[(0-9]))(?![A-Za-z])", r"\\\1"),
        (r"(?<![A-Za-z\\])(?:infinity|inf|oo)(?![A-Za-z])", r"\\infty"),
        (r"\\sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}"),
        (r"^\s*(?:\\approx|\\sim|\\Rightarrow|\\implies|=|approximately|about|roughly|is\b)\s*", ""),
        (r"(?<=[0-9.])\\(?:bar|dot|overline)\s*(?:\{([0-9]+)\}|([0-9])(?![0-9]))", r"\\overline{\1\2}"),
        (r"(?<=[0-9])\s*[xX]\s*(?=10\s*\^)", r"\\times "),
        *((rf"(?<=[0-9])\s*\b{name}\b", rf" \\cdot {size}") for name, size in (*_SCALES.items(), ("dozen", "12"))),
        *((rf"(?<=[0-9])\s*{name}", rf" \\cdot {size}") for name, size in CHINESE_SCALES.items()),
        (r"(?<![0-9])\.(?=[0-9])", "0."),
    )
]  # fmt: skip


@lru_cache(maxsize=100_000)
def normalize(answer: str) -> str:
    """`answer` without delimiters, spacing commands, fonts, currency, degree signs and end punctuation.

    What is left is LaTeX with single spaces: the input of the string comparison and of the symbolic one. An angle in
    degrees becomes radians in its sine, cosine and the like, and is a plain number elsewhere.
    """
    text = re.sub(rf"(?<=[0-9])(?=[{VULGAR}])", " ", answer)
    text = re.sub("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺]+", lambda match: "^{" + match[0].translate(_SUPERSCRIPTS) + "}", text)
    text = unicodedata.normalize("NFKC", text)
    text = "".join(_SYMBOLS.get(char, str(unicodedata.decimal(char, char))) for char in text)
    if r"\begin" not in text:
        text = re.sub(r"\\\\(?=[a-zA-Z])", r"\\", text)  # commands whose backslash was escaped once more
    text = unified(text)
    for pattern, replacement in _CLEAN:
        text = pattern.sub(replacement, text)
    text = with_decimal_angles(text)
    text = _ANGLE.sub(lambda match: _DEGREES.sub(r"\\frac{\1 \\pi}{180}", match[0]), text).replace("°", " ")
    return _without_outer_braces(" ".join(text.split()).strip("* ").rstrip(".,;:* "))


def _without_outer_braces(text: str) -> str:
    """`text` without the pairs of TeX's braces around all of it, which hold no more than a few."""
    for _ in range(MAX_BRACES):
        if not (text.startswith("{") and text.endswith("}") and not text.endswith(r"\}")):
            break
        depths = list(accumulate((brace[0] == "{") - (brace[0] == "}") for brace in _BRACE.finditer(text)))
        if 0 in depths[:-1] or depths[-1] != 0:
            break
        text = text[1:-1].strip()
    return text


@dataclass(frozen=True)
class Number:
    """A number written out in full. `value` is exact; `decimal` says that it is written with decimals, not all zero."""

    value: Fraction
    decimal: bool = False
    percent: bool = False
    base: int | None = None  # the base written as a subscript; `value` then only holds its digits
    unit: Fraction | None = field(default=None, compare=False)  # what the last digit of a decimal counts

    def equals(self, answer: Self, tolerance: float = RELATIVE_TOLERANCE) -> bool:
        """Whether `answer` is this number: within `tolerance` of a decimal, else exactly or rounded to its decimals."""
        if self.base and answer.base and self.base != answer.base:
            return False
        accepted = {self.value}
        if self.percent != answer.percent:
            accepted.add(self.value / 100 if self.percent else self.value * 100)
        if self.decimal:
            return any(is_near(value, answer.value, tolerance) for value in accepted)
        unit = answer.unit
        return answer.value in accepted or (
            unit is not None and any(is_rounding(value, answer.value, unit) for value in accepted)
        )

    def resembles(self, other: Self) -> bool:
        """Whether the two are one number, or, if one is a decimal, roughly so."""
        is_rough = (self.decimal or other.decimal) and is_near(self.value, other.value, ROUGHLY)
        return is_rough or self.value == other.value


_NUMBER = re.compile(
    rf"(?P<sign>[-+]?)\s*(?:(?P<repeat>[0-9]*\.[0-9]*)\\overline\s*\{{(?P<cycle>[0-9]+)\}}"
    r"|(?:(?P<whole>[0-9]+)\s*(?:\s|(?=\\)))?(?:\\frac\s*(?:\{\s*(?P<sign2>[-+]?)(?P<up>[0-9]+)\s*\}|(?P<up1>[0-9]))"
    r"\s*(?:\{\s*(?P<down>[0-9]+)\s*\}|(?P<down1>[0-9]))|(?P<up2>[0-9]+)\s*/\s*(?P<down2>[0-9]+))"
    rf"|(?P<plain>[0-9]{{1,3}}(?:\s[0-9]{{3}})+(?:\.[0-9]*)?|{DECIMAL})"
    r"(?:(?:\s*(?:\\times|\\cdot|\*)\s*10\s*\^\s*(?:\{\s*(?P<ten>[-+]?[0-9]+)\s*\}|(?P<ten1>[-+]?[0-9]+))"
    r"|[eE](?P<ten2>[-+]?[0-9]+))"
    r"|\s*/\s*(?P<over>[0-9]+)|_\s*\{?\s*(?P<base>[0-9]{1,2})\s*\}?)?"
    r")\s*(?P<percent>%?)"
)


@lru_cache(maxsize=100_000)
def number(text: str) -> Number | None:
    """Read a normalised answer that is one written-out number: integer, decimal, fraction, mixed number, percentage.

    Also thousands separators, repeating decimals, scientific notation and digits with a base. Never a power or a
    factorial: those could be too large to write out.
    """
    if len(text) > MAX_NUMBER:
        return None
    while len(text) > 2 and text[0] == "{" and text[-1] == "}":
        text = text[1:-1].strip()
    match = _NUMBER.fullmatch(text)
    if match is None:
        return None
    part = match.groupdict()
    value = _magnitude(part)
    if value is None:
        return None
    negative = (part["sign"] == "-") != (part["sign2"] == "-")
    base = int(part["base"]) if part["base"] else None
    is_decimal = "." in text and not (part["cycle"] or part["over"]) and value.denominator > 1
    unit = _last_place(part) if is_decimal else None
    return Number(-value if negative else value, is_decimal, bool(part["percent"]), base, unit)


def _magnitude(part: dict[str, str | None]) -> Fraction | None:
    """Absolute value of a matched number; None for a zero denominator or an exponent out of range."""
    if part["cycle"]:
        head, cycle = part["repeat"] or "0.", part["cycle"]
        places = len(head.partition(".")[2])
        tail = Fraction(int(cycle), (10 ** len(cycle) - 1) * 10**places)
        return Fraction(head.removesuffix(".") or "0") + tail
    above = part["up"] or part["up1"] or part["up2"]
    below = part["down"] or part["down1"] or part["down2"]
    if above and below:
        whole = int(part["whole"] or 0)
        return whole + Fraction(int(above), int(below)) if int(below) else None
    plain = Fraction(re.sub(r"[\s,]", "", part["plain"] or "0").removesuffix("."))
    if part["over"]:
        return plain / int(part["over"]) if int(part["over"]) else None
    exponent = int(part["ten"] or part["ten1"] or part["ten2"] or 0)
    return plain * Fraction(10) ** exponent if abs(exponent) <= MAX_EXPONENT else None


def _last_place(part: dict[str, str | None]) -> Fraction:
    """What the last written digit of a matched decimal counts."""
    exponent = int(part["ten"] or part["ten1"] or part["ten2"] or 0)
    return Fraction(10) ** (exponent - len((part["plain"] or "").partition(".")[2]))
