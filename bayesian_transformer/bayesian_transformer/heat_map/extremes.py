"""Which responses a reader should see first: the most and the least certain ones by a score of the whole response."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .. import aggregations
from ..scores import SCORE_BY_NAME, oriented
from ..spans import parts_of, token_offsets
from .page import Response, value_text

DEFAULT_SCORE = "eu_mean"  # a sum would put the longest responses at one end


def extremes(responses: Sequence[Response], most: int, least: int, by: str) -> tuple[list[Response], str]:
    """The `most` and the `least` certain of the responses, from most to least certain, and a note on the choice.

    Each shows its place and its score `by`, a name of scores.py. Equal scores keep their order. A response without the
    quantity, or with a value that is not finite, has no score and is left out; ValueError if all are.
    """
    score = SCORE_BY_NAME[by]
    scored = [(value, response) for response in responses if math.isfinite(value := _value(response, by))]
    if responses and not scored:
        raise ValueError(f"no response has finite values of {score.label}, so none can be chosen --by {by}")
    scored.sort(key=lambda pair: -pair[0])
    count = len(scored)
    places = [place for place in range(count) if place < most or place >= count - least]
    chosen = []
    for place in places:
        value, response = scored[place]
        details = {"certainty": f"{place + 1} of {count}, 1 is the most certain"}
        details[score.label] = value_text(score.sign * value) if score.quantity else str(len(response.tokens))
        chosen.append(replace(response, details={**details, **response.details}))
    if len(places) == count:
        note = f"All {count} responses, from the most to the least certain by {score.label}."
    else:
        note = f"The {most} most and the {least} least certain of {count} responses, by {score.label}."
    if count < len(responses):
        note += f" {len(responses) - count} without finite values of it are left out."
    return chosen, note


def _value(response: Response, by: str) -> float:
    """The score, larger is more confident; NaN where a value that it needs is not there."""
    score, tokens = SCORE_BY_NAME[by], len(response.tokens)
    arrays = {name: np.array(values, dtype=np.float64) for name, values in response.values.items()}
    if score.quantity is None:
        return float(score.sign * tokens)
    if score.quantity.name not in arrays:
        return math.nan
    text = "".join(response.tokens) if response.text is None else response.text
    parts = parts_of(text, token_offsets(response.tokens, text))
    values = oriented(score.quantity, arrays[score.quantity.name])
    return score.value(values, aggregations.Response(arrays, parts=parts), tokens)
