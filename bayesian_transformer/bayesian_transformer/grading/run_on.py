r"""Where a response ends whose model went on and invented another question, with an answer of its own.

"#### 18 Question: ... #### 200" answers 18. A text is cut where a complete answer stands before the heading of a new
question. It is not cut where a chain puts questions to itself ("Question 1: ... Question 2: ..."), restates the
question before it answers, or doubts its answer ("Question: is this right?").
"""

import re

from .boxes import boxes

HEADINGS = 50  # of a text that are looked at
NEAR = 80  # characters between an answer and the heading; more may follow ####, which ends a solution

_HEADING = re.compile(
    r"(?<![^\s*#>_|.}$)\]])(?:Question|Q|Problem|Human|User|Instruction|问题|题目)[ \t]{0,3}([0-9]{0,3})[ \t]{0,3}"
    r"\*{0,2}[:：](?!\*{0,2}\s{0,9}(?:is|are|was|did|does|do|can|could|but|wait|why|should|have|has)\s)",
    re.IGNORECASE,
)
_HASHES = re.compile(r"####[ \t]{0,9}[-−$€£¥]{0,3}[0-9](?![0-9]*[.)][ \t])")
_STATED = re.compile(r"(?i)(?:\banswer\b[\s*]{0,9}(?:is\b|:|=)|答案\s{0,3}(?:是|为|[:：]))[^\n]{0,60}")
_BLANK_LINE = re.compile(r"\n[ \t]*\n[#>*_\s-]*$")


def first_reply(text: str) -> str:
    """`text` up to a new question after a complete answer."""
    seen: list[bool] = []  # of the headings before, whether they have a number
    for count, heading in enumerate(_HEADING.finditer(text)):
        if count >= HEADINGS:
            break
        if _ends_a_reply(text, heading.start(), bool(heading[1]), seen):
            return text[: heading.start()]
        seen.append(bool(heading[1]))
    return text


def _ends_a_reply(text: str, end: int, is_numbered: bool, seen: list[bool]) -> bool:
    """Whether the text before a heading at `end` closes with an answer, and the heading is none of a chain's own."""
    near = text[max(0, end - 5 * NEAR) : end]
    is_new_line = near.rstrip(" \t#>*_-")[-1:] in ("\n", "")
    hashes = list(_HASHES.finditer(near))
    if hashes and (is_new_line or "\n" not in near[hashes[-1].start() :]):
        return not (is_numbered and any(seen))
    if is_numbered or seen or not _BLANK_LINE.search(near):
        return False
    near = near[-4 * NEAR :]
    ends = [*(end for _, end, _ in boxes(near)), *(stated.end() for stated in _STATED.finditer(near))]
    return bool(ends) and len(near) - max(ends) <= NEAR
