"""The threshold of P(correct): each formula against brute force, and the promise itself in simulation."""

import re
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binom, binomtest

from bayesian_transformer.calibration import RiskThreshold, quantile_grid, threshold_for
from bayesian_transformer.calibration.risk import fewest_accepted, upper_bound

Array = NDArray[np.float64]
ALPHA, DELTA = 0.2, 0.1


def bound_by_bisection(wrong: int, accepted: int, delta: float) -> float:
    """The share of wrong ones at which at most `wrong` of `accepted` are seen with chance delta."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if binom.cdf(wrong, accepted, middle) > delta else (low, middle)
    return high


@pytest.mark.parametrize("delta", [0.01, 0.1, 0.5])
def test_the_bound_is_that_of_the_binomial(delta: float) -> None:
    for accepted in (1, 2, 7, 40, 300):
        for wrong in sorted({0, 1, accepted // 3, accepted - 1}):
            assert float(upper_bound(wrong, accepted, delta)) == pytest.approx(
                bound_by_bisection(wrong, accepted, delta), abs=1e-9
            )
        assert float(upper_bound(accepted, accepted, delta)) == 1
    assert upper_bound([0, 3], [0, 3], delta).tolist() == [1, 1]
    assert upper_bound([0], [10], 0.1)[0] == pytest.approx(1 - 0.1**0.1)  # without a wrong one: (1 - x)^n = delta


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.2, 0.5])
def test_the_fewest_answers_for_a_verdict(alpha: float) -> None:
    for wrong in range(4):
        count = wrong + 1
        while binomtest(wrong, count, alpha, alternative="less").pvalue > DELTA:
            count += 1
        assert fewest_accepted(wrong, alpha, DELTA) == count
    assert fewest_accepted(0, 0.05, 0.1) == 45  # log 0.1 / log 0.95 = 44.9


def by_brute_force(p: Array, right: NDArray[np.bool_], grid: tuple[float, ...]) -> float | None:
    """The last threshold before the first one whose accepted answers do not pass a binomial test."""
    found = None
    for threshold in sorted(grid, reverse=True):
        accepted = [bool(verdict) for value, verdict in zip(p, right, strict=True) if value >= threshold]
        wrong = accepted.count(False)
        if not accepted or binomtest(wrong, len(accepted), ALPHA, alternative="less").pvalue > DELTA:
            break
        found = threshold
    return found


@given(st.integers(0, 10_000), st.integers(1, 200), st.sampled_from([1, 3, 1000]), st.booleans())
def test_the_threshold_is_that_of_brute_force(seed: int, count: int, values: int, own_grid: bool) -> None:
    generator = np.random.default_rng(seed)
    p = np.ceil(generator.random(count) ** 0.3 * values) / values
    p[generator.random(count) < 0.05] = np.nan
    right = generator.random(count) < np.nan_to_num(p)
    grid = (0.95, 0.5, 0.8) if own_grid else quantile_grid(p, ALPHA, DELTA)
    found = threshold_for(p, right, ALPHA, DELTA, grid if own_grid else None)
    assert found.threshold == by_brute_force(p, right, grid)
    assert (found.reason == "") == (found.threshold is not None)
    if found.threshold is not None:
        inside = p >= found.threshold
        assert found.accepted == inside.sum()
        assert found.wrong == (inside & ~right).sum()
        assert found.coverage == found.accepted / count
        assert found.risk_bound <= ALPHA
        interval = binomtest(found.accepted, count).proportion_ci(0.95, "exact")
        assert (found.coverage_low, found.coverage_high) == pytest.approx((interval.low, interval.high), abs=1e-9)


@given(st.lists(st.sampled_from([0.1, 0.4, 0.4000001, 0.9, np.nan]), max_size=150))
def test_the_default_grid(p: list[float]) -> None:
    """Falls, is made of the predictions, starts where a verdict is possible and ends where all are accepted."""
    grid = quantile_grid(p, ALPHA, DELTA)
    finite = sorted((value for value in p if value == value), reverse=True)
    assert list(grid) == sorted(set(grid), reverse=True)
    assert set(grid) <= set(finite)
    assert bool(grid) == (len(finite) >= fewest_accepted(0, ALPHA, DELTA))
    if grid:
        assert grid[-1] == finite[-1]
        starts = [fewest_accepted(wrong, ALPHA, DELTA) for wrong in (2, 1, 0)]
        assert grid[0] == finite[next(start for start in starts if start <= len(finite)) - 1]
    assert len(quantile_grid(np.linspace(0, 1, 1000), ALPHA, DELTA)) == 20


def calibrated(p: Array) -> Array:
    return 1 - p


def over_confident(p: Array) -> Array:
    """The tenth that looks best is always wrong, the rest seldom; more than ALPHA is wrong above any line."""
    return np.where(p > 0.9, 1.0, 0.115)


def turned(p: Array) -> Array:
    return 0.1 + 0.25 * p


def in_waves(p: Array) -> Array:
    """The share of wrong ones above a threshold goes over ALPHA and back more than once."""
    return np.where((p * 8).astype(int) % 2 == 0, 0.45, 0.0)


def step(p: Array) -> Array:
    return np.where(p > 0.5, 0.19, 0.6)


def barely(p: Array) -> Array:
    return np.full_like(p, ALPHA + 0.001)


def one_value(p: Array) -> Array:
    return np.full_like(p, 0.5)


def few_values(p: Array) -> Array:
    return np.ceil(p * 4) / 4


def mostly_tied(p: Array) -> Array:
    return np.where(p < 0.6, 0.6, p)


def unchanged(p: Array) -> Array:
    return p


SPREADS = [unchanged, one_value, few_values, mostly_tied]
TRUTHS = [calibrated, over_confident, turned, in_waves, step, barely]


@pytest.mark.parametrize("truth", TRUTHS)
@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("grid", [None, (0.85, 0.6, 0.4, 0.2, 0.0)])
def test_the_promise_holds(
    truth: Callable[[Array], Array], spread: Callable[[Array], Array], grid: tuple[float, ...] | None
) -> None:
    """In 1,000 sets of 200 labelled answers, at most a share DELTA of the thresholds accept more than ALPHA wrong ones.

    What a threshold really accepts is known from the truth at 100,000 points. Ties fall together before P is used, so
    the truth of a value is the mean over what fell together.
    """
    points = (np.arange(100_000) + 0.5) / 100_000
    shown, wrong = spread(points), truth(points)
    order = np.argsort(-shown, kind="stable")
    falling, share_above = -shown[order], wrong[order].cumsum() / np.arange(1, points.size + 1)
    generator = np.random.default_rng(7)
    broken = 0
    for _ in range(1000):
        drawn = generator.integers(0, points.size, size=200)
        right = generator.random(200) >= wrong[drawn]
        found = threshold_for(shown[drawn], right, ALPHA, DELTA, grid)
        if found.threshold is not None:
            above = int(np.searchsorted(falling, -found.threshold, side="right"))
            broken += bool(above and share_above[above - 1] > ALPHA)
    assert broken <= 1000 * DELTA


def test_the_simulation_notices_a_broken_promise() -> None:
    """The lowest threshold with at most ALPHA wrong *here* is the mistake that the bound is there against."""
    generator = np.random.default_rng(7)
    broken = 0
    for _ in range(1000):
        p = generator.random(200)
        wrong = generator.random(200) < turned(p)
        kept = [t for t in quantile_grid(p, ALPHA, DELTA) if wrong[p >= t].mean() <= ALPHA]
        broken += bool(kept and 0.1 + 0.25 * (1 + min(kept)) / 2 > ALPHA)
    assert broken > 2000 * DELTA


def test_the_promise_is_worth_something() -> None:
    """Calibrated P of 1,000 answers: above 0.6 its mean is 0.8, so the best threshold accepts 40 %."""
    generator = np.random.default_rng(8)
    coverage = []
    for _ in range(50):
        p = generator.random(1000)
        found = threshold_for(p, generator.random(1000) < p, ALPHA, DELTA)
        coverage.append(0.0 if found.threshold is None else found.coverage)
    assert coverage.count(0) <= 5
    assert 0.3 < np.mean(coverage) < 0.4


def test_why_not_reachable() -> None:
    p = np.linspace(0, 1, 10)
    assert threshold_for(p, p > 0, 0.05).reason == (
        "the strictest threshold accepts 0 of 10 answers; even without a wrong one among them 45 are needed to show at "
        "most 0.05 (confidence 0.9)"
    )
    p, right = np.linspace(0, 1, 200), np.arange(200) % 3 > 0
    found = threshold_for(p, right, 0.05)
    assert found.threshold is None
    assert "with more labelled answers a stricter threshold could be tried" in found.reason
    right = np.arange(200) % 20 > 0  # one in twenty is wrong
    found = threshold_for(p, right, 0.06, grid=[0.0])
    needed, labelled = map(int, re.findall(r"error rate (\d+) accepted .* about (\d+) labelled", found.reason)[0])
    assert (found.accepted, found.wrong) == (200, 10)
    assert labelled == needed
    assert (
        float(upper_bound(0.05 * needed, needed, 0.1))
        <= 0.06
        < float(upper_bound(0.05 * (needed - 1), needed - 1, 0.1))
    )
    assert str(found) == f"not reachable with these data: {found.reason}"
    assert threshold_for([], [], 0.1).threshold is None


def test_a_grid_that_starts_too_high_ends_there() -> None:
    """Going on would let the responses decide which thresholds count."""
    p, right = np.linspace(0, 1, 200), np.ones(200)
    assert threshold_for(p, right, 0.2, grid=[0.5, 0.0]).threshold == 0
    found = threshold_for(p, right, 0.2, grid=[0.999, 0.5, 0.0])
    assert found.threshold is None
    assert found.reason.startswith("the strictest threshold accepts 1 of 200 answers")


def test_what_is_said_of_a_threshold() -> None:
    p = np.linspace(0, 1, 200)
    found = threshold_for(p, p > 0.3, 0.1)
    assert re.fullmatch(
        r"accept P\(correct\) >= 0\.\d+: at most 0\.1 of the accepted are wrong \(confidence 0\.9\); accepts \d\d\.\d% "
        r"\[\d\d\.\d%, \d\d\.\d%\], here \d+ of 200, \d+ of them wrong",
        str(found),
    )
    assert found == RiskThreshold(**vars(found))


def test_responses_without_a_probability_are_not_accepted() -> None:
    p = np.where(np.arange(400) < 200, np.nan, 0.9)
    found = threshold_for(p, np.ones(400), 0.1)
    assert (found.accepted, found.coverage) == (200, 0.5)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"alpha": 0}, r"^alpha must be between 0 and 1; got 0$"),
        ({"alpha": 1.0}, r"^alpha must be between 0 and 1; got 1\.0$"),
        ({"alpha": float("nan")}, r"^alpha must be between 0 and 1; got nan$"),
        ({"delta": 2}, r"^delta must be between 0 and 1; got 2$"),
        ({"right": [1, 0]}, r"^'right' must say true or false for each of the 3 responses$"),
        ({"p_correct": [[0.5]]}, r"^p_correct must have one value per response; its shape is \[1, 1\]$"),
        ({"grid": [float("nan")]}, r"^the thresholds to be tried must be finite numbers$"),
        (
            {"groups": ["a", "b", "a"]},
            r"^3 responses to 2 problems: responses to one problem are alike.*keep one of ea",
        ),
    ],
)
def test_refusals(change: dict[str, object], says: str) -> None:
    given = {"p_correct": [0.5, 0.6, 0.7], "right": [1, 0, 1], "alpha": 0.1} | change
    with pytest.raises(ValueError, match=says):
        threshold_for(**given)  # type: ignore[arg-type]
