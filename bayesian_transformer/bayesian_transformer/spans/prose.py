"""The parts of a response that a reader sees: the answer, steps, sentences, and whatever a pattern finds."""

import re
from collections.abc import Callable, Iterator

from .text_span import Span
from .thinking import final_parts, thinking_spans

LONGEST_FORMULA = 1000  # characters in which a formula or a piece of code must end to hold a sentence together
LONGEST_SEARCHED = 1_000_000  # characters of a text that a caller's pattern is applied to

_BOX_BEFORE = re.compile(r"\\(?:boxed|fbox)\s{0,9}(\{?)\s{0,9}\Z")
_BOX_AFTER = re.compile(r"\s{0,9}\}")
_BLANK_LINES = re.compile(r"\n[^\S\n]*(?:\n[^\S\n]*)+")
_MARK = re.compile(r"""\n|\$\$?|\\[(\[]|`+|[.!?]++["'”’»)\]*_]*+|[。！？]++[”’」』）]*+""")
_CLOSING = {"$": "$", "$$": "$$", r"\(": r"\)", r"\[": r"\]"}
_ABBREVIATION = re.compile(
    r"(?i:(?<![^\W_])(?:e\.g|i\.e|cf|vs|mr|mrs|ms|dr|prof|st|fig|figs|eq|eqs|no|nos|sec|ch|pp|vol|approx|resp|viz|al))\.\Z"
)
_WORD_AHEAD = re.compile(r"[^\S\n]*+(\S)")
_NUMBERED = re.compile(r"(?:\A|\n)[^\S\n]*[(*#]*(?:[0-9]{1,3}|[A-Za-z])\.\Z")  # "1." and "b." at the start of a line


def answer_spans(text: str) -> list[Span]:
    """Where the answer stands that `bayesian_transformer.grading.extract` finds: one span, or none.

    It is looked for behind the thinking: its last place inside a box, else the last one that is not a part of a longer
    word or number. An answer that is not in the text as it was extracted has no span.
    """
    from ..grading import extract  # only where asked for

    blocks = thinking_spans(text)
    start = blocks[-1].end if blocks else 0
    final = text[start:]
    answer = extract(final)
    if not answer:
        return []
    at = _last_place(final, answer)
    return [] if at < 0 else [Span("answer", start + at, start + at + len(answer))]


def _last_place(text: str, answer: str) -> int:
    """Where the answer begins; -1 if it is not in the text."""
    whole = -1
    at = text.rfind(answer)
    last = at
    while at >= 0:
        end = at + len(answer)
        box = _BOX_BEFORE.search(text, max(0, at - 30), at)
        if box and (not box[1] or _BOX_AFTER.match(text, end)):
            return at
        if whole < 0 and _stands_alone(text, at, end):
            whole = at
        at = text.rfind(answer, 0, end - 1)
    return last if whole < 0 else whole


def _stands_alone(text: str, start: int, end: int) -> bool:
    """Whether no letter, digit or decimal point joins the characters to what is next to them."""
    before, after = text[max(0, start - 1) : start], text[end : end + 2]
    inner = text[start].isalnum() and (before.isalnum() or before == ".")
    outer = text[end - 1].isalnum() and (after[:1].isalnum() or (after[:1] == "." and after[1:].isdigit()))
    return not inner and not outer


def step_spans(text: str) -> list[Span]:
    """The paragraphs of a response, as blank lines divide them; white space around them and thinking are left out."""
    return _numbered("step", text, _paragraphs)


def sentence_spans(text: str) -> list[Span]:
    """The sentences of a response; thinking is left out. The rules are simple and for languages with full stops.

    A sentence ends at a line break, and at ".", "!" or "?" (with quotes and brackets that close there) if white space
    follows and the next word does not begin with a small letter; also at "。", "！" and "？". It does not end

    - inside a number ("3.14"), as no white space follows;
    - after a common abbreviation ("e.g.", "Fig.", "Dr."), and after the number of a list ("1." at the start of a line);
    - inside a formula ($...$, $$...$$, \\(...\\), \\[...\\]) or code (`...`), line breaks included, that closes within
      LONGEST_FORMULA characters. A "$" opens one only if no white space follows, and if the next "$" closes it: no
      white space before that one and no digit behind it. So prices open none.
    """
    return _numbered("sentence", text, _sentences)


def regex_spans(text: str, pattern: str | re.Pattern[str], name: str = "match", group: int | str = 0) -> list[Span]:
    """What a regular expression finds, thinking included: `name 1`, `name 2`, ...; empty matches are left out.

    The pattern is the caller's own. It must never come from a request: Python's `re` can take exponential time on a
    pattern made for it. ValueError for a text of more than LONGEST_SEARCHED characters.
    """
    if len(text) > LONGEST_SEARCHED:
        raise ValueError(f"the text has {len(text)} characters, more than the {LONGEST_SEARCHED} that are searched")
    places = [match.span(group) for match in re.finditer(pattern, text)]
    places = [(start, end) for start, end in places if start < end]  # a group that took no part is at -1
    return [Span(f"{name} {number}", start, end) for number, (start, end) in enumerate(places, start=1)]


def _numbered(name: str, text: str, divide: Callable[[str, int, int], Iterator[tuple[int, int]]]) -> list[Span]:
    spans: list[Span] = []
    for first, last in final_parts(text):
        for start, end in divide(text, first, last):
            inside = text[start:end]
            bare = inside.strip()
            if bare:
                begin = start + len(inside) - len(inside.lstrip())
                spans.append(Span(f"{name} {len(spans) + 1}", begin, begin + len(bare)))
    return spans


def _paragraphs(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    for blank in _BLANK_LINES.finditer(text, start, end):
        yield start, blank.start()
        start = blank.end()
    yield start, end


def _sentences(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    at = start
    while mark := _MARK.search(text, at, end):
        at = mark.end()
        sign = mark[0]
        if sign[0] in "$\\`":
            at = _behind(text, mark, end)
        elif sign == "\n" or sign[0] in "。！？" or _ends_sentence(text, start, at, end, sign):
            yield start, at
            start = at
    yield start, end


def _behind(text: str, opening: re.Match[str], end: int) -> int:
    """Where the formula or code that opens here ends; the end of the mark itself if it opens none."""
    sign, at = opening[0], opening.end()
    limit = min(end, at + LONGEST_FORMULA)
    closing = text.find(_CLOSING.get(sign, sign), at, limit)
    if closing < 0:
        return at
    is_price = text[at].isspace() or text[closing - 1].isspace() or text[closing + 1 : closing + 2].isdigit()
    return at if sign == "$" and is_price else closing + len(sign)


def _ends_sentence(text: str, start: int, at: int, end: int, sign: str) -> bool:
    """Whether the full stop, or what else stands before `at`, ends the sentence from `start` on."""
    if at == end:
        return True
    if not text[at].isspace():
        return False
    following = _WORD_AHEAD.match(text, at, min(end, at + 100))
    if following and following[1].islower():
        return False
    before = text[max(start, at - 20) : at]
    numbered = _NUMBERED.search(before) if at - start <= 20 else None
    return sign != "." or not (_ABBREVIATION.search(before) or numbered)
