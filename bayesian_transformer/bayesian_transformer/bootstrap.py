"""Bootstrap over problems: the same draw for every score and every seed, so that differences have intervals too."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .metrics import Array

DEFAULT_DRAWS = 1000
LEVEL = 95  # percent
_SEED = 20250517  # fixed: the same results give the same intervals


def bootstrap_weights(problems: int, draws: int = DEFAULT_DRAWS, seed: int = _SEED) -> NDArray[np.int32]:
    """How often each problem counts, [1 + draws, problems]: a row of ones, then multinomial draws."""
    weights = np.ones((1 + draws, problems), dtype=np.int32)
    if problems:
        generator = np.random.default_rng(seed)
        weights[1:] = generator.multinomial(problems, np.full(problems, 1 / problems), size=draws)
    return weights


def problem_places(runs: Sequence[Sequence[str]]) -> tuple[int, list[NDArray[np.int64]]]:
    """How many problems the question ids of all runs name, and for each run the column of each of its ids."""
    names = sorted({name for ids in runs for name in ids})
    column = {name: index for index, name in enumerate(names)}
    return len(names), [np.array([column[name] for name in ids], dtype=np.int64) for ids in runs]


def interval(values: NDArray[np.floating[Any]]) -> tuple[float, float]:
    """Percentile interval of bootstrap values [B] at LEVEL; undefined draws (NaN) are left out, NaN if all are."""
    defined: Array = values[~np.isnan(values)]
    if defined.size == 0:
        return np.nan, np.nan
    tail = (100 - LEVEL) / 2
    low, high = np.percentile(defined, [tail, 100 - tail])
    return float(low), float(high)
