"""Scores and verdicts drawn from a known P(correct), for the tests of the calibration."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bayesian_transformer.calibration.calibrator import sigmoid

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Simulated:
    """n responses to n problems; arrays are [n]."""

    table: dict[str, Array]
    right: NDArray[np.bool_]
    groups: list[str]
    p: Array  # the truth


def simulated(count: int, seed: int = 0) -> Simulated:
    """logit P = 0.4 + 1.2 (ll_mean + 1) / 0.5 - 0.8 (log(token count) - 4) / 0.6, and eu_mean says nothing."""
    generator = np.random.default_rng(seed)
    one, two, three = generator.normal(size=(3, count))
    p = sigmoid(0.4 + 1.2 * one - 0.8 * two)
    table = {"ll_mean": -1 + 0.5 * one, "length": -np.exp(4 + 0.6 * two), "eu_mean": -np.abs(three)}
    return Simulated(table, generator.random(count) < p, [f"problem {index}" for index in range(count)], p)
