"""How well a score tells right from wrong answers; every metric for many weightings of the responses at once.

A weighting is a row of whole numbers: how often each response counts. The first row is all ones (the estimate), the
others are bootstrap draws, so that an interval always belongs to exactly the formula of its estimate.

Responses are ranked by descending score. Ties are never broken by the order in the file: AUROC counts a tied pair
half, AUPRC has one point per distinct score, and top-k accuracy and risk are expectations over a random order of the
tied ones. All functions return float64 [B]; NaN where one label (or nothing) is left.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
TOP_PERCENTS = (10, 25, 50, 75)


@dataclass(frozen=True)
class Ranking:
    """Responses grouped by equal score, most confident group first; all arrays are float64 [B, G]."""

    right: Array  # weight of the right responses in each group
    total: Array  # weight of all responses in each group
    right_until: Array  # the same, cumulated up to and including each group
    total_until: Array


def rank(score: Array, right: NDArray[np.bool_], weights: NDArray[np.integer[Any]]) -> Ranking:
    """Group responses by score. `score` finite [n], `right` [n], `weights` [B, n] whole numbers >= 0."""
    if score.size == 0:
        empty = np.zeros((len(weights), 0))
        return Ranking(empty, empty, empty, empty)
    order = np.argsort(-score, kind="stable")
    starts = np.flatnonzero(np.concatenate([[True], np.diff(score[order]) != 0]))
    total = np.add.reduceat(weights[:, order], starts, axis=1).astype(np.float64)
    hits = np.add.reduceat(weights[:, order] * right[order], starts, axis=1).astype(np.float64)
    return Ranking(hits, total, hits.cumsum(axis=1), total.cumsum(axis=1))


def label_counts(ranking: Ranking) -> tuple[Array, Array]:
    """Weight of the right and of the wrong responses."""
    positives = ranking.right.sum(axis=1)
    return positives, ranking.total.sum(axis=1) - positives


def concordance(ranking: Ranking) -> tuple[Array, Array]:
    """Pairs of a right and a wrong response in which the right one scores higher (a tie counts half), and all pairs."""
    positives, negatives = label_counts(ranking)
    wrong = ranking.total - ranking.right
    wrong_after = negatives[:, None] - (ranking.total_until - ranking.right_until)
    return (ranking.right * (wrong_after + 0.5 * wrong)).sum(axis=1), positives * negatives


def auroc(ranking: Ranking) -> Array:
    """Area under the ROC curve: the share of concordant pairs (Mann-Whitney)."""
    return _ratio(*concordance(ranking))


def auprc(ranking: Ranking) -> Array:
    """Trapezoid over the points of sklearn's precision_recall_curve, its (recall 0, precision 1) included."""
    positives, negatives = label_counts(ranking)
    start = np.ones((len(positives), 1))
    precision = np.where(
        ranking.total_until > 0, ranking.right_until / np.maximum(ranking.total_until, 1), 1.0
    )  # nothing ranked yet: the curve is still at its first point
    precision = np.concatenate([start, precision], axis=1)
    step = _ratio(ranking.right, positives[:, None])
    area = (step * (precision[:, 1:] + precision[:, :-1]) / 2).sum(axis=1)
    return np.where(positives * negatives > 0, area, np.nan)


def accuracy_at(ranking: Ranking, percent: int) -> Array:
    """Expected accuracy of the most confident `percent` % (rounded down, at least one response)."""
    size = ranking.total.sum(axis=1)
    count = np.maximum(1, np.floor(size * percent / 100))
    hits = np.full(len(size), np.nan)
    for row in np.flatnonzero(size > 0):
        known = np.concatenate([[0.0], ranking.total_until[row]])
        hits[row] = np.interp(count[row], known, np.concatenate([[0.0], ranking.right_until[row]]))
    return hits / count


def aurc(ranking: Ranking) -> Array:
    """Area under the risk-coverage curve: mean over k = 1..n of the expected error rate of the k most confident.

    Source: Geifman and El-Yaniv, arXiv 1705.08500. Inside a tied group that follows c responses with t right ones,
    of which a share s is right, the expected accuracy at k is (t + s (k - c)) / k = s + (t - s c) / k.
    """
    size = ranking.total.sum(axis=1)
    harmonic = _harmonic(int(size.max(initial=0)))
    before = ranking.total_until - ranking.total
    share = _ratio(ranking.right, ranking.total, empty=0.0)
    offset = ranking.right_until - ranking.right - share * before
    steps = harmonic[ranking.total_until.astype(np.int64)] - harmonic[before.astype(np.int64)]
    return 1.0 - _ratio((share * ranking.total + offset * steps).sum(axis=1), size)


def prediction_rejection_ratio(ranking: Ranking) -> Array:
    """PRR = (e - AURC) / (e - AURC of the perfect ranking), e the error rate: 1 perfect, 0 random, < 0 worse.

    The area is that of the quality of the answers which are kept, over all rejection rates (LM-Polygraph, Vashurin
    et al., arXiv 2406.15627, without a cap on the rejection rate). The older definition that lets an oracle answer
    the rejected ones (Malinin and Gales, arXiv 2002.07650) is 2 AUROC - 1 for right-or-wrong answers, nothing new.
    """
    positives, negatives = label_counts(ranking)
    size = positives + negatives
    harmonic = _harmonic(int(size.max(initial=0)))
    beyond = harmonic[size.astype(np.int64)] - harmonic[positives.astype(np.int64)]
    perfect = _ratio(negatives - positives * beyond, size)
    error = _ratio(negatives, size)
    prr = _ratio(error - aurc(ranking), error - perfect)
    return np.where(positives * negatives > 0, prr, np.nan)


def ranking_metrics(ranking: Ranking) -> dict[str, Array]:
    """All metrics of one ranking, under the prefixes of their columns."""
    top = {f"top{percent}": accuracy_at(ranking, percent) for percent in TOP_PERCENTS}
    return {
        "auc": auroc(ranking),
        "auprc": auprc(ranking),
        **top,
        "prr": prediction_rejection_ratio(ranking),
        "aurc": aurc(ranking),
    }


def _harmonic(largest: int) -> Array:
    """H_0 .. H_largest, with H_k = 1 + 1/2 + ... + 1/k."""
    return np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, largest + 1))])


def _ratio(numerator: Array, denominator: Array, empty: float = np.nan) -> Array:
    """numerator / denominator, `empty` where the denominator is 0."""
    numerator, denominator = np.broadcast_arrays(numerator, denominator)
    result = np.full(numerator.shape, empty)
    np.divide(numerator, denominator, out=result, where=denominator != 0)
    return result
