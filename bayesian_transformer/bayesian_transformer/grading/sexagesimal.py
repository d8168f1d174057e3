"""Times of day and angles in degrees, minutes and seconds: what a colon or a prime means in an answer.

12:00 is a time and no quotient, which would have no value. 3:4 stays a ratio.
"""

import re

# After normal_form has made every way to write a degree sign the same.
_ANGLE = re.compile(
    r"(?<![0-9.])([0-9]{1,4})\s*°\s*([0-5]?[0-9])\s*(?:'|′|\^\s*(?:\\prime|\{\s*\\prime\s*\}))"
    r"(?:\s*([0-5]?[0-9])\s*(?:''|′′|″|\"|\^\s*\{\s*\\prime\s*\\prime\s*\}))?(?![0-9'′\"])"
)
_HALF = r"(?P<half>[ap]\s?\.?\s?m\b\.?|noon|midnight)"
_TIME = re.compile(
    rf"(?i)(?P<hour>[0-9]{{1,2}})(?:\s*:\s*(?P<minute>[0-5][0-9])(?:\s*:\s*(?P<second>[0-5][0-9]))?"
    rf"(?:\s*(?:{_HALF}|o'?clock|hours|hrs?))?|\s*{_HALF.replace('half', 'half1')})\.?"
)
_RATIO = re.compile(r"[0-9]+\s*:\s*[1-9][0-9]*")
_WORDS = {"noon": (12, 0, 0, "told"), "midnight": (0, 0, 0, "told")}


def with_decimal_angles(text: str) -> str:
    """`text` with 22° 30' as 22 30/60 degrees, an exact fraction; minutes and seconds stop at 59."""
    return _ANGLE.sub(_as_fraction, text)


def _as_fraction(match: re.Match[str]) -> str:
    degrees, minutes, seconds = (int(part or 0) for part in match.groups())
    return rf"\frac{{{3600 * degrees + 60 * minutes + seconds}}}{{3600}}°"


def same_time(answer: str, gold: str) -> bool | None:
    """Whether two plain texts are the same time of day; None if `gold` is not one, or could be a ratio.

    The half of the day counts where both tell it: 3:30 is 3:30 pm, 3:30 am is not, and 15:30 is 3:30 pm only.
    """
    expected, given = _time(gold), _time(answer)
    if expected is None or given is None:
        # 3:30 could be a ratio, which the other answer writes as 1/9. 12:00, 3:05 and 3:30 pm could not.
        is_time = expected is not None and not _RATIO.fullmatch(gold)
        if is_time and ":" not in gold and re.fullmatch("[0-9]{1,2}", answer):
            return expected is not None and int(answer) % 12 == expected[0] % 12  # 8 for 8 am
        is_ratio_a_time = ":" in gold and re.fullmatch(r"[0-9]+\s*:\s*0[0-9]", answer)
        return False if is_time or is_ratio_a_time else None
    if expected[1:3] != given[1:3]:
        return False
    kinds = {expected[3], given[3]}
    if "told" in kinds and "" in kinds:
        return expected[0] % 12 == given[0] % 12
    return expected[0] == given[0] and kinds != {"", "of 24"}


def _time(text: str) -> tuple[int, int, int, str] | None:
    """Hour, minute, second, and how the hour is meant: with its half of the day told, of 24, or not known."""
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    match = _TIME.fullmatch(text)
    if match is None or int(match["hour"]) > 24:
        return None
    hour, minute, second = (int(match[name] or 0) for name in ("hour", "minute", "second"))
    half = (match["half"] or match["half1"] or "").lower()
    if half and hour <= 12:
        return hour % 12 + 12 * (half[0] == "p" or half == "noon"), minute, second, "told"
    return hour % 24, minute, second, "" if 0 < hour <= 12 else "of 24"
