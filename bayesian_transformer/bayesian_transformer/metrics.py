"""How well a score tells right from wrong answers; every metric for many weightings of the responses at once.

A weighting is a row of whole numbers: how often each response counts. The first row is all ones (the estimate), the
others are bootstrap draws, so that an interval always belongs to exactly the formula of its estimate.

Responses are ranked by descending score. Ties are never broken by the order in the file: AUROC counts a tied pair
half, AUPRC has one point per distinct score, and top-k accuracy and risk are expectations over a random order of the
tied ones. Coverage at a risk is that of a threshold, which keeps tied ones together.

Areas over the coverage are means over k = 1..n of the k most confident responses. All functions return float64 [B];
NaN where nothing is left, and where a metric that needs both labels has one.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
TOP_PERCENTS = (10, 25, 50, 75, 80, 90, 95)  # of the answers, the most confident ones
RISK_PERCENTS = (1, 5, 10)  # error rates


@dataclass(frozen=True)
class Ranking:
    """Responses grouped by equal score, most confident group first; all arrays are float64 [B, G]."""

    right: Array  # weight of the right responses in each group
    total: Array  # weight of all responses in each group
    right_until: Array  # the same, cumulated up to and including each group
    total_until: Array
    share: Array  # of the right ones in each group, 0 in a group without weight


def rank(score: Array, right: NDArray[np.bool_], weights: NDArray[np.integer[Any]]) -> Ranking:
    """Group responses by score. `score` finite [n], `right` [n], `weights` [B, n] whole numbers >= 0."""
    if score.size == 0:
        empty = np.zeros((len(weights), 0))
        return Ranking(empty, empty, empty, empty, empty)
    order = np.argsort(-score, kind="stable")
    starts = np.flatnonzero(np.concatenate([[True], np.diff(score[order]) != 0]))
    total, hits = group_weights(right[order], np.take(weights, order, axis=1), starts)
    return Ranking(hits, total, hits.cumsum(axis=1), total.cumsum(axis=1), hits / np.maximum(total, 1))


def group_weights(
    right: NDArray[np.bool_], weights: NDArray[np.integer[Any]], starts: NDArray[np.int64]
) -> tuple[Array, Array]:
    """Weight of all and of the right responses in each group, float64 [B, G]. Each begins at one of `starts`."""
    total, hits = weights, weights * right
    if len(starts) < len(right):  # a group of several
        total, hits = (np.add.reduceat(array, starts, axis=1) for array in (total, hits))
    return total.astype(np.float64), hits.astype(np.float64)


def rarer_class(right: NDArray[np.bool_], groups: Sequence[Hashable] | NDArray[Any]) -> tuple[int, str]:
    """How many problems have a right or a wrong answer, whichever is less, and which; copies of an answer add none."""
    answers = set(zip(groups, right.tolist(), strict=True))
    return min((sum(label for _, label in answers), "right"), (sum(not label for _, label in answers), "wrong"))


def label_counts(ranking: Ranking) -> tuple[Array, Array]:
    """Weight of the right and of the wrong responses."""
    if not ranking.total.size:
        return np.zeros(len(ranking.total)), np.zeros(len(ranking.total))
    return ranking.right_until[:, -1], ranking.total_until[:, -1] - ranking.right_until[:, -1]


def concordance(ranking: Ranking) -> tuple[Array, Array]:
    """Pairs of a right and a wrong response in which the right one scores higher (a tie counts half), and all pairs."""
    positives, negatives = label_counts(ranking)
    wrong = ranking.total - ranking.right
    wrong_after = negatives[:, None] - (ranking.total_until - ranking.right_until)
    return (ranking.right * (wrong_after + 0.5 * wrong)).sum(axis=1), positives * negatives


def auroc(ranking: Ranking) -> Array:
    """Area under the ROC curve: the share of concordant pairs (Mann-Whitney)."""
    return _ratio(*concordance(ranking))


def stratified_auroc(
    score: Array, right: NDArray[np.bool_], strata: NDArray[np.int64], weights: NDArray[np.integer[Any]]
) -> Array:
    """Share of concordant pairs among the right-wrong pairs within a stratum, float64 [B]; NaN without such a pair."""
    if not score.size:
        return np.full(len(weights), np.nan)
    order = np.lexsort((-score, strata))
    new_stratum = np.diff(strata[order], prepend=strata[order][0] - 1) != 0
    starts = np.flatnonzero(new_stratum | (np.diff(score[order], prepend=np.inf) != 0))
    total, hits = group_weights(right[order], np.take(weights, order, axis=1), starts)
    wrong = total - hits
    wrong_until = wrong.cumsum(axis=1)  # over all strata: what lies before a stratum is taken off again
    first = np.flatnonzero(new_stratum[starts])  # group of each stratum
    last = np.append(first[1:], len(starts)) - 1
    positives, negatives = (np.add.reduceat(array, first, axis=1) for array in (hits, wrong))
    after = (positives * wrong_until[:, last]).sum(axis=1) - (hits * (wrong_until - 0.5 * wrong)).sum(axis=1)
    return _ratio(after, (positives * negatives).sum(axis=1))


def auprc(ranking: Ranking) -> Array:
    """Trapezoid over the points of sklearn's precision_recall_curve, its (recall 0, precision 1) included."""
    positives, negatives = label_counts(ranking)
    start = np.ones((len(positives), 1))
    precision = np.where(
        ranking.total_until > 0, ranking.right_until / np.maximum(ranking.total_until, 1), 1.0
    )  # nothing ranked yet: the curve is still at its first point
    precision = np.concatenate([start, precision], axis=1)
    area = (ranking.right * (precision[:, 1:] + precision[:, :-1])).sum(axis=1) / 2
    return np.where(positives * negatives > 0, _ratio(area, positives), np.nan)


def accuracy_at(ranking: Ranking, percent: int) -> Array:
    """Expected accuracy of the most confident `percent` % (rounded down, at least one response)."""
    size = _size(ranking)
    if not ranking.total.size:
        return np.full(len(size), np.nan)
    count = np.maximum(1.0, np.floor(size * percent / 100))
    group = np.count_nonzero(ranking.total_until < count[:, None], axis=1)  # that holds the last one
    last = np.arange(len(size)), np.minimum(group, ranking.total.shape[1] - 1)
    hits = ranking.right_until[last] - ranking.share[last] * (ranking.total_until[last] - count)
    return np.where(size > 0, hits / count, np.nan)


def coverage_at(ranking: Ranking, percent: int) -> Array:
    """Coverage at a risk: the largest share of the responses, most confident first, with an error rate <= `percent` %.

    What a threshold on the score can keep: all of a tied group or none of it. 0 if every threshold keeps too many
    wrong ones. The threshold is chosen on the responses that it is judged by, so this describes them and promises
    nothing for others. Source: Geifman and El-Yaniv, arXiv 1705.08500, without their confidence.
    """
    wrong_until = ranking.total_until - ranking.right_until
    allowed = 100 * wrong_until <= percent * ranking.total_until  # whole numbers, so it is exact
    return _ratio(np.where(allowed, ranking.total_until, 0.0).max(axis=1, initial=0.0), _size(ranking))


@dataclass(frozen=True)
class Area:
    """Mean accuracy of the k most confident answers over k = n - m + 1 .. n; arrays are float64 [B]."""

    kept: Array  # of the ranking; an expectation over the orders of tied answers
    perfect: Array  # of the ranking that has every right response before every wrong one: mean of min(k, R) / k
    random: Array  # of a random order: the accuracy of all answers
    coverages: Array  # m, rounded down


def rejection_area(ranking: Ranking, percent: int = 100) -> Area:
    """The area over a rejection of less than `percent` % of the answers: one coverage k for each of so many answers.

    Inside a tied group that follows c responses with t right ones, of which a share s is right, the expected accuracy
    at k is (t + s (k - c)) / k = s + (t - s c) / k.
    """
    positives, negatives = label_counts(ranking)
    size = positives + negatives
    coverages = np.floor(size * percent / 100)
    start = size - coverages
    harmonic = _harmonic(int(size.max(initial=0)))
    until = np.concatenate([start[:, None], np.maximum(ranking.total_until, start[:, None])], axis=1)
    steps = np.diff(harmonic[until.astype(np.int64)], axis=1)
    offset = ranking.right_until - ranking.share * ranking.total_until
    kept = (ranking.share * np.diff(until, axis=1) + offset * steps).sum(axis=1)
    sure = np.maximum(positives, start)  # up to this k all are right, or k is not looked at
    beyond = harmonic[size.astype(np.int64)] - harmonic[sure.astype(np.int64)]
    perfect = sure - start + positives * beyond
    return Area(_ratio(kept, coverages), _ratio(perfect, coverages), _ratio(positives, size), coverages)


def aurc(area: Area) -> Array:
    """Area under the risk-coverage curve: mean over k = 1..n of the expected error rate of the k most confident.

    Source: Geifman and El-Yaniv, arXiv 1705.08500.
    """
    return 1.0 - area.kept


def excess_aurc(area: Area) -> Array:
    """E-AURC = AURC - AURC of the perfect ranking: 0 is perfect. Source: Geifman et al., arXiv 1805.08206."""
    return area.perfect - area.kept


def prediction_rejection_ratio(area: Area) -> Array:
    """PRR = (kept - random) / (perfect - random): 1 perfect, 0 random, < 0 worse.

    The area is that of LM-Polygraph (Vashurin et al., arXiv 2406.15627): over all rejection rates, or over those below
    50 % (`max_rejection=0.5`). The older definition that lets an oracle answer the rejected ones (Malinin and Gales,
    arXiv 2002.07650) is 2 AUROC - 1 for right-or-wrong answers, nothing new.

    NaN with one label, and over a single coverage: there every ranking keeps all answers.
    """
    one_label = (area.random == 0) | (area.random == 1)
    ratio = _ratio(area.kept - area.random, area.perfect - area.random)
    return np.where(one_label | (area.coverages < 2), np.nan, ratio)


def augrc(ranking: Ranking) -> Array:
    """Area under the generalised risk-coverage curve: mean over k = 1..n of the expected wrong ones of the k, over n.

    Source: Traub et al., NeurIPS 2024, arXiv 2407.01032. With R right and W wrong responses and C concordant pairs
    (see `concordance`) it is (W (W + 1) / 2 + R W - C) / n^2: a wrong response counts once for each that is kept after
    it, and for itself. So scores of the same responses have the order that AUROC gives them. The paper's integral is
    smaller by W / (2 n^2).
    """
    positives, negatives = label_counts(ranking)
    concordant, pairs = concordance(ranking)
    return _ratio(negatives * (negatives + 1) / 2 + pairs - concordant, (positives + negatives) ** 2)


def ranking_metrics(ranking: Ranking) -> dict[str, Array]:
    """All metrics of one ranking, under the prefixes of their columns."""
    area = rejection_area(ranking)
    return {
        "auc": auroc(ranking),
        "auprc": auprc(ranking),
        **{f"top{percent}": accuracy_at(ranking, percent) for percent in TOP_PERCENTS},
        "prr": prediction_rejection_ratio(area),
        "prr50": prediction_rejection_ratio(rejection_area(ranking, 50)),
        "aurc": aurc(area),
        "eaurc": excess_aurc(area),
        "augrc": augrc(ranking),
        **{f"cov_risk{percent}": coverage_at(ranking, percent) for percent in RISK_PERCENTS},
    }


def _size(ranking: Ranking) -> Array:
    """Weight of all responses."""
    positives, negatives = label_counts(ranking)
    return positives + negatives


def _harmonic(largest: int) -> Array:
    """H_0 .. H_largest, with H_k = 1 + 1/2 + ... + 1/k."""
    return np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, largest + 1))])


def _ratio(numerator: Array, denominator: Array) -> Array:
    """numerator / denominator, NaN where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator != 0)
