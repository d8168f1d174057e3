"""The answer in a response and its normal form: extraction, clean-up and plain numbers, all by bounded text rules.

Nothing here evaluates what a model wrote. Every pattern runs in time linear in the text.

Order of extraction: last non-empty balanced \\boxed{...} or \\fbox{...}; "final answer is ..."; "#### ...";
"answer is ..." / "answer: ..."; "option is (B)"; the text itself when it is nothing but an answer; the last number, or
the formula that it is a part of. A phrase that no answer follows ("the answer is correct") does not count.
"""

import re
import unicodedata
from collections import deque
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

RELATIVE_TOLERANCE = 1e-4  # of the gold answer, where one of two numbers is written as a decimal
MAX_NUMBER = 60  # characters of a number that is read as an exact fraction
MAX_EXPONENT = 300  # of scientific notation; beyond it a number is left to the symbolic comparison
PHRASES = 20  # of the last "answer is" that are tried
NEAR = 300  # characters around the last number that can belong to its formula

_DECIMAL = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+"
_SCALES = {"hundred": "10^2", "thousand": "10^3", "million": "10^6", "billion": "10^9", "trillion": "10^12"}
_SCALE = rf"(?:{'|'.join(_SCALES)}|dozen)s?\b"
_BOX = re.compile(r"\\{1,2}(?:boxed|fbox)\s*(?:(\{)|(?=[0-9a-zA-Z])([0-9]+|[a-zA-Z]))|\\.|[{}]", re.DOTALL)
_FINAL = re.compile(r"(?i)\bfinal answer\b[\s*]{0,9}(?:is\b|:|=)")
_ANSWER = re.compile(r"(?i)\banswer\b[\s*]{0,9}(?:is\b|:|=)")
_OPTION = re.compile(
    r"\b(?i:(?:choose|pick|select|is)\s+(?:option|choice)|(?:option|choice)(?:\s+is\b|:)|(?:option|choice)(?=\s*\())"
    r"[\s*]{0,4}(\([A-Ja-j]\)|[A-J])(?!\w)"
)
_HASHES = re.compile(r"####[ \t]*(\S[^\n]*)")
_NUMBER_IN_TEXT = (
    r"(?:(?<![)\]}])-)?[$€£¥]?(?:"
    rf"\\[dtc]?frac\s*\{{-?[0-9]+\}}\s*\{{[0-9]+\}}|(?:{_DECIMAL})(?:\s?/\s?[0-9]+)?)(?:\s?\\?%|\s{_SCALE})?"
)
_LAST_NUMBER = re.compile(rf"(?<![\w.]){_NUMBER_IN_TEXT}")
_FIRST_NUMBER = re.compile(
    rf"(?:{_NUMBER_IN_TEXT}|\(?[A-H]\)?)(?=(?:\s|[,;(]\s*)(?!(?:and|or|to|equals?|is|are|plus|minus|times|divided)\b)[a-z]{{2,}})"
)
_CLAUSE = re.compile(r"\b(?:because|since|as|for|when|if|which|where|while|not|after|and|or|to)\b")
_MATHS = {"$$": "$$", "$": "$", r"\(": r"\)", r"\[": r"\]"}
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
_LINK = re.compile(
    r"(?i)(?<![\\a-z])(?:equals?|is|are|so|gives|makes|that|correct|indeed|already|actually|simply|just|therefore|thus)\b"
)
_JUDGED = re.compile(r"(?i)(?:correct|right|wrong|incorrect|reasonable|valid|sensible|plausible)\b")
_REMARK = re.compile(
    r"(?i)(?:in|as|an?(?= )|the|that|this|for|not|very|also|based|given|found|clear|unique|below|above)\b"
)
_FREE = r"text|mbox|math[a-z]*|textbf|q?quad|right|end|circ|degree|[dt]?frac"  # commands that do not change a number
_BOUND_BEFORE = re.compile(rf"(?:[\^_{{√]|\\(?!(?:approx|left|displaystyle|{_FREE})(?![a-z]))[A-Za-z]+\s*[({{]?)\s*$")
_LEFT = re.compile(r"(?:\\[A-Za-z]+\s*|\\?[^\sA-Za-z,;:\\]|(?<![A-Za-z])[A-Za-z](?![A-Za-z]))*$")
_RIGHT = re.compile(r"(?:\\[A-Za-z]+|[^A-Za-z.,;:\n]|(?:pi|sqrt)\b|[A-Za-z](?![A-Za-z]))*")
_BOUND_AFTER = re.compile(
    rf"\s*(?:\\(?!(?:{_FREE})(?![a-z]))[A-Za-z]|\^(?!\s*\{{?\s*\\circ)|[√πx]|pi\b)|[abcinkpqrtyz]\b"
)


def extract_answer(text: str | None) -> str | None:
    """The answer that `text` gives, as it is written there, or None if it gives none."""
    if not text or not text.strip():
        return None
    hashes = _HASHES.findall(text)
    found = _last_box(text) or _stated(text, _FINAL) or (hashes[-1].strip() if hashes else None)
    found = found or _stated(text, _ANSWER) or _option(text) or _bare(text)
    if found:
        return found
    remark = _stated(text, _ANSWER, remarks=True)
    return remark if remark and remark.startswith("not ") else _last_number(text) or remark


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


def _stated(text: str, phrase: re.Pattern[str], remarks: bool = False) -> str | None:
    """What follows the last `phrase` with an answer after it, or, with `remarks`, the last one with anything."""
    ends = deque((match.end() for match in phrase.finditer(text)), maxlen=PHRASES)
    for end in reversed(ends):
        rest = text[end : end + 4000].lstrip(" \t\r\n:*").removeprefix("\\\\")
        found = _formula(rest) or _sentence(rest)
        is_remark = _JUDGED.match(rest) or (_REMARK.match(found) and not re.search(r"(?<!not )[0-9\\$]", found))
        if found and (remarks or not is_remark):
            return found
    return None


def _formula(rest: str) -> str:
    """The formula that `rest` opens with, or an empty text."""
    for opening, closing in _MATHS.items():
        if rest.startswith(opening) and closing in rest[len(opening) :]:
            content = rest[len(opening) :].split(closing, 1)[0].strip()
            if "\n\n" not in content and not (opening == "$" and " " in content and _WORD.search(content)):
                return content
    return ""


def _sentence(rest: str) -> str:
    """The sentence that `rest` opens with, up to a clause after its first number; of another long one a number."""
    line = re.split(r"\n|\.\s|\.$|I hope", rest, maxsplit=1)[0].strip(" *\t\r")
    is_long = len(_WORD.findall(line)) > 4
    clause = _CLAUSE.search(line)
    if _FIRST_NUMBER.match(line) and (clause or not _LINK.search(line)):
        return line if clause is None or clause[0] in ("and", "or", "to") else line[: clause.start()].strip(" ,;(")
    return (_last_number(line) or line) if is_long else _last_part(line)


def _option(text: str) -> str | None:
    """The letter of the last "option is (B)" or "choose choice B", if no number follows it."""
    last = deque(_OPTION.finditer(text), maxlen=1)
    return last[0][1] if last and not re.search("[0-9]", text[last[0].end() :]) else None


def _bare(text: str) -> str | None:
    """The whole text when it is one short line with at most one word in it."""
    line = text.strip()
    return _last_part(line) if len(line) <= 100 and "\n" not in line and len(_WORD.findall(line)) <= 1 else None


def _last_part(line: str) -> str:
    """What follows the last linking word, as in "6 + 5 equals 11" or "indeed 30", if there is a digit in it."""
    part = _LINK.split(line)[-1].strip(" ,:*")
    return part if any(char.isdigit() for char in part) else line


def _last_number(text: str) -> str | None:
    """The last number, or the formula of which it is only a part, such as $9\\pi$, x^2 and 2\\sqrt{3}."""
    last = deque(_LAST_NUMBER.finditer(text), maxlen=1)
    if not last:
        return None
    found = last[0][0].strip()
    start = last[0].start() + len(found) - len(found.lstrip("-$"))
    end, digits = last[0].end(), text[start : last[0].end()]
    before, after = text[max(0, start - NEAR) : start], text[end : end + NEAR]
    for opening, closing in _MATHS.items():
        _, has_opening, inside = before.rpartition(opening)
        tail, has_closing, _ = after.partition(closing)
        formula = inside + digits + tail
        is_open = has_opening and has_closing and closing not in inside and "\n\n" not in formula
        if is_open and not _WORD.search(re.sub(TEXT, " ", formula)):
            return formula.strip()
    if _BOUND_BEFORE.search(before[-NEAR // 6 :]) or _BOUND_AFTER.match(after):
        left, right = _LEFT.search(before), _RIGHT.match(after)
        return ((left[0] if left else "") + digits + (right[0] if right else "")).strip(".,:;!?* ")
    return found


_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_SYMBOLS = {
    "−": "-", "–": "-", "—": "-", "×": r"\times ", "·": r"\cdot ", "÷": "/", "⁄": "/", "π": r"\pi ", "∞": r"\infty ",
    "θ": r"\theta ", "√": r"\sqrt ", "°": r"^\circ", "∪": r"\cup ", "∩": r"\cap ", "≤": r"\le ", "≥": r"\ge ",
    "≠": r"\ne ", "±": r"\pm ", "∅": r"\emptyset ", "∈": r"\in ", "≈": r"\approx ", "ℝ": r"\mathbb{R}", "\u200b": "",
}  # fmt: skip
_FONT = r"\\(?:text|mbox|textbf|textit|textrm|textsf|texttt|textnormal|math(?:rm|bf|it|sf)|rm|operatorname)"
TEXT = _FONT + r"\s*\{([^{}\\]*)\}"  # as plain words
_DEGREES = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*°")
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
        (rf"{_FONT}\s*\{{([^{{}}\\]*(?:[0-9]|\b{_SCALE})[^{{}}\\]*)\}}", r" \1 "),
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
        (r"(?<![0-9])\.(?=[0-9])", "0."),
    )
]  # fmt: skip


@lru_cache(maxsize=100_000)
def normalize(answer: str) -> str:
    """`answer` without delimiters, spacing commands, fonts, currency, degree signs and end punctuation.

    What is left is LaTeX with single spaces: the input of the string comparison and of the symbolic one. An angle in
    degrees becomes radians in its sine, cosine and the like, and is a plain number elsewhere.
    """
    text = re.sub(r"(?<=[0-9])(?=[¼½¾⅓⅔⅛])", " ", answer)
    text = re.sub("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺]+", lambda match: "^{" + match[0].translate(_SUPERSCRIPTS) + "}", text)
    text = unicodedata.normalize("NFKC", text)
    text = "".join(_SYMBOLS.get(char, str(unicodedata.decimal(char, char))) for char in text)
    if r"\begin" not in text:
        text = re.sub(r"\\\\(?=[a-zA-Z])", r"\\", text)  # commands whose backslash was escaped once more
    for pattern, replacement in _CLEAN:
        text = pattern.sub(replacement, text)
    text = _ANGLE.sub(lambda match: _DEGREES.sub(r"\\frac{\1 \\pi}{180}", match[0]), text).replace("°", " ")
    return " ".join(text.split()).strip("* ").rstrip(".,;:* ")


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
