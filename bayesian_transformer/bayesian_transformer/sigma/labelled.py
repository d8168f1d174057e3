"""Where gold answers are known: how well the scores of each sigma tell right from wrong answers, out of sample.

Whoever tries six sigmas and shows the best AUROC shows chance too. So the sigma is also picked on one half of the
problems and judged on the other half, in several ways to halve them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bootstrap import interval
from ..metrics import Array, auroc, rank, rarer_class
from .summary import Setting, TextSums, text_weights

HALVINGS = 10  # ways to halve the problems; each half is picked on once and judged on once
FEW = 20  # problems, and those with a right or with a wrong answer: below it a note says that there are few
SCORES = ("eu_mean", "tu_sum")
_SEED = 20260513
_Bools = NDArray[np.bool_]
_Weights = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Auroc:
    """AUROC of a score with the interval of a bootstrap over problems; None where one label is missing."""

    value: float | None
    low: float | None
    high: float | None

    @classmethod
    def of(cls, values: Array) -> "Auroc":
        """From the values [B] of all weightings, the first of which is the estimate."""
        return cls(*(None if np.isnan(value) else float(value) for value in (values[0], *interval(values[1:]))))


@dataclass(frozen=True)
class Detection:
    """One score with one number of weight samples. Right answers are the positive class, EU and TU are negated."""

    score: str
    num_samples: int
    by_sigma: dict[float, Auroc]
    out_of_sample: Auroc  # of the sigma that was picked on the other half of the problems
    picked: dict[float, int]  # how often each sigma was picked, among all halves of the estimate


@dataclass(frozen=True)
class Labelled:
    """The texts with a verdict, and what detection comes to on them."""

    right: int
    wrong: int
    undecided: int  # among the wrong ones
    problems: int
    baselines: dict[str, Auroc]  # of scores that need no noise, and so are the same for all sigmas
    detections: tuple[Detection, ...]
    notes: tuple[str, ...]


def detection(
    texts: Sequence[TextSums], right: _Bools, problems: Sequence[str], settings: Sequence[Setting], undecided: int = 0
) -> Labelled:
    """Detection by `eu_mean` and `tu_sum` at all settings; arrays are by text [n]."""
    weights = text_weights(problems)
    halves = halvings(problems)
    tokens = np.array([text.tokens for text in texts], dtype=np.float64)
    found = []
    for count in sorted({setting.num_samples for setting in settings}):
        of_count = sorted(setting for setting in settings if setting.num_samples == count)
        eu = np.array([[text.at[setting].epistemic for text in texts] for setting in of_count])
        tu = np.array([[text.at[setting].total for text in texts] for setting in of_count])
        for name, scores in zip(SCORES, (-eu / tokens, -tu), strict=True):
            found.append(_detection(name, of_count, scores, right, weights, halves))
    baselines = {"ll_mean": np.array([-text.clean_nll for text in texts]) / tokens, "length": -tokens}
    fewest, which = rarer_class(right, problems)
    few = f"only {fewest} problems have a {which} answer; below {FEW} the figures say little"
    return Labelled(
        right=int(right.sum()),
        wrong=int((~right).sum()),
        undecided=undecided,
        problems=len(set(problems)),
        baselines={name: Auroc.of(_auroc(score, right, weights)) for name, score in baselines.items()},
        detections=tuple(found),
        notes=(few,) if fewest < FEW else (),
    )


def _auroc(score: Array, right: _Bools, weights: _Weights) -> Array:
    return auroc(rank(score, right, weights))


def halvings(problems: Sequence[str]) -> _Bools:
    """Ways to halve the problems: whether each text is in the first half, [HALVINGS, n]."""
    names = {name: index for index, name in enumerate(dict.fromkeys(problems))}
    generator = np.random.default_rng(_SEED)
    ranks = np.array([generator.permutation(len(names)) for _ in range(HALVINGS)])
    return np.array(ranks[:, [names[name] for name in problems]] < len(names) / 2)


def _detection(
    name: str, settings: Sequence[Setting], scores: Array, right: _Bools, weights: _Weights, halves: _Bools
) -> Detection:
    """Scores are [G, n], for the G settings of one number of samples."""
    sigmas = [setting.sigma for setting in settings]
    judged, picked = out_of_sample(scores, right, weights, halves)
    return Detection(
        score=name,
        num_samples=settings[0].num_samples,
        by_sigma={sigma: Auroc.of(_auroc(score, right, weights)) for sigma, score in zip(sigmas, scores, strict=True)},
        out_of_sample=Auroc.of(judged),
        picked=dict(zip(sigmas, picked, strict=True)),
    )


def out_of_sample(scores: Array, right: _Bools, weights: _Weights, halves: _Bools) -> tuple[Array, list[int]]:
    """AUROC [B] of the score, among G [G, n], that is best on one half of the texts, judged on the other half.

    It is the mean over both directions of all `halves` [H, n]; one whose halves lack a label is left out, NaN if all
    do. Also how often each of the G was picked under the first weighting. Of equal ones the first is picked.
    """
    judged, picked = [], np.zeros(len(scores), dtype=np.int64)
    for first in halves:
        by_half = [np.array([_auroc(score, right, weights * half) for score in scores]) for half in (first, ~first)]
        for seen, unseen in (by_half, by_half[::-1]):
            best = np.where(np.isnan(seen), -np.inf, seen).argmax(axis=0)
            value = np.take_along_axis(unseen, best[None], axis=0)[0]
            value[np.isnan(seen).any(axis=0)] = np.nan
            judged.append(value)
            picked[best[0]] += not np.isnan(value[0])
    table = np.array(judged)
    defined = ~np.isnan(table)
    counts = defined.sum(axis=0)
    sums = np.where(defined, table, 0.0).sum(axis=0)
    return np.divide(sums, counts, out=np.full(len(counts), np.nan), where=counts > 0), picked.tolist()
