"""Brier score, log-likelihood and calibration error against scikit-learn and plain loops."""

import math
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, log_loss

from eval.utils.probability import (
    brier,
    calibration_error,
    equal_mass_bins,
    error_by_chance,
    negative_log_likelihood,
)

answers = st.lists(st.tuples(st.floats(0.001, 0.999), st.booleans(), st.integers(0, 3)), min_size=1, max_size=40)


@given(answers)
def test_losses_of_a_weighting_are_those_of_repeated_answers(rows: list[tuple[float, bool, int]]) -> None:
    p, right, counts = (np.array(column) for column in zip(*rows, strict=True))
    many, labels = np.repeat(p, counts), np.repeat(right, counts)
    found = brier(p, right, counts[None])[0], negative_log_likelihood(p, right, counts[None])[0]
    if not many.size:
        assert all(map(math.isnan, found))
        return
    expected = brier_score_loss(labels, many), log_loss(labels, many, labels=[False, True])
    assert found == pytest.approx(expected, rel=1e-9)


@given(answers, st.integers(1, 12))
def test_calibration_error_equals_a_plain_loop(rows: list[tuple[float, bool, int]], count: int) -> None:
    p, right, counts = (np.array(column) for column in zip(*rows, strict=True))
    bins = equal_mass_bins(p, count)
    found = calibration_error(p, right, bins, counts[None])[0]
    total, gap = int(counts.sum()), 0.0
    for each in set(bins.tolist()):
        inside = [(q, label) for (q, label, n), own in zip(rows, bins, strict=True) if own == each for _ in range(n)]
        if inside:
            gap += len(inside) * abs(fmean(q for q, _ in inside) - fmean(label for _, label in inside))
    assert found == pytest.approx(gap / total if total else math.nan, abs=1e-12, nan_ok=True)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.integers(1, 12))
def test_bins_rise_with_p_and_keep_equal_p_together(values: list[float], count: int) -> None:
    p = np.array(values)
    bins = equal_mass_bins(p, count)
    order = np.argsort(p, kind="stable")
    assert (np.diff(bins[order]) >= 0).all()
    assert len(np.unique(bins)) <= count
    assert all(len({int(own) for own, q in zip(bins, p, strict=True) if q == each}) == 1 for each in p)


def test_bins_of_different_p_are_of_equal_size() -> None:
    bins = equal_mass_bins(np.random.default_rng(0).permutation(np.linspace(0, 1, 100)))
    assert np.bincount(bins).tolist() == [10] * 10


def test_perfect_probabilities_have_the_error_that_chance_makes() -> None:
    generator = np.random.default_rng(1)
    p = generator.random(2000)
    bins = equal_mass_bins(p)
    errors = [calibration_error(p, generator.random(2000) < p, bins, np.ones((1, 2000), int))[0] for _ in range(200)]
    assert error_by_chance(p, bins) == pytest.approx(np.mean(errors), rel=0.1)
    wrong = calibration_error(p, generator.random(2000) < p**2, bins, np.ones((1, 2000), int))[0]
    assert wrong > 4 * error_by_chance(p, bins)
    assert math.isnan(error_by_chance(np.zeros(0), np.zeros(0, np.int64)))
