"""AUROC with response length taken out, in two ways. A score that only measures length falls to 1/2 in both.

Within strata: only pairs of a right and a wrong response from the same token-count stratum are compared, so each
stratum weighs as many such pairs as it has. Residual: AUROC of what a straight line in the token count leaves of the
score. The line is cross-fitted: of each response the one that fits the other problems best (least squares, labels
unused; bootstrap draws keep the fitted lines).
"""

import numpy as np
from numpy.typing import NDArray

from bayesian_transformer.metrics import Array

DEFAULT_STRATA = 10
FOLDS = 5
_SEED = 20250517  # fixed: the same problems are always in the same folds


def length_strata(tokens: NDArray[np.int64], count: int = DEFAULT_STRATA) -> NDArray[np.int64]:
    """Stratum of each response: equal shares by quantile of the token count [n]; equal counts stay together."""
    edges = np.quantile(tokens, np.arange(1, count) / count) if tokens.size else np.zeros(0)
    return np.searchsorted(np.unique(edges), tokens, side="left").astype(np.int64)


def problem_folds(problems: int) -> NDArray[np.int64]:
    """Fold of each problem, [problems]: equal shares, drawn so that an order in the data set does not matter."""
    return (np.random.default_rng(_SEED).permutation(problems) % FOLDS).astype(np.int64)


def length_residual(score: Array, tokens: NDArray[np.int64], folds: NDArray[np.int64]) -> Array:
    """Score minus the least-squares line a + b * tokens of the other folds, all [n].

    What is only rounding error counts as exactly 0. b is 0 where the others have one token count only. NaN if there
    are no others.
    """
    residual = np.full(score.shape, np.nan)
    for fold in np.unique(folds):
        inside, others = folds == fold, folds != fold
        if others.any():
            residual[inside] = score[inside] - _line(score[others], tokens[others], tokens[inside])
    return np.where(np.abs(residual) <= 1e-9 * np.abs(score).max(initial=0.0), 0.0, residual)


def _line(score: Array, tokens: NDArray[np.int64], at: NDArray[np.int64]) -> Array:
    """The least-squares line through (tokens, score), at the token counts `at`."""
    length = tokens - tokens.mean()
    mean, spread = score.mean(), float(length @ length)
    slope = float(length @ (score - mean)) / spread if spread > 0 else 0.0
    return mean + slope * (at - tokens.mean())
