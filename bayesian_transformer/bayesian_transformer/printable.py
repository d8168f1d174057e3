"""Text of a model or of a data set, as it may be shown on a terminal.

A terminal obeys what it is shown: an escape sequence can move the cursor, rename the window or answer for the user, and
a bidirectional override shows a text in another order than it has. So such characters are shown as their escapes.
"""

import re

# Control characters of both sets but the tab and the line break, what reorders or hides text, half surrogate pairs,
# which no terminal can be sent. Joiners stay, as Persian and emoji need them.
_OBEYED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


def printable(text: str) -> str:
    r"""`text` with everything that a terminal would obey as an escape: \x1b, \u202e. Lines and tabs stay."""
    return _OBEYED.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


def one_line(error: object) -> str:
    """The message of an error as one line for a terminal."""
    return printable(" ".join(str(error).split()))
