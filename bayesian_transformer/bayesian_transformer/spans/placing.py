"""From characters to tokens: which tokens a part of the text has, and what their values come to."""

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from .json_values import json_spans
from .offsets import Offsets, token_offsets
from .text_span import Span

Values = Sequence[float | None] | NDArray[np.floating]  # one per token


class Summary(TypedDict):
    """Of one quantity over the tokens of a span; NaN if no value is known."""

    min: float
    mean: float
    max: float


@dataclass(frozen=True)
class FieldScore:
    """What the tokens of one JSON value say: how many they are, and each quantity over them."""

    span: Span
    quantities: dict[str, Summary]

    @property
    def tokens(self) -> int:
        """How many tokens the value has."""
        return len(self.span.tokens)


def place(spans: Iterable[Span], offsets: Sequence[Offsets]) -> list[Span]:
    """The spans with their tokens, by the offsets of all tokens of the text.

    A token belongs to a span if they share at least one character; so a token that straddles the border of a value
    counts for the value. A token without characters belongs to a span if it lies between two that do.
    """
    known = [(start, end, index) for index, (start, end) in enumerate(offsets) if end > start]
    starts, ends = [start for start, _, _ in known], [end for _, end, _ in known]
    placed = []
    for span in spans:
        first, last = bisect_right(ends, span.start), bisect_left(starts, span.end) - 1
        is_there = span.start < span.end and first <= last
        placed.append(replace(span, tokens=range(known[first][2], known[last][2] + 1) if is_there else range(0)))
    return placed


def span_scores(span: Span, arrays: Mapping[str, Values]) -> dict[str, Summary]:
    """Minimum, mean and maximum of each quantity over the tokens of a placed span; NaN and None values are left out."""
    found: dict[str, Summary] = {}
    for name, array in arrays.items():
        values = np.asarray(array, dtype=np.float64)[span.tokens.start : span.tokens.stop]
        known = values[~np.isnan(values)]
        if known.size:
            found[name] = Summary(min=float(known.min()), mean=float(known.mean()), max=float(known.max()))
        else:
            found[name] = Summary(min=np.nan, mean=np.nan, max=np.nan)
    return found


def field_scores(
    text: str, tokens: Sequence[str], arrays: Mapping[str, Values], special: Collection[str] = ()
) -> dict[str, FieldScore]:
    """What the tokens of each value of a JSON answer say, by the path of the value.

    Args:
        text: the response, in which `json_spans` finds the values.
        tokens, special: as for `token_offsets`.
        arrays: by the name of a quantity one value per token, lists or arrays [tokens]; None and NaN are left out.

    ValueError if the tokens do not spell the text, or an array has another length than the response.
    """
    offsets = token_offsets(tokens, text, special)
    if offsets is None:
        raise ValueError("the tokens do not spell the text, so the values in it cannot be placed")
    for name, array in arrays.items():
        if len(array) != len(tokens):
            raise ValueError(f"{name} must have one value per token ({len(tokens)}); it has {len(array)}")
    return {span.name: FieldScore(span, span_scores(span, arrays)) for span in place(json_spans(text), offsets)}
