"""Scores of a response from its per-token arrays; larger always means more confident.

Each quantity is summed and averaged over the tokens, because a sum also measures how long the response is.
Units are nats, except for `length`. TU, AU, EU, BIR and entropy are uncertainties (BIR, a Jensen gap, is 0 when all
weight samples agree) and are negated; log-probability, self-certainty and confidence are taken as they are.

DeepConf (arXiv 2508.15260) averages the token confidence over sliding windows ("groups"): `dc_low` is the lowest
group, `dc_bottom` the mean of the lowest 10% of the groups (rounded down, at least one). A response shorter than the
window is one group. The paper's 2,048 tokens suit traces of 64,000; the default here keeps that ratio to 1,024 tokens.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from .quantities import FIELDS

Array = NDArray[np.float64]
DEFAULT_WINDOW = 32
BOTTOM_FRACTION = 0.1


@dataclass(frozen=True)
class Score:
    """One score: its name in files, what a person reads, and how it follows from the token arrays."""

    name: str
    label: str
    kind: str  # sum, mean, group or length
    field: str  # one of FIELDS; empty for the token count
    sign: int  # -1 where a larger value means less confident


SCORES = (
    Score("length", "Token count", "length", "", -1),
    Score("tu", "TU", "sum", "total", -1),
    Score("au", "AU", "sum", "aleatoric", -1),
    Score("eu", "EU", "sum", "epistemic", -1),
    Score("bir", "BIR", "sum", "implicit_reward", -1),
    Score("ll_sum", "Log-likelihood", "sum", "logprob", 1),
    Score("pe", "Predictive entropy", "sum", "entropy", -1),
    Score("ce_sum", "Self-certainty", "sum", "self_certainty", 1),
    Score("dc_sum", "DeepConf confidence", "sum", "confidence", 1),
    Score("ntu", "TU", "mean", "total", -1),
    Score("nau", "AU", "mean", "aleatoric", -1),
    Score("neu", "EU", "mean", "epistemic", -1),
    Score("nbir", "BIR", "mean", "implicit_reward", -1),
    Score("ll", "Log-likelihood", "mean", "logprob", 1),
    Score("npe", "Predictive entropy", "mean", "entropy", -1),
    Score("ce", "Self-certainty", "mean", "self_certainty", 1),
    Score("dc", "DeepConf confidence", "mean", "confidence", 1),
    Score("dc_low", "DeepConf lowest group", "group", "confidence", 1),
    Score("dc_bottom", "DeepConf bottom 10% of groups", "group", "confidence", 1),
)
BY_NAME = {score.name: score for score in SCORES}


def response_scores(arrays: Mapping[str, Array], tokens: int, window: int = DEFAULT_WINDOW) -> dict[str, float]:
    """Every score of one response of `tokens` tokens, by name; larger means more confident.

    A value that is not finite makes the scores of its array NaN. Of no tokens the sum is 0, the mean NaN.
    """
    values = {}
    for score in SCORES:
        if score.kind == "length":
            value = float(tokens)
        elif not np.isfinite(arrays[score.field]).all():
            value = np.nan
        else:
            value = _aggregate(score, arrays[score.field], window)
        values[score.name] = score.sign * value
    return values


def group_means(confidence: Array, window: int) -> Array:
    """Mean over each full sliding window of a token array [T] with T > 0: [max(1, T - window + 1)]."""
    return sliding_window_view(confidence, min(window, confidence.size)).mean(axis=-1)


def token_arrays(record: Mapping[str, object], tokens: int) -> dict[str, Array]:
    """The per-token arrays of a stored record, as float64 [tokens]; null becomes NaN.

    ValueError says which array is no list of `tokens` numbers.
    """
    arrays = {}
    for field in FIELDS:
        try:
            array = np.asarray(record[field], dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"'{field}' is not a list of numbers") from error
        if array.shape != (tokens,):
            raise ValueError(f"'{field}' must have one value per token ({tokens}); it has shape {list(array.shape)}")
        arrays[field] = array
    return arrays


def _aggregate(score: Score, array: Array, window: int) -> float:
    if score.kind == "sum":
        return float(array.sum())
    if array.size == 0:
        return np.nan
    if score.kind == "mean":
        return float(array.mean())
    groups = group_means(array, window)
    count = 1 if score.name == "dc_low" else max(1, int(groups.size * BOTTOM_FRACTION))
    return float(np.partition(groups, count - 1)[:count].mean())
