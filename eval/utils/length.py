"""AUROC with response length taken out, in two ways. A score that only measures length falls to 1/2 in both.

Within strata: only pairs of a right and a wrong response from the same token-count stratum are compared, so each
stratum weighs as many such pairs as it has. Residual: AUROC of what a straight line in the token count leaves of the
score (least squares on all responses, labels unused; bootstrap draws keep the fitted line).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .metrics import Array, auroc, concordance, rank

DEFAULT_STRATA = 10


def length_strata(tokens: NDArray[np.int64], count: int = DEFAULT_STRATA) -> NDArray[np.int64]:
    """Stratum of each response: equal shares by quantile of the token count [n]; equal counts stay together."""
    edges = np.quantile(tokens, np.arange(1, count) / count) if tokens.size else np.zeros(0)
    return np.searchsorted(np.unique(edges), tokens, side="left").astype(np.int64)


def stratified_auroc(
    score: Array, right: NDArray[np.bool_], strata: NDArray[np.int64], weights: NDArray[np.integer[Any]]
) -> Array:
    """Share of concordant pairs among the right-wrong pairs within a stratum, float64 [B]; NaN without such a pair."""
    concordant = np.zeros(len(weights))
    pairs = np.zeros(len(weights))
    for stratum in np.unique(strata):
        inside = strata == stratum
        some, all_pairs = concordance(rank(score[inside], right[inside], weights[:, inside]))
        concordant += some
        pairs += all_pairs
    return np.divide(concordant, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)


def length_residual(score: Array, tokens: NDArray[np.int64]) -> Array:
    """Score minus its least-squares line a + b * tokens; what is only rounding error counts as exactly 0."""
    if score.size == 0:
        return score
    length = tokens - tokens.mean()
    centred = score - score.mean()
    spread = float(length @ length)
    residual = centred - (float(length @ centred) / spread if spread > 0 else 0.0) * length
    return np.where(np.abs(residual) <= 1e-9 * np.abs(score).max(), 0.0, residual)


def length_metrics(
    score: Array, right: NDArray[np.bool_], tokens: NDArray[np.int64], strata: int, weights: NDArray[np.integer[Any]]
) -> dict[str, Array]:
    """Both length-controlled AUROCs, under the prefixes of their columns."""
    return {
        "auc_strata": stratified_auroc(score, right, length_strata(tokens, strata), weights),
        "auc_residual": auroc(rank(length_residual(score, tokens), right, weights)),
    }
