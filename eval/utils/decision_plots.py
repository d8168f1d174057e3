"""The picture of the decision: is P(correct) what it says, and how many wrong answers are among those kept?"""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from bayesian_transformer.bootstrap import bootstrap_weights, interval, problem_places
from bayesian_transformer.metrics import Array, rank
from bayesian_transformer.scores import PRIMARY, SCORE_BY_NAME

from .comparison import Comparison
from .detection import SeedRun
from .plots import BLUE, GREEN, GREY, GRID, ORANGE, PURPLE, SKY, clean_axes, risk_curve
from .probability import equal_mass_bins

_BAND_DRAWS = 200
_OTHERS = (ORANGE, GREEN, PURPLE, SKY, GREY)


def decision_figure(runs: Sequence[SeedRun], comparison: Comparison) -> Figure:
    """Reliability diagram on the left, risk against coverage on the right, both over all seeds."""
    figure = Figure(figsize=(10, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes in (left, right):
        clean_axes(axes)
    _reliability(left, runs, comparison)
    _risk_coverage(right, runs, comparison)
    return figure


def _reliability(axes: Axes, runs: Sequence[SeedRun], comparison: Comparison) -> None:
    """Per bin of equal mass the share of right answers against the mean P(correct), with bootstrap intervals."""
    problems, places = problem_places([run.ids for run in runs])
    weights = bootstrap_weights(problems, _BAND_DRAWS)[:, np.concatenate(places)]
    p = np.concatenate([comparison.p_correct[run.seed] for run in runs])
    right = np.concatenate([run.right for run in runs])
    known = np.isfinite(p)
    p, right, weights = p[known], right[known], weights[:, known]
    bins = equal_mass_bins(p)
    axes.plot([0, 1], [0, 1], color="#9CA3AF", linewidth=0.8)
    for each in np.unique(bins):
        inside = bins == each
        shares = _shares(weights[:, inside], right[inside])
        middle, (low, high) = p[inside].mean(), interval(shares[1:])
        axes.plot([middle, middle], [low, high], color=BLUE, linewidth=1.4)
        axes.plot(middle, shares[0], "o", color=BLUE, markersize=5)
    axes.plot(p, np.full(p.size, -0.025), "|", color=GREY, alpha=0.15, markersize=6)  # where the answers are
    axes.set(title="Is P(correct) what it says?", xlabel="P(correct), cross-fitted", ylabel="Share of right answers")
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.05, 1.02))


def _shares(weights: NDArray[np.integer], right: NDArray[np.bool_]) -> Array:
    total = weights.sum(axis=1)
    return np.divide(weights @ right, total, out=np.full(len(total), np.nan), where=total > 0)


def _risk_coverage(axes: Axes, runs: Sequence[SeedRun], comparison: Comparison) -> None:
    curves = np.stack([_risks(run, comparison.p_correct[run.seed], _BAND_DRAWS) for run in runs]).mean(axis=0)
    low, high = np.nanpercentile(curves[1:], [2.5, 97.5], axis=0)
    axes.fill_between(GRID, low, high, color=BLUE, alpha=0.15, linewidth=0)
    axes.plot(GRID, curves[0], color=BLUE, linewidth=2, label="P(correct), with 95% band")
    for name, color in zip(PRIMARY, _OTHERS, strict=True):
        others = np.stack([_risks(run, run.scores[name], 0)[0] for run in runs])
        axes.plot(GRID, others.mean(axis=0), color=color, linewidth=1, label=SCORE_BY_NAME[name].label)
    accepted = comparison.acceptance
    axes.axhline(accepted.alpha, color="black", linewidth=0.8, linestyle=":")
    if accepted.threshold is None:
        axes.set_title(f"Accepted at a risk of {accepted.alpha:.0%}: none", fontsize=11)
    else:
        axes.plot(accepted.coverage, accepted.wrong / accepted.accepted, "*", color="black", markersize=13)
        axes.set_title(f"Accepted at a risk of {accepted.alpha:.0%}: {accepted.coverage:.0%} (star)", fontsize=11)
    axes.set(xlabel="Coverage (share of answers kept)", ylabel="Share of wrong answers among them", xlim=(0, 1))
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=8)


def _risks(run: SeedRun, values: Array, draws: int) -> Array:
    """Risk on GRID, [1 + draws, len(GRID)]; NaN without answers."""
    known = np.isfinite(values)
    problems, (place,) = problem_places([run.ids])
    weights = bootstrap_weights(problems, draws)[:, place][:, known]
    curves = [risk_curve(rank(values[known], run.right[known], row[None])) for row in weights]
    return np.stack([np.full(GRID.size, np.nan) if curve is None else curve for curve in curves])
