r"""The last box of a text, \boxed{...} or \fbox{...}, or the boxes that together are a list, in one pass.

A \boxed that is only spoken of ("marked with \boxed as requested") is not a box. Without braces TeX boxes one token: a
number or a letter counts if nothing but punctuation follows it.
"""

import re
from itertools import pairwise

_TOKEN = re.compile(
    r"\\{1,2}(?:boxed|fbox)\s*(?:(\{)|([0-9]+|[a-zA-Z])(?![0-9A-Za-z])(?=[\s$*]{0,9}(?:$|[.,;:!?)\]\\]|\n)))|\\.|[{}]",
    re.DOTALL,
)
_BETWEEN = re.compile(r"\\q?quad(?![a-z])|\\(?:text|mbox|mathrm)(?=\s?\{)|\\[,;:!()\[\] ]|[{}$~\s]")
_JOINING = frozenset((",", ";", "&", "and", "or", ",and", ",or", ";and", "，", "、", "；", "和", "或"))
_APART = 40  # characters between two boxes of a list at most


def last_box(text: str) -> str | None:
    """Content of the last balanced box that is not empty, or of the boxes of a list, joined by commas.

    Of nested boxes the outermost. Boxes are a list where nothing but a comma, "and" or "or" stands between them.
    """
    found = boxes(text) if "boxed" in text or "fbox" in text else []
    if not found:
        return None
    listed = [found[-1]]
    for after, before in pairwise(reversed(found)):
        gap = text[before[1] : after[0]] if after[0] - before[1] <= _APART else "far"
        if _BETWEEN.sub("", gap) not in _JOINING:
            break
        listed.append(before)
    return ", ".join(dict.fromkeys(content for _, _, content in reversed(listed)))


def boxes(text: str) -> list[tuple[int, int, str]]:
    """Start, end and content of the boxes that are not empty, without those inside others."""
    stack: list[tuple[int, int] | None] = []  # where a box and its content begin, None for another brace
    found: list[tuple[int, int, str]] = []
    for token in _TOKEN.finditer(text):
        if token[1]:
            stack.append((token.start(), token.end()))
        elif token[2]:  # \boxed5
            found.append((token.start(), token.end(), token[2]))
        elif token[0] == "{":
            stack.append(None)
        elif token[0] == "}" and stack:
            opened = stack.pop()
            if opened is not None and (content := text[opened[1] : token.start()].strip()):
                while found and found[-1][0] > opened[0]:
                    found.pop()
                found.append((opened[0], token.end(), content))
    return found
