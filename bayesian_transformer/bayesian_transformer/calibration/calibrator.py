"""A fitted map from scores to P(correct): what it computes, its JSON file, and what it does not fit.

Nothing here needs more than numpy. With x the columns of columns.py:

- logistic: P = sigmoid(intercept + sum_i weight_i (x_i - mean_i) / scale_i)
- isotonic: P of one score, rising: straight lines between points, flat beyond the first and the last
- temperature: P = sigmoid(x / T), with one T > 0; x is logit(exp(score)) for a log-likelihood, else the score itself
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from ..files import write_json
from ..results import completed, model_name, read_settings
from .columns import Array, Table, check_names, columns_of, depend_on_noise, missing_values
from .risk import RiskThreshold
from .stored import StoredObject

SCHEMA_VERSION = 1
# What of a run decides whether a calibrator fits, by the names of results.SETTINGS.
SOURCE = (
    "model", "weights_digest", "dataset", "num_samples", "bayes_sigma", "bayes_noise", "rank",
    "use_tfb_for_generation", "temperature", "bayes_projections",
)  # fmt: skip
_OF_NOISE = ("num_samples", "bayes_sigma", "bayes_noise", "rank", "bayes_projections")


def _agree(name: str, fitted: Any, found: Any) -> bool:
    """Whether two values of a setting are the same, or one is not known. A model may be its name or its folder."""
    if name == "model" and isinstance(fitted, str) and isinstance(found, str):
        return model_name(fitted) == model_name(found)
    return fitted is None or found is None or bool(fitted == found)


def sigmoid(z: Array) -> Array:
    """1 / (1 + exp(-z)), exact at both ends."""
    return np.exp(-np.logaddexp(0.0, -z))


@dataclass(frozen=True)
class Logistic:
    """Weights of standardised columns, one of each per score."""

    means: tuple[float, ...]
    scales: tuple[float, ...]
    weights: tuple[float, ...]
    intercept: float

    def predict(self, columns: Array) -> Array:
        """P(correct) [n] of columns [n, k]."""
        return sigmoid((columns - self.means) / self.scales @ np.array(self.weights) + self.intercept)

    @classmethod
    def load(cls, stored: StoredObject, features: int) -> Self:
        means, scales, weights = (stored.numbers(key) for key in ("means", "scales", "weights"))
        for key, values in (("means", means), ("scales", scales), ("weights", weights)):
            stored.demand(key, len(values) == features, f"must have one number for each of the {features} features")
        stored.demand("scales", min(scales) > 0, "must be above 0")
        return cls(means, scales, weights, stored.number("intercept"))


@dataclass(frozen=True)
class Isotonic:
    """Points of a rising curve of one score."""

    scores: tuple[float, ...]
    probabilities: tuple[float, ...]

    def predict(self, columns: Array) -> Array:
        """P(correct) [n] of one column [n, 1]."""
        return np.interp(columns[:, 0], self.scores, self.probabilities)

    @classmethod
    def load(cls, stored: StoredObject, features: int) -> Self:
        scores, probabilities = stored.numbers("scores"), stored.numbers("probabilities")
        stored.demand("scores", features == 1, "belong to one feature, and there are more")
        stored.demand("scores", bool(scores) and bool((np.diff(scores) > 0).all()), "must rise")
        stored.demand("probabilities", len(probabilities) == len(scores), "must be as many as the scores")
        rising = bool((np.diff(probabilities) >= 0).all()) and probabilities[0] >= 0 and probabilities[-1] <= 1
        stored.demand("probabilities", rising, "must rise from 0 to 1 at most")
        return cls(scores, probabilities)


@dataclass(frozen=True)
class Temperature:
    """One divisor of one score."""

    temperature: float

    def predict(self, columns: Array) -> Array:
        """P(correct) [n] of one column of logits [n, 1]."""
        return sigmoid(columns[:, 0] / self.temperature)

    @classmethod
    def load(cls, stored: StoredObject, features: int) -> Self:
        found = cls(stored.number("temperature"))
        stored.demand("temperature", features == 1, "belongs to one feature, and there are more")
        stored.demand("temperature", found.temperature > 0, "must be above 0")
        return found


METHODS: dict[str, type[Logistic] | type[Isotonic] | type[Temperature]] = {
    "logistic": Logistic,
    "isotonic": Isotonic,
    "temperature": Temperature,
}


@dataclass(frozen=True)
class Calibrator:
    """A fitted map from scores to P(correct), and what it was fitted on."""

    method: str  # of METHODS
    features: tuple[str, ...]  # names of scores.py
    parameters: Logistic | Isotonic | Temperature
    counts: Mapping[str, int]  # responses, right, wrong, groups, and those left out for want of a value
    versions: Mapping[str, str]  # of what fitted it
    source: Mapping[str, Any] = field(default_factory=dict)  # those of SOURCE that were known
    notes: tuple[str, ...] = ()  # what whoever uses it must know
    acceptance: RiskThreshold | None = None  # from which P(correct) on an answer is accepted, if that was asked

    def predict(self, table: Table) -> Array:
        """P(correct) [n]; NaN for a response without a value of each score (see `reasons`). Nothing is imputed.

        ValueError, in one line, if the table has other scores.
        """
        columns = self._columns(table)
        whole = np.isfinite(columns).all(axis=1)
        p = np.full(len(columns), np.nan)
        p[whole] = self.parameters.predict(columns[whole])
        return p

    def reasons(self, table: Table) -> list[str | None]:
        """For each response None, or why `predict` gives NaN."""
        return missing_values(self._columns(table), self.features)

    def _columns(self, table: Table) -> Array:
        return columns_of(table, self.features, as_logits=self.method == "temperature")

    def check(self, **settings: Any) -> str | None:
        """One line that says where the calibrator does not fit the responses that it is applied to; None if it fits.

        Args:
            settings: of the responses, by the names of SOURCE, such as model, num_samples and bayes_sigma. What is None
                here or was not known when it was fitted is not compared; the number and kind of weight samples only
                matters if a score depends on the noise.
        """
        unknown = [name for name in settings if name not in SOURCE]
        if unknown:
            raise ValueError(f"{', '.join(unknown)} cannot be compared; use {', '.join(SOURCE)}")
        compared = [name for name in SOURCE if name not in _OF_NOISE or depend_on_noise(self.features)]
        fitted, found = completed(self.source), completed(settings)
        wrong = [
            f"{name} {fitted[name]!r}, not {found[name]!r}"
            for name in compared
            if not _agree(name, fitted.get(name), found.get(name))
        ]
        return f"the calibrator was fitted on {'; '.join(wrong)}: fit another one" if wrong else None

    def accepting(self, acceptance: RiskThreshold) -> "Calibrator":
        """The same calibrator with the threshold from which on its answers are accepted."""
        return replace(self, acceptance=acceptance)

    def save(self, path: Path) -> None:
        """Write it as JSON; the numbers come back bit by bit."""
        write_json(path, {"schema_version": SCHEMA_VERSION, **asdict(self)})

    @classmethod
    def load(cls, path: Path) -> "Calibrator":
        """Read what `save` wrote. ValueError, in one line, names the file and the key that is wrong."""
        stored = StoredObject(path, read_settings(path))
        version = stored.integer("schema_version")
        stored.demand("schema_version", version == SCHEMA_VERSION, f"is {version}, this program reads {SCHEMA_VERSION}")
        method, features = stored.text("method"), stored.texts("features")
        stored.demand("method", method in METHODS, f"is {method!r}, not one of {', '.join(METHODS)}")
        try:
            check_names(features)
        except ValueError as error:
            raise ValueError(f"{path}: 'features': {error}") from error
        counts, versions = stored.object("counts"), stored.object("versions")
        return cls(
            method=method,
            features=features,
            parameters=METHODS[method].load(stored.object("parameters"), len(features)),
            counts={key: counts.integer(key) for key in counts.values},
            versions={key: versions.text(key) for key in versions.values},
            source=stored.object("source").values,
            notes=stored.texts("notes"),
            acceptance=None
            if stored.values.get("acceptance") is None
            else RiskThreshold.load(stored.object("acceptance")),
        )
