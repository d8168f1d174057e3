"""Rows of the table from sums: brute force over texts, intervals, the noise of EU, and which sigma is recommended."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from bayesian_transformer.sigma.choosing import next_sigma, recommend
from bayesian_transformer.sigma.summary import (
    Row,
    Setting,
    Sums,
    TextSums,
    estimator_noise,
    flip_interval,
    summarise,
    text_weights,
)

AT = Setting(0.1, 5)


def text(tokens: int, clean: float, *sums: float) -> TextSums:
    return TextSums(tokens, clean, {AT: Sums(*sums)})


TEXTS = [
    text(10, 2.0, 1, 2.5, 0.4, 4.0, 0.30, 0.50),
    text(30, 5.0, 2, 5.2, 0.9, 9.0, 0.80, 1.00),
    text(20, 1.0, 0, 0.9, 0.2, 2.0, 0.15, 0.15),
]


def test_a_row_is_sums_over_sums() -> None:
    row = summarise(TEXTS, AT, text_weights(["a", "b", "c"]))
    assert (row.sigma, row.num_samples, row.flips) == (0.1, 5, 3)
    assert row.flip_rate == pytest.approx(3 / 60)
    assert row.nll_change == pytest.approx((8.6 - 8.0) / 60)
    assert row.nll_change_relative == pytest.approx((8.6 - 8.0) / 8.0)
    assert row.eu_mean == pytest.approx(1.5 / 60)
    assert row.eu_share == pytest.approx(1.5 / 15.0)
    first, second = [0.03, 0.8 / 30, 0.0075], [0.05, 1 / 30, 0.0075]
    differences = [one - other for one, other in zip(first, second, strict=True)]
    error = math.sqrt(sum(d * d for d in differences) / 3) / 2 / (sum(first + second) / 6)
    assert row.eu_error == pytest.approx(error)
    assert row.eu_correlation == pytest.approx(np.corrcoef(first, second)[0, 1])


def test_what_cannot_be_told_is_none() -> None:
    certain = [text(4, 0.0, 0, 0.1, 0.0, 0.0, 0.0, 0.0)]
    row = summarise(certain, AT, text_weights(["a"]))
    assert row.nll_change == pytest.approx(0.025)  # per token, which can always be told
    assert (row.nll_change_relative, row.eu_share, row.eu_error, row.eu_correlation) == (None,) * 4
    few = Setting(0.1, 4)
    row = summarise([TextSums(10, 2.0, {few: TEXTS[0].at[AT]})], few, text_weights(["a"]))
    assert (row.eu_error, row.eu_correlation, row.flip_rate_interval) == (None, None, None)


def test_texts_of_one_problem_are_drawn_together() -> None:
    weights = text_weights(["a", "b", "a", "c"], draws=200)
    assert weights.shape == (201, 4)
    assert weights[0].tolist() == [1, 1, 1, 1]
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all()
    assert (weights[1:] == 0).any(axis=0).all()


def test_the_interval_is_that_of_draws_of_texts() -> None:
    weights = text_weights(["a", "b", "c"])
    found = flip_interval(np.array([1.0, 2, 0]), np.array([10.0, 30, 20]), weights)
    rates = [(row[0] + 2 * row[1]) / (10 * row[0] + 30 * row[1] + 20 * row[2]) for row in weights[1:].tolist()]
    assert found == pytest.approx(tuple(np.percentile(rates, [2.5, 97.5])))


@pytest.mark.parametrize(("flips", "end"), [([0.0, 0], 0), ([10.0, 30], 40)])
def test_no_flip_at_all_has_an_interval_too(flips: list[float], end: int) -> None:
    found = flip_interval(np.array(flips), np.array([10.0, 30]), text_weights(["a", "b"]))
    exact = binomtest(end, 40).proportion_ci(0.95, method="exact")
    assert found == pytest.approx((exact.low, exact.high))


def test_the_interval_covers_the_rate() -> None:
    """Of 200 sets of 60 texts, each with a rate of its own, at least 88 % of the intervals hold the mean rate."""
    generator = np.random.default_rng(0)
    tokens, weights = np.full(60, 50.0), text_weights([str(n) for n in range(60)], draws=400)
    covered = 0
    for _ in range(200):
        flips = generator.binomial(50, generator.beta(1, 49, size=60)).astype(float)
        found = flip_interval(flips, tokens, weights)
        assert found is not None
        covered += found[0] <= 1 / 50 <= found[1]
    assert covered >= 176


@pytest.mark.parametrize("draws", [4, 9, 16])
def test_the_error_of_eu_is_what_other_draws_would_change(draws: int) -> None:
    """EU simulated as the variance of a noise-free 0 and `draws` noisy values, averaged over tokens."""
    generator = np.random.default_rng(1)
    texts, tokens, repeats = 200, 30, 60
    scale = generator.gamma(2, size=(texts, 1, 1))
    estimates, wholes = [], []
    for _ in range(repeats):
        noisy = scale * generator.normal(size=(texts, tokens, draws))

        def eu(values: Any) -> Any:
            return np.concatenate([np.zeros((*values.shape[:2], 1)), values], axis=2).var(axis=2).mean(axis=1)

        half = draws // 2
        wholes.append(eu(noisy))
        estimates.append(estimator_noise(np.stack([eu(noisy[..., :half]), eu(noisy[..., half : 2 * half])], axis=1))[0])
    whole = np.array(wholes)
    truth = math.sqrt(whole.var(axis=0, ddof=1).mean()) / whole.mean()
    assert np.mean([estimate for estimate in estimates if estimate]) == pytest.approx(truth, rel=0.15)


def row(sigma: float, rate: float, high: float = 0.0, count: int = 5) -> Row:
    return Row(sigma, count, 0, rate, (0.0, high), 0.0, 0.0, 0.0, 0.0, None, None)


def test_the_largest_sigma_below_the_first_above_is_recommended() -> None:
    rows = [row(0.01, 0.0), row(0.1, 0.009, 0.02), row(0.2, 0.05), row(0.4, 0.2)]
    choice = recommend(rows, 0.01)
    assert (choice.num_samples, choice.sigma) == (5, 0.1)
    assert choice.text == (
        "sigma 0.1, which flips 0.90 % of the tokens (at most 1 %); its interval reaches 2.00 %, so more texts could "
        "overturn it"
    )
    assert recommend(rows, 0.05).sigma == 0.2


def test_none_and_even_the_largest_are_said() -> None:
    assert recommend([row(0.1, 0.05), row(0.2, 0.3)], 0.01).sigma is None
    assert "none of these: even sigma 0.1 flips 5.00 %" in recommend([row(0.1, 0.05)], 0.01).text
    choice = recommend([row(0.1, 0.0), row(0.2, 0.01)], 0.01)
    assert choice.sigma == 0.2
    assert "even the largest one tried keeps to it" in choice.text


def test_a_larger_sigma_that_is_below_again_does_not_count() -> None:
    choice = recommend([row(0.1, 0.0), row(0.2, 0.02), row(0.4, 0.01)], 0.01)
    assert choice.sigma == 0.1
    assert "a larger sigma keeps to it again, which is chance" in choice.text


def test_the_next_sigma_lies_between() -> None:
    assert next_sigma([row(0.1, 0.0), row(0.4, 0.2)], 0.01) == 0.2
    assert next_sigma([row(0.1, 0.5), row(0.4, 0.2)], 0.01) == 0.05
    assert next_sigma([row(0.0, 0.0), row(0.4, 0.2)], 0.01) == 0.2
    assert next_sigma([row(0.1, 0.0), row(0.4, 0.0)], 0.01) is None
    assert next_sigma([row(0.1, 0.0), row(0.1001, 0.2)], 0.01) is None  # three digits leave nothing between


@given(
    st.lists(st.floats(1e-3, 10), min_size=1, max_size=6, unique=True).map(sorted),
    st.floats(1e-3, 10),
    st.integers(1, 12),
)
def test_bisection_comes_closer(sigmas: list[float], truth: float, steps: int) -> None:
    """Tokens flip from the true sigma on: what is recommended stays below it, and the gap only shrinks."""
    tried = sorted(sigmas)
    gaps = []
    for _ in range(steps):
        rows = [row(sigma, float(sigma > truth)) for sigma in tried]
        below = [sigma for sigma in tried if sigma <= truth]
        assert recommend(rows, 0.5).sigma == max(below, default=None)
        above = [sigma for sigma in tried if sigma > truth]
        gaps.append(min(above, default=math.inf) - max(below, default=0.0))
        following = next_sigma(rows, 0.5)
        if following is None:
            break
        assert following not in tried
        tried = sorted([*tried, following])
    assert gaps == sorted(gaps, reverse=True)
