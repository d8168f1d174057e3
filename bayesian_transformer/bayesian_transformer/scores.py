"""Scores of a response: a quantity of its tokens and how their values become one number. Larger: more confident.

A name says both: `tu_sum`, `ll_mean`. Each quantity is summed and averaged over the tokens, because a sum also measures
how long the response is; the token count itself is the baseline. Units are nats, except for counts. Quantities that
measure doubt are negated (`sign` in quantities.py).

To add a score, add an `Aggregation` in aggregations.py: detection computes every entry of `SCORES`. A reader is shown
`LISTED` first, with `PRIMARY` at the head. The rest is to explore: the best of so many scores is good by chance.

Files of the published code and of our scripts have older names for some scores, ALIASES. There `ll` is a mean in one
file and a sum in another. Code uses the names alone; whoever reads or writes such a file takes its names from here.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .aggregations import AGGREGATIONS, DEFAULT_WINDOW, LENGTH, NO_PARTS, Aggregation, Array, Parts, Response
from .quantities import FIELDS, QUANTITIES, Quantity

# Named before the reports of this repository were looked at: the published score, EU without the length in it, the
# baseline that needs no noise, and the two at the end of the response, where the answer stands. The last is no blind
# choice: on other problems of similar kinds, with the embedded model, it had been the best single score.
PRIMARY = ("tu_sum", "eu_mean", "ll_mean", "eu_tail", "ll_tail")


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

    @property
    def is_explored(self) -> bool:
        """Whether it is one of the many that a reader is not shown first."""
        return self.aggregation.explored and self.name not in PRIMARY

    @property
    def heading(self) -> str:
        """What it stands under in a table."""
        return "Primary scores (named beforehand)" if self.name in PRIMARY else self.aggregation.heading

    def value(self, values: Array | None, response: Response, tokens: int) -> float:
        """The score of a response of `tokens` tokens, from what `oriented` gives for its quantity.

        NaN if a value is not finite, or if the aggregation has no value for such a response.
        """
        if self.quantity is None:
            return float(self.sign * tokens)
        if values is None:
            return math.nan
        return self.aggregation.of(values, response) if values.size else self.aggregation.of_nothing


def oriented(quantity: Quantity, array: Array) -> Array | None:
    """The values of a quantity's array [T], larger means more confident; None if one of them is not finite."""
    return quantity.sign * array if np.isfinite(array).all() else None


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
    "eu_tail": Aliases(record=("scores", "eu_tail")),
    "ll_tail": Aliases(record=("scores", "ll_tail")),
    "length": Aliases(record=("token_count",)),
}


def _score(quantity: Quantity | None, aggregation: Aggregation) -> Score:
    name = aggregation.name if quantity is None else f"{quantity.prefix}_{aggregation.name}"
    return Score(name, quantity, aggregation, ALIASES.get(name, Aliases()))


SCORES = (
    _score(None, LENGTH),
    *(_score(quantity, how) for how in AGGREGATIONS for quantity in QUANTITIES if quantity.name in how.quantities),
)
LISTED = tuple(score for score in SCORES if not score.is_explored)
EXPLORED = tuple(score for score in SCORES if score.is_explored)
SCORE_BY_NAME = {score.name: score for score in SCORES}
SAMPLED_SCORES = tuple(SCORE_BY_NAME[name] for name, aliases in ALIASES.items() if aliases.record)


def response_scores(
    arrays: Mapping[str, Array], tokens: int, window: int = DEFAULT_WINDOW, parts: Parts = NO_PARTS
) -> dict[str, float]:
    """Every score of one response of `tokens` tokens, by name.

    A value that is not finite makes the scores of its array NaN. Of no tokens the sum is 0, the mean NaN. So are the
    scores of the answer and of steps where `parts` does not say which tokens these are.
    """
    response = Response(arrays, window, parts)
    values: dict[Quantity | None, Array | None] = {each: oriented(each, arrays[each.name]) for each in QUANTITIES}
    return {score.name: score.value(values.get(score.quantity), response, tokens) for score in SCORES}


def stored_scores(arrays: Mapping[str, Sequence[float]], parts: Parts) -> dict[str, float | None]:
    """The scores of a response that a record has no other place for: not negated, None where there is none."""
    values = {name: np.asarray(array, dtype=np.float64) for name, array in arrays.items()}
    scores = response_scores(values, values[FIELDS[0]].size, parts=parts)
    stored = [s for s in SCORES if s.aliases.record in ((), ("scores", s.name))]
    return {s.name: s.sign * scores[s.name] + 0.0 if math.isfinite(scores[s.name]) else None for s in stored}


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
