"""The answer in a response, as it is written there, found by bounded text rules.

Every pattern runs in time linear in the text.

What follows an answer and begins with a new question was invented and is cut off first (run_on.py). Then the order is:
a choice that ends the text ("**Answer: D**"), if the last box holds no choice and the question is one of choices; the
last non-empty balanced \\boxed{...} or \\fbox{...} (boxes.py); "final answer is ..."; "#### ..."; "answer is ..." /
"answer: ..."; "option is (B)"; the text itself when it is nothing but an answer; the last number, or the formula that
it is a part of. A phrase that no answer follows ("the answer is correct") does not count.
"""

import re
from collections import deque

from . import chinese
from .boxes import last_box
from .normal_form import DECIMAL, SCALE, TEXT, VULGAR
from .run_on import first_reply
from .words import choice

PHRASES = 20  # of the last "answer is" that are tried
NEAR = 300  # characters around the last number that can belong to its formula

_FINAL = re.compile(rf"(?i)\bfinal answer\b[\s*]{{0,9}}(?:is\b|:|=)|{chinese.FINAL}")
_ANSWER = re.compile(rf"(?i)\banswer\b[\s*]{{0,9}}(?:is\b|:|=)|{chinese.ANSWER}")
_END = 80  # characters at the end of a text in which a final choice stands
_FINAL_CHOICE = re.compile(
    r"(?:\b(?i:answer|choice|option)[\s*]{0,4}(?:is\b|:)[\s*$]{0,4}(?:\\(?:text|textbf|mathrm)\{)?\(?([A-J])"
    rf"|{chinese.CHOICE})[)}}\s*.。$]{{0,9}}$"
)
_OPTION = re.compile(
    r"\b(?i:(?:choose|pick|select|is)\s+(?:option|choice)|(?:option|choice)(?:\s+is\b|:)|(?:option|choice)(?=\s*\())"
    rf"[\s*]{{0,4}}(\([A-Ja-j]\)|[A-J])(?!\w)|{chinese.CHOICE}"
)
_HASHES = re.compile(r"####[ \t]*(\S[^\n]*)")
_POWER_OF_TEN = r"\s?(?:[×xX*·]|\\times|\\cdot)\s?10(?:\s?\^\s?(?:\{\s?[-−]?[0-9]+\s?\}|[-−]?[0-9]+)|[⁻⁰¹²³⁴-⁹]+)"
_NUMBER_IN_TEXT = (
    rf"(?:(?<![)\]}}])-)?[$€£¥]?(?:(?:[0-9]{{1,3}}\s?)?(?:\\[dtc]?frac\s*\{{-?[0-9]+\}}\s*\{{[0-9]+\}}|[{VULGAR}])"
    rf"|[0-9]{{1,3}}\s[0-9]{{1,2}}\s?/\s?[0-9]{{1,2}}(?![0-9])|(?:{DECIMAL})(?:\s?/\s?[0-9]+|{_POWER_OF_TEN})?)"
    rf"(?:\s?\\?%|\s{SCALE})?"
)
_LAST_NUMBER = re.compile(rf"(?<![^\W{chinese.CHARACTER}])(?<!\.){_NUMBER_IN_TEXT}")
_FIRST_NUMBER = re.compile(
    rf"(?:{_NUMBER_IN_TEXT}|\(?[A-H]\)?)(?=(?:\s|[,;(]\s*)(?!(?:and|or|to|equals?|is|are|plus|minus|times|divided)\b)[a-z]{{2,}})"
)
_SENTENCE_END = re.compile(rf"\n|\.\s|\.$|I hope|{chinese.SENTENCE_END}")
_CLAUSE = re.compile(r"\b(?:because|since|as|for|when|if|which|where|while|not|after|and|or|to)\b")
_MATHS = {"$$": "$$", "$": "$", r"\(": r"\)", r"\[": r"\]"}
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
_LINK = re.compile(
    r"(?i)(?<![\\a-z])(?:equals?|is|are|so|gives|makes|that|correct|indeed|already|actually|simply|just|therefore|thus)\b"
)
_JUDGED = re.compile(r"(?i)(?:correct|right|wrong|incorrect|reasonable|valid|sensible|plausible)\b|" + chinese.JUDGED)
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


def extract_answer(text: str | None, of_choices: bool = True) -> str | None:
    """The answer that `text` gives, as it is written there, or None if it gives none.

    Where the gold answer is known and not a choice, `of_choices` is false: then a formula in a box beats a choice.
    """
    if not text or not text.strip():
        return None
    text = first_reply(text)
    hashes = _HASHES.findall(text)
    found = (of_choices and _final_choice(text)) or last_box(text) or _stated(text, _FINAL)
    found = found or (hashes[-1].strip() if hashes else None) or _stated(text, _ANSWER) or _option(text) or _bare(text)
    if found:
        return found
    remark = _stated(text, _ANSWER, remarks=True)
    if (remark and remark.startswith("not ")) or chinese.DENIED.search(text):
        return remark
    return _last_number(text) or remark


def _final_choice(text: str) -> str | None:
    """The letter of "Answer: D" at the very end, after a box that holds something else than a choice."""
    match = _FINAL_CHOICE.search(text.rstrip()[-_END:])
    if match is None:
        return None
    box = last_box(text)
    is_box_a_choice = (box is None and match[2] is None) or (box is not None and choice(box) is not None)
    return None if is_box_a_choice else match[1] or match[2]


def _stated(text: str, phrase: re.Pattern[str], remarks: bool = False) -> str | None:
    """What follows the last `phrase` with an answer after it, or, with `remarks`, the last one with anything."""
    ends = deque((match.end() for match in phrase.finditer(text)), maxlen=PHRASES)
    for end in reversed(ends):
        rest = text[end : end + 4000].lstrip(" \t\r\n:*：").removeprefix("\\\\")
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
    line = _SENTENCE_END.split(rest, maxsplit=1)[0].strip(" *\t\r")
    is_long = len(_WORD.findall(line)) > 4
    clause = _CLAUSE.search(line)
    if _FIRST_NUMBER.match(line) and (clause or not _LINK.search(line)):
        return line if clause is None or clause[0] in ("and", "or", "to") else line[: clause.start()].strip(" ,;(")
    return (_last_number(line) or line) if is_long else _last_part(line)


def _option(text: str) -> str | None:
    """The letter of the last "option is (B)" or "choose choice B", if no number follows it."""
    last = deque(_OPTION.finditer(text), maxlen=1)
    letter = (last[0][1] or last[0][2]) if last else None
    return letter if last and not re.search("[0-9]", text[last[0].end() :]) else None


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
