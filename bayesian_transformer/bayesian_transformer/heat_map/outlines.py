"""The spans of a response on its heat map: outlines in the text, and a list with the least certain ones first.

A page has them only where they are asked for; outlines.css and outlines.js are added to it then.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ..quantities import Quantity
from ..spans import SPAN_KINDS, Span, Summary, place, span_scores, token_offsets

LONGEST_EXCERPT = 60  # characters of a span in the list
_FLOWING = ("step", "sentence", "thinking")  # they follow each other and get a line below; the others get a frame


def find_spans(text: str, tokens: Sequence[str], kinds: Sequence[str]) -> list[Span]:
    """All spans of some `SPAN_KINDS`, with their tokens.

    ValueError if the tokens do not spell the text, or if a kind is not known.
    """
    unknown = [kind for kind in kinds if kind not in SPAN_KINDS]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is not a kind of span; choose from {', '.join(SPAN_KINDS)}")
    offsets = token_offsets(tokens, text)
    if offsets is None:
        raise ValueError("the tokens do not spell the text, so no span in it can be placed")
    return place([span for kind in dict.fromkeys(kinds) for span in SPAN_KINDS[kind](text)], offsets)


def outline(spans: Sequence[Span], count: int) -> tuple[list[list[str]], list[str]]:
    """For each of `count` tokens its style classes, and the mark in front of it: the number of what begins there."""
    classes: list[list[str]] = [[] for _ in range(count)]
    marks = [""] * count
    for span in spans:
        if not span.tokens:
            continue
        name, _, number = span.name.partition(" ")
        style = "flow" if name in _FLOWING else "frame"
        first, last = span.tokens[0], span.tokens[-1]
        for token in span.tokens:
            classes[token].append(style)
        classes[first].append(f"{style}-first")
        classes[last].append(f"{style}-last")
        if style == "flow":
            marks[first] = number
    return [list(dict.fromkeys(names)) for names in classes], marks


@dataclass(frozen=True)
class SpanList:
    """The spans of one response as the page lists them, and what its script needs to list them by another quantity."""

    rows: list[tuple[Span, str]]  # with the text of each, the least certain first by the first quantity
    data: dict[str, object]


def list_spans(
    spans: Sequence[Span],
    text: str,
    values: Mapping[str, Sequence[float | None]],
    quantities: Sequence[Quantity],
    shown: Callable[[float | None], str],
) -> SpanList:
    """The list of one response; `shown` writes a number. A span without a known value comes last."""
    scores = [span_scores(span, values) for span in spans]
    orders = {q.name: _least_certain_first(scores, q) for q in quantities}
    first = orders[quantities[0].name]
    place_of = {index: row for row, index in enumerate(first)}
    numbers = {}
    for q in quantities:
        summaries = [scores[index].get(q.name) for index in first]
        numbers[q.name] = {
            "order": [place_of[index] for index in orders[q.name]],
            "mean": [shown(s and _known(s["mean"])) for s in summaries],
            "worst": [shown(s and _known(s["max" if q.sign < 0 else "min"])) for s in summaries],
        }
    tokens = [[spans[index].tokens.start, spans[index].tokens.stop] for index in first]
    rows = [(spans[index], _excerpt(text[spans[index].start : spans[index].end])) for index in first]
    return SpanList(rows, {"tokens": tokens, "by": numbers})


def _least_certain_first(scores: Sequence[Mapping[str, Summary]], quantity: Quantity) -> list[int]:
    means = [summary["mean"] if (summary := score.get(quantity.name)) else math.nan for score in scores]
    return sorted(range(len(means)), key=lambda i: math.inf if math.isnan(means[i]) else quantity.sign * means[i])


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _excerpt(text: str) -> str:
    line = " ".join(text[: 4 * LONGEST_EXCERPT].split())
    return line if len(line) <= LONGEST_EXCERPT and len(text) <= 4 * LONGEST_EXCERPT else line[:LONGEST_EXCERPT] + "…"
