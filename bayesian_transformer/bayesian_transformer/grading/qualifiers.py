r"""What stands behind an answer and says for which names it holds: cx \text{ for any real constant } c.

A qualifier is dropped where the other answer has none, or one for the same kind of numbers. One that restricts the
answer (positive, odd, c > 0) is not of this kind and stays.
"""

import re

from .normal_form import TEXT, normalize
from .words import plain

_START = re.compile(
    r",?\s*(?:\\(?:text|mbox|textrm|mathrm)\s*\{)?\s*,?\s*\(?\b(?:for|where|with)\b(?=\s)|,\s*(?=\\?[A-Za-z]\w{0,6}\s*\\in\b)"
)
_NAME = r"\\?[A-Za-z](?:_\{?\w\}?)?"
_NAMES = rf"{_NAME}(?:\s*(?:,|and)\s*{_NAME})*"
_KIND = r"(?:(?:real|integer|natural|rational|complex|constant|arbitrary|number|value|parameter)s?\s*)+"
_SET = r"\\in\s*\\mathbb\s*\{?\s*[RZNQC]\s*\}?"
_TAME = re.compile(
    rf",?\s*(?:(?:for|with)\s+(?:any|all|every|each|some|an?)\s+(?:{_KIND})?(?:of\s+)?(?:{_NAMES})?\s*(?:{_SET})?"
    rf"|where\s+{_NAMES}\s+(?:is|are|denotes?)\s+(?:any|an?|some)?\s*{_KIND}"
    rf"|(?:(?:for|where|with)\s+)?{_NAME}\s*{_SET})\s*"
)
_DOMAIN = re.compile(r"real|integer|natural|rational|complex|\\mathbb\s*\{?\s*([RZNQC])")
_OF_LETTER = {"R": "real", "Z": "integer", "N": "natural", "Q": "rational", "C": "complex"}


def without_qualifiers(answer: str, gold: str) -> tuple[str, str]:
    """Both answers as `plain` makes them, without the qualifiers behind them, if these do not contradict each other."""
    (given, domain), (expected, wanted) = _split(normalize(answer)), _split(normalize(gold))
    if domain and wanted and domain != wanted:
        return plain(answer), plain(gold)
    return plain(answer if domain is None else given), plain(gold if wanted is None else expected)


def _split(text: str) -> tuple[str, str | None]:
    """The answer and the kind of numbers that it holds for: "" if that is not said, None without a qualifier."""
    start = _START.search(text) if "," in text or "for" in text or "where" in text else None
    if start is None or not text[: start.start()].strip():
        return text, None
    tail = re.sub(TEXT, r" \1 ", text[start.start() :])
    if "}" in tail and r"\mathbb" not in tail:
        return text, None
    if not _TAME.fullmatch(" ".join(tail.split())):
        return text, None
    found = _DOMAIN.search(tail)
    domain = "" if found is None else _OF_LETTER.get(found[1] or "", found[0])
    return text[: start.start()].rstrip(" ,"), domain
