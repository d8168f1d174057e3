"""Scores of a response: a quantity of its tokens and how their values become one number. Larger: more confident.

A name says both: `tu_sum`, `ll_mean`. Each quantity is summed and averaged over the tokens, because a sum also measures
how long the response is; the token count itself is the baseline. Units are nats, except for `length`. Quantities that
measure doubt are negated (`sign` in quantities.py).

To add a score, add an `Aggregation`: detection and scaling compute every entry of `SCORES` and give each a row of the
tables (eval/utils/detection.py and detection_report.py). A score of two quantities at once is not expressed here.

DeepConf (arXiv 2508.15260) averages the token confidence over sliding windows ("groups"): `confidence_lowest_group` is
the lowest group, `confidence_bottom_groups` the mean of the lowest 10% of the groups (rounded down, at least one). A
response shorter than the window is one group. The paper's 2,048 tokens suit traces of 64,000; the default here keeps
that ratio to 1,024 tokens.

Files of the published code and of our scripts have older names for some scores, ALIASES. There `ll` is a mean in one
file and a sum in another. Code uses the names alone; whoever reads or writes such a file takes its names from here.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from .quantities import FIELDS, QUANTITIES, Quantity

Array = NDArray[np.float64]
DEFAULT_WINDOW = 32
BOTTOM_FRACTION = 0.1


@dataclass(frozen=True)
class Aggregation:
    """How the values of a response's tokens become one number."""

    name: str  # the end of the names of its scores
    label: str  # for people, after the symbol of the quantity
    heading: str  # for people, above its scores in a table
    of: Callable[[Array, int], float]  # token values [T] with T > 0, tokens of a window -> number
    of_nothing: float = math.nan  # of a response without tokens
    quantities: tuple[str, ...] = FIELDS  # that it is applied to


@dataclass(frozen=True)
class Aliases:
    """The names of a score in files that have another one for it."""

    detection: str | None = None  # published; detailed_results.csv and summary_statistics.csv, as in auc_ll
    scaling: str | None = None  # published; column `score` of the scaling summary
    record: tuple[str, ...] = ()  # keys that lead to it in the stored record of a sampled response


@dataclass(frozen=True)
class Score:
    """One score of a response."""

    name: str
    quantity: Quantity | None  # None: the token count
    aggregation: Aggregation
    aliases: Aliases

    @property
    def label(self) -> str:
        """What a person reads: "TU, sum"."""
        if self.quantity is None:
            return self.aggregation.label
        symbol = self.quantity.symbol
        return f"{symbol[0].upper()}{symbol[1:]}, {self.aggregation.label}"

    @property
    def sign(self) -> int:
        """-1 where a larger sum or mean means less confident. A longer response counts as less confident."""
        return -1 if self.quantity is None else self.quantity.sign

    @property
    def scaling_name(self) -> str:
        """Its name in the column `score` of the scaling summary: the published one, where there is one."""
        return self.aliases.scaling or self.name

    def value(self, arrays: Mapping[str, Array], tokens: int, window: int = DEFAULT_WINDOW) -> float:
        """The score of a response of `tokens` tokens; NaN if a value of its array is not finite."""
        if self.quantity is None:
            return float(self.sign * tokens)
        array = arrays[self.quantity.name]
        if not np.isfinite(array).all():
            return math.nan
        return self.sign * (self.aggregation.of(array, window) if array.size else self.aggregation.of_nothing)


def group_means(confidence: Array, window: int) -> Array:
    """Mean over each full sliding window of a token array [T] with T > 0: [max(1, T - window + 1)]."""
    return sliding_window_view(confidence, min(window, confidence.size)).mean(axis=-1)


def _lowest_group(array: Array, window: int) -> float:
    return float(group_means(array, window).min())


def _bottom_groups(array: Array, window: int) -> float:
    groups = group_means(array, window)
    count = max(1, int(groups.size * BOTTOM_FRACTION))
    return float(np.partition(groups, count - 1)[:count].mean())


_GROUPS = "Sliding-window groups"
AGGREGATIONS = (
    Aggregation("sum", "sum", "Sums over tokens (mix in response length)", lambda a, _: float(a.sum()), 0.0),
    Aggregation("mean", "mean", "Means over tokens", lambda a, _: float(a.mean())),
    Aggregation("lowest_group", "lowest group", _GROUPS, _lowest_group, quantities=("confidence",)),
    Aggregation("bottom_groups", "bottom groups", _GROUPS, _bottom_groups, quantities=("confidence",)),
)
LENGTH = Aggregation("length", "Token count", "Length baseline", lambda a, _: float(a.size), 0.0)

# By score. The scores of sampled responses are those that have a place in a record, in this order.
ALIASES = {
    "au_mean": Aliases(scaling="nau", record=("uncertainties", "nau")),
    "eu_mean": Aliases(scaling="neu", record=("uncertainties", "neu")),
    "tu_mean": Aliases(scaling="ntu", record=("uncertainties", "ntu")),
    "au_sum": Aliases(detection="au", scaling="au", record=("uncertainties", "au")),
    "eu_sum": Aliases(detection="eu", scaling="eu", record=("uncertainties", "eu")),
    "tu_sum": Aliases(detection="tu", scaling="tu", record=("uncertainties", "tu")),
    "ll_mean": Aliases(detection="ll", scaling="nll", record=("logprobs", "nll")),  # nll is not negated
    "ll_sum": Aliases(scaling="ll", record=("logprobs", "ll")),
    "self_certainty_mean": Aliases(scaling="ce", record=("scores", "ce")),
    "confidence_mean": Aliases(scaling="dc", record=("scores", "dc")),
    "entropy_mean": Aliases(record=("scores", "entropy")),
    "bir_mean": Aliases(record=("scores", "bir")),
    "length": Aliases(record=("token_count",)),
}


def _score(quantity: Quantity | None, aggregation: Aggregation) -> Score:
    name = aggregation.name if quantity is None else f"{quantity.prefix}_{aggregation.name}"
    return Score(name, quantity, aggregation, ALIASES.get(name, Aliases()))


SCORES = (
    _score(None, LENGTH),
    *(_score(quantity, how) for how in AGGREGATIONS for quantity in QUANTITIES if quantity.name in how.quantities),
)
SCORE_BY_NAME = {score.name: score for score in SCORES}
SAMPLED_SCORES = tuple(SCORE_BY_NAME[name] for name, aliases in ALIASES.items() if aliases.record)


def response_scores(arrays: Mapping[str, Array], tokens: int, window: int = DEFAULT_WINDOW) -> dict[str, float]:
    """Every score of one response of `tokens` tokens, by name.

    A value that is not finite makes the scores of its array NaN. Of no tokens the sum is 0, the mean NaN.
    """
    return {score.name: score.value(arrays, tokens, window) for score in SCORES}


def record_arrays(record: Mapping[str, object], tokens: int) -> dict[str, Array]:
    """The per-token arrays of a stored record, as float64 [tokens]; null becomes NaN.

    ValueError says which array is not a list of `tokens` numbers.
    """
    arrays = {}
    for field in FIELDS:
        try:
            array = np.asarray(record[field], dtype=np.float64)
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"'{field}' is not a list of numbers") from error
        if array.shape != (tokens,):
            raise ValueError(f"'{field}' must have one value per token ({tokens}); it has shape {list(array.shape)}")
        arrays[field] = array
    return arrays
