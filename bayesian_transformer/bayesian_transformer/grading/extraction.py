"""The answer in a response, as it is written there, found by bounded text rules.

Every pattern runs in time linear in the text.

Order of extraction: last non-empty balanced \\boxed{...} or \\fbox{...}; "final answer is ..."; "#### ...";
"answer is ..." / "answer: ..."; "option is (B)"; the text itself when it is nothing but an answer; the last number, or
the formula that it is a part of. A phrase that no answer follows ("the answer is correct") does not count.
"""

import re
from collections import deque

from .normal_form import DECIMAL, SCALE, TEXT, VULGAR

PHRASES = 20  # of the last "answer is" that are tried
NEAR = 300  # characters around the last number that can belong to its formula

_BOX = re.compile(r"\\{1,2}(?:boxed|fbox)\s*(?:(\{)|(?=[0-9a-zA-Z])([0-9]+|[a-zA-Z]))|\\.|[{}]", re.DOTALL)
_FINAL = re.compile(r"(?i)\bfinal answer\b[\s*]{0,9}(?:is\b|:|=)")
_ANSWER = re.compile(r"(?i)\banswer\b[\s*]{0,9}(?:is\b|:|=)")
_OPTION = re.compile(
    r"\b(?i:(?:choose|pick|select|is)\s+(?:option|choice)|(?:option|choice)(?:\s+is\b|:)|(?:option|choice)(?=\s*\())"
    r"[\s*]{0,4}(\([A-Ja-j]\)|[A-J])(?!\w)"
)
_HASHES = re.compile(r"####[ \t]*(\S[^\n]*)")
_POWER_OF_TEN = r"\s?(?:[×xX*·]|\\times|\\cdot)\s?10(?:\s?\^\s?(?:\{\s?[-−]?[0-9]+\s?\}|[-−]?[0-9]+)|[⁻⁰¹²³⁴-⁹]+)"
_NUMBER_IN_TEXT = (
    rf"(?:(?<![)\]}}])-)?[$€£¥]?(?:(?:[0-9]{{1,3}}\s?)?(?:\\[dtc]?frac\s*\{{-?[0-9]+\}}\s*\{{[0-9]+\}}|[{VULGAR}])"
    rf"|[0-9]{{1,3}}\s[0-9]{{1,2}}\s?/\s?[0-9]{{1,2}}(?![0-9])|(?:{DECIMAL})(?:\s?/\s?[0-9]+|{_POWER_OF_TEN})?)"
    rf"(?:\s?\\?%|\s{SCALE})?"
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
    return part if any(char.isnumeric() for char in part) else line


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
