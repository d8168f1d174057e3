"""The answer in a response and its normal form: extraction, clean-up and plain numbers, all by bounded text rules.

Nothing here evaluates what a model wrote. Every pattern runs in time linear in the text.

Order of extraction: last non-empty balanced \\boxed{...} or \\fbox{...}; "final answer is ..."; "#### ...";
"answer is ..." / "answer: ..."; the text itself when it is nothing but an answer; the last number.
"""

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

RELATIVE_TOLERANCE = 1e-4  # of the gold answer, where one of two numbers is written as a decimal
MAX_NUMBER = 60  # characters of a number that is read as an exact fraction
MAX_EXPONENT = 300  # of scientific notation; beyond it a number is left to the symbolic comparison

_DECIMAL = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+"
_BOX = re.compile(r"\\{1,2}(?:boxed|fbox)\s*(?:(\{)|(?=[0-9a-zA-Z])([0-9]+|[a-zA-Z]))|\\.|[{}]", re.DOTALL)
_FINAL = re.compile(r"(?i)\bfinal answer\b[\s*]{0,9}(?:is\b|:|=)")
_ANSWER = re.compile(r"(?i)\banswer\b[\s*]{0,9}(?:is\b|:|=)")
_HASHES = re.compile(r"####[ \t]*(\S[^\n]*)")
_LAST_NUMBER = re.compile(
    r"(?<![\w.])(?:(?<![)\]}])-)?[$€£¥]?(?:"
    rf"\\[dtc]?frac\s*\{{-?[0-9]+\}}\s*\{{[0-9]+\}}|(?:{_DECIMAL})(?:\s?/\s?[0-9]+)?)(?:\s?\\?%)?"
)
_MATHS = {"$$": "$$", "$": "$", r"\(": r"\)", r"\[": r"\]"}
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
_LINK = re.compile(
    r"(?i)(?<![\\a-z])(?:equals?|is|are|so|gives|makes|that|correct|indeed|already|actually|simply|just)\b"
)


def extract_answer(text: str | None) -> str | None:
    """The answer that `text` gives, as it is written there, or None if it gives none."""
    if not text or not text.strip():
        return None
    hashes = _HASHES.findall(text)
    found = _last_box(text) or _stated(text, _FINAL) or (hashes[-1].strip() if hashes else None)
    found = found or _stated(text, _ANSWER) or _bare(text)
    if found:
        return found
    numbers = _LAST_NUMBER.findall(text)
    return numbers[-1].strip() if numbers else None


def _last_box(text: str) -> str | None:
    """Content of the last balanced box that is not empty; of nested boxes the outermost. One pass, one stack."""
    stack: list[int | None] = []  # where the content of an open brace begins if a box opened it, else None
    found: str | None = None
    if "boxed" not in text and "fbox" not in text:
        return None
    for token in _BOX.finditer(text):
        if token.group(1):
            stack.append(token.end())
        elif token.group(2):  # \boxed5
            found = token.group(2)
        elif token.group() == "{":
            stack.append(None)
        elif token.group() == "}" and stack:
            start = stack.pop()
            if start is not None:
                found = text[start : token.start()].strip() or found
    return found


def _stated(text: str, phrase: re.Pattern[str]) -> str | None:
    """What follows the last `phrase`: the formula it opens with, or its sentence (of a long one the last number)."""
    end = max((match.end() for match in phrase.finditer(text)), default=None)
    if end is None:
        return None
    rest = text[end : end + 4000].lstrip(" \t\r\n:*").removeprefix("\\\\")
    for opening, closing in _MATHS.items():
        if rest.startswith(opening) and closing in rest[len(opening) :]:
            content = rest[len(opening) :].split(closing, 1)[0].strip()
            if "\n\n" not in content and not (opening == "$" and " " in content and _WORD.search(content)):
                return content or None
    line = re.split(r"\n|\.\s|\.$|I hope", rest, maxsplit=1)[0].strip(" *\t\r")
    if len(_WORD.findall(line)) > 4:
        numbers = _LAST_NUMBER.findall(line)
        return numbers[-1].strip() if numbers else line
    return _last_part(line) or None


def _bare(text: str) -> str | None:
    """The whole text when it is one short line with at most one word in it."""
    line = text.strip()
    is_bare = len(line) <= 100 and "\n" not in line and len(_WORD.findall(line)) <= 1
    return _last_part(line) if is_bare else None


def _last_part(line: str) -> str:
    """What follows the last linking word, as in "6 + 5 equals 11" or "indeed 30", if there is a digit in it."""
    part = _LINK.split(line)[-1].strip(" ,:*")
    return part if any(char.isdigit() for char in part) else line


_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_SYMBOLS = {
    "−": "-", "–": "-", "—": "-", "×": r"\times ", "·": r"\cdot ", "÷": "/", "⁄": "/", "π": r"\pi ", "∞": r"\infty ",
    "θ": r"\theta ", "√": r"\sqrt ", "°": r"^\circ", "∪": r"\cup ", "∩": r"\cap ", "≤": r"\le ", "≥": r"\ge ",
    "≠": r"\ne ", "±": r"\pm ", "∅": r"\emptyset ", "∈": r"\in ", "≈": r"\approx ", "ℝ": r"\mathbb{R}", "\u200b": "",
}  # fmt: skip
_TEXT = r"\\(?:text|mbox|textbf|textit|textrm|textnormal|mathrm|mathbf|mathit|rm|operatorname)\s*\{([^{}\\]*)\}"
_UNITS = (
    r"(?:mm|cm|km|kg|mg|ml|lb|lbs|oz|ft|yd|mi|hr|hrs|min|mins|sec|secs|mph|kmh|rs|usd|pm|am|sq|cu|deg|rad|in|"
    r"men|boys|cups|days|cats|dogs|eggs|ways|[a-z]{4,})"
)
_WORDS_AFTER = re.compile(
    rf"(?i)(?<=[0-9}}!)])\s*(?:(?<=[0-9}}!)\s]){_UNITS}\b)(?:(?:\s+|/|\s*\.\s*)[a-z]+)*(?:\s*\^?\s*\{{?[23]\}}?)?\.?$"
)
_TEXT_AFTER = re.compile(rf"(?<=[0-9}})a-zA-Z!])(?:\s|~)*{_TEXT}(?:\s*\^\s*(?:\{{-?[0-9]\}}|[0-9]))?(?:\s*\.)?$")
_CLEAN: list[tuple[re.Pattern[str], str]] = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"[\x00-\x08\x0b-\x1f\x7f]", ""),  # no control characters beyond the tab and the line break
        (r"\\(?:boxed|fbox)\s*\{(.*)\}", r"\1"),  # a box in a box
        (r"\\\(|\\\)|\\\[|\\\](?!\s*[0-9.]+\s*(?:pt|em|ex))|\$\$", " "),
        (r"\\\$|\$|[€£¥₹]|\\(?:pounds|euro)\b|\b(?:Rs\.?|USD|EUR)\s*(?=[0-9])", ""),
        (r"^\s*\*\*(.*)\*\*\W*$", r"\1"),  # bold in Markdown
        (r"\*\*", "^"),
        (r"\\!\s*|,?\s*\\(?:ldots|dots|cdots)\s*$", ""),
        (r"(?<!\\)\\[,;:> ]|\\q?quad\b|~|\\displaystyle\b|\\left\b|\\right\b|\\[bB]igg?[lr]?\b(?![a-z])", " "),
        (r"\{\s*,\s*\}", ","),
        (r"\\[dtc]frac", r"\\frac"),
        (r"\\%|\s*\\text\s*\{\s*(?:percent|%|\\%)\s*\}|\s*\bper ?cent(?:age)?\b", "%"),
        (r"\s*\^\s*\{?\s*\\(?:circ|degree)\s*\}?|\\degree\b|\\text\s*\{\s*degrees?\s*\}", " "),
        (r"\\(?:text|mbox)\s*\{\s*(?:,\s*)?(?:and|or)\s*\}", ","),
        (r"(?<=[^A-Za-z\\]),?\s+(?:and|or)\s+(?=[^A-Za-z]|[a-z]\s*=)", ","),
        (r"\\langle|\\lparen", "("),
        (r"\\rangle|\\rparen", ")"),
        (r"\\varnothing|\{\s*\\\}|\\\{\s*\\\}", r"\\emptyset "),
        (r"\\(le|ge|ne)q(?:slant)?\b", r"\\\1 "),
        (r"(?<![A-Za-z\\])(pi|sqrt|infty|theta)(?![A-Za-z])", r"\\\1"),
        (r"(?<![A-Za-z\\])(?:infinity|inf|oo)(?![A-Za-z])", r"\\infty"),
        (r"\\sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}"),
        (r"^\s*(?:\\approx|\\sim|=|approximately|about|roughly|is\b)\s*", ""),
        (r"(?<![0-9])\.(?=[0-9])", "0."),
    )
]  # fmt: skip


@lru_cache(maxsize=100_000)
def normalize(answer: str) -> str:
    """`answer` without delimiters, spacing commands, currency, degree signs, trailing units and end punctuation.

    What is left is LaTeX with single spaces: the input of the string comparison and of the symbolic one.
    """
    text = re.sub(r"(?<=[0-9])(?=[¼½¾⅓⅔⅛])", " ", answer)
    text = re.sub("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺]+", lambda match: "^{" + match[0].translate(_SUPERSCRIPTS) + "}", text)
    text = unicodedata.normalize("NFKC", text)
    text = "".join(_SYMBOLS.get(char, str(unicodedata.decimal(char, char))) for char in text)
    if r"\begin" not in text:
        text = re.sub(r"\\\\(?=[a-zA-Z])", r"\\", text)  # commands whose backslash was escaped once more
    for pattern, replacement in _CLEAN:
        text = pattern.sub(replacement, text)
    text = " ".join(text.split()).strip("* ").rstrip(".,;:* ")
    if any(char.isdigit() for char in text) or "\\" in text:
        shorter = _WORDS_AFTER.sub("", _TEXT_AFTER.sub("", text)).strip()
        text = shorter or text
    return text.rstrip(".,;: ")


_CALCULATION = re.compile(
    r"(?:[0-9.,+\-*/^(){}!%=\s]|\\(?:times|cdot|div|frac)(?![a-z])|(?:(?<=[0-9])|(?<=[0-9] ))[xX](?= ?[0-9]))+"
)


def is_calculation(text: str) -> bool:
    """Whether a normalised text is written-out arithmetic without names, such as the left side of 2 + 3 = 5."""
    return _CALCULATION.fullmatch(text) is not None


def words(answer: str, short: bool = False) -> str | None:
    """The lower-case words of an answer that is text, such as \\text{Evelyn} or "no solution"; else None.

    Letters outside of \\text{} could be a product of names: they are words if one has four letters, or if `short`.
    """
    text = re.sub(_TEXT, r"\1", normalize(answer)).strip()
    marked = re.fullmatch(_TEXT, normalize(answer)) is not None
    plain = re.sub(r"[^\w\s]", " ", text)
    if not re.fullmatch(r"[^\W\d_]+(?:\s+\w+)*", plain.strip()) or re.search(r"[\\^_=+*/<>|]", text):
        return None
    longest = max(len(word) for word in plain.split())
    return " ".join(plain.casefold().split()) if marked or short or longest >= 4 else None


def choice(answer: str) -> str | None:
    """The letter of a multiple-choice answer such as "(B)", "B.", \\text{(B) 5}, or None."""
    text = re.sub(_TEXT, r"\1", normalize(answer)).strip(" {}")
    match = re.match(r"(?i:option|choice)?\s*(?:\(([A-Ja-j])\)|([A-J])(?:[).:]|$|\s(?![A-Za-z=+\-*/^<>])))", text)
    return (match[1] or match[2]).upper() if match else None


@dataclass(frozen=True)
class Number:
    """A number written out in full. `value` is exact; `decimal` says that it is written with decimals, not all zero."""

    value: Fraction
    decimal: bool = False
    percent: bool = False
    base: int | None = None  # the base written as a subscript; `value` then only holds its digits


_NUMBER = re.compile(
    rf"(?P<sign>[-+]?)\s*(?:(?P<repeat>[0-9]*\.[0-9]*)\\overline\s*\{{(?P<cycle>[0-9]+)\}}"
    r"|(?:(?P<whole>[0-9]+)\s*(?:\s|(?=\\)))?(?:\\frac\s*(?:\{\s*(?P<sign2>[-+]?)(?P<up>[0-9]+)\s*\}|(?P<up1>[0-9]))"
    r"\s*(?:\{\s*(?P<down>[0-9]+)\s*\}|(?P<down1>[0-9]))|(?P<up2>[0-9]+)\s*/\s*(?P<down2>[0-9]+))"
    rf"|(?P<plain>[0-9]{{1,3}}(?:\s[0-9]{{3}})+(?:\.[0-9]*)?|{_DECIMAL})"
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
    decimal = "." in text and not part["cycle"] and value.denominator > 1
    return Number(-value if negative else value, decimal, bool(part["percent"]), base)


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
