"""How good probabilities of being right are, for many weightings of the responses at once.

A weighting is a row of whole numbers, as in metrics.py: the first is all ones, the others are bootstrap draws. All
functions return float64 [B]; NaN for a weighting of nothing. `p` [n] is P(correct), `right` [n] the verdicts.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesian_transformer.metrics import Array

BINS = 10
_LEAST = 1e-12  # P of the label that occurred, below which the log-likelihood counts no further
_SEED = 20250517  # fixed: the same results give the same number


def brier(p: Array, right: NDArray[np.bool_], weights: NDArray[np.integer[Any]]) -> Array:
    """Mean of (p - right)^2."""
    return _mean((p - right) ** 2, weights)


def negative_log_likelihood(p: Array, right: NDArray[np.bool_], weights: NDArray[np.integer[Any]]) -> Array:
    """Mean of -log p of the right and -log (1 - p) of the wrong responses, in nats."""
    return _mean(-np.log(np.maximum(np.where(right, p, 1 - p), _LEAST)), weights)


def equal_mass_bins(p: Array, bins: int = BINS) -> NDArray[np.int64]:
    """Bin of each response, [n]: equal shares by quantile of p; equal p stay together."""
    edges = np.quantile(p, np.arange(1, bins) / bins) if p.size else np.zeros(0)
    return np.searchsorted(np.unique(edges), p, side="left").astype(np.int64)


def calibration_error(
    p: Array, right: NDArray[np.bool_], bins: NDArray[np.int64], weights: NDArray[np.integer[Any]]
) -> Array:
    """ECE: over bins, the share of the responses times |mean of p - share of right ones| (Naeini et al., AAAI 2015).

    With bins of equal mass, from `equal_mass_bins`, which stay as they are for all weightings.
    """
    total = weights.sum(axis=1)
    gaps = np.zeros(len(weights))
    for each in np.unique(bins):
        inside = bins == each
        gaps += np.abs(weights[:, inside] @ (p[inside] - right[inside]))
    return np.divide(gaps, total, out=np.full(len(total), np.nan), where=total > 0)


def error_by_chance(p: Array, bins: NDArray[np.int64], draws: int = 1000) -> float:
    """The mean ECE of as many responses whose labels are drawn with exactly these p: what perfect calibration shows.

    NaN without responses.
    """
    if not p.size:
        return np.nan
    generator = np.random.default_rng(_SEED)
    ones = np.ones((1, p.size), dtype=np.int32)
    return float(np.mean([calibration_error(p, generator.random(p.size) < p, bins, ones)[0] for _ in range(draws)]))


def _mean(values: Array, weights: NDArray[np.integer[Any]]) -> Array:
    total = weights.sum(axis=1)
    return np.divide(weights @ values, total, out=np.full(len(total), np.nan), where=total > 0)
