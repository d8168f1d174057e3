"""The pictures of the detection report. Figures are drawn without global state, so equal input gives equal files."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from bayesian_transformer.files import atomic_path
from bayesian_transformer.metrics import Array, Ranking, label_counts, rank
from bayesian_transformer.scores import LISTED, SCORE_BY_NAME

from .detection import SeedRun
from .evaluation import Evaluation

BLUE, ORANGE, GREEN, PURPLE, SKY, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#6B7280"
_COLORS = {"length": GREY, "sum": ORANGE, "mean": BLUE}  # by aggregation; the others are SKY
_PANELS = {
    "Sums over tokens": ("tu_sum", "au_sum", "eu_sum", "ll_sum", "confidence_sum"),
    "Means over tokens": ("tu_mean", "au_mean", "eu_mean", "ll_mean", "confidence_mean"),
}
_LINES = (BLUE, GREEN, ORANGE, PURPLE, SKY)
_MARKERS = (
    ("auc", "o", "", "plain"),
    ("auc_strata", "s", "white", "within length strata"),
    ("auc_residual", "D", "white", "residual of length"),
)
GRID = np.linspace(0, 1, 201)
_SCATTER = ("tu_sum", "eu_sum", "ll_sum", "tu_mean", "eu_mean", "ll_mean")

Curve = Callable[[Ranking], Array | None]


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG, atomically and without a date or a version in it."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150, metadata={"Software": None})


def save_plots(evaluation: Evaluation, folder: Path) -> dict[str, Path]:
    """Draw all pictures into `folder`; returns their paths by title, in the order in which they are shown."""
    figures = {
        "AUROC of the scores in the table, and with length controlled": ("auroc.png", auroc_figure(evaluation)),
        "ROC curves": (
            "roc.png",
            curve_figure(evaluation.runs, roc_curve, "False positive rate", "True positive rate"),
        ),
        "Risk against coverage": (
            "risk_coverage.png",
            curve_figure(evaluation.runs, risk_curve, "Coverage (share of answers kept)", "Error rate of kept answers"),
        ),
        "Score against response length": ("score_length.png", length_figure(evaluation.runs)),
    }
    paths = {}
    for title, (name, figure) in figures.items():
        paths[title] = folder / name
        save_figure(figure, paths[title])
    return paths


def clean_axes(axes: Axes) -> None:
    """No box, a light grid behind the data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#E5E7EB", linewidth=0.8)
    axes.set_axisbelow(True)


def auroc_figure(evaluation: Evaluation) -> Figure:
    """Estimate and interval for each score, next to both length-controlled values."""
    figure = Figure(figsize=(8.5, 7.2), layout="constrained")
    axes = figure.subplots()
    clean_axes(axes)
    axes.axvline(50, color="black", linewidth=0.8)
    axes.axvline(100 * evaluation.summary["auc_length"].mean, color=GREY, linestyle="--", linewidth=1)
    for row, score in enumerate(LISTED):
        color = _COLORS.get(score.aggregation.name, SKY)
        for offset, (prefix, marker, face, _) in zip((-0.22, 0.0, 0.22), _MARKERS, strict=True):
            summary = evaluation.summary[f"{prefix}_{score.name}"]
            place = row + offset
            axes.plot([100 * summary.low, 100 * summary.high], [place, place], color=color, linewidth=1.2)
            axes.plot(100 * summary.mean, place, marker, color=color, markerfacecolor=face or color, markersize=4.5)
    axes.set_yticks(range(len(LISTED)), [score.label for score in LISTED])
    axes.set_ylim(len(LISTED) - 0.4, -0.6)
    axes.set_xlabel("AUROC in %, with 95% bootstrap interval (dashed: token count alone)")
    for _, marker, face, text in _MARKERS:
        axes.plot([], [], marker, color="black", markerfacecolor=face or "black", markersize=4.5, label=text)
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    return figure


def curve_figure(runs: Sequence[SeedRun], curve: Curve, xlabel: str, ylabel: str) -> Figure:
    """Mean curve over the seeds on a common grid: sums on the left, means on the right, length in both."""
    figure = Figure(figsize=(10, 4.6), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, (title, names) in zip(panels, _PANELS.items(), strict=True):
        clean_axes(axes)
        if curve is roc_curve:
            axes.plot([0, 1], [0, 1], color="#9CA3AF", linewidth=0.8)
        drawn = 0
        for name, color in zip((*names, "length"), (*_LINES, GREY), strict=True):
            curves = [values for values in _curves(runs, name, curve) if values is not None]
            if curves:
                style = "--" if name == "length" else "-"
                axes.plot(
                    GRID, np.mean(curves, axis=0), style, color=color, linewidth=1.6, label=SCORE_BY_NAME[name].label
                )
                drawn += 1
        axes.set(title=title, xlabel=xlabel, xlim=(0, 1))
        if drawn:
            axes.legend(frameon=False, fontsize=9)
        else:
            axes.text(0.5, 0.5, "needs right and wrong answers", ha="center", transform=axes.transAxes, color=GREY)
    panels[0].set_ylabel(ylabel)
    return figure


def roc_curve(ranking: Ranking) -> Array | None:
    """True positive rate on the grid of false positive rates; None with one label. Ties give a straight segment."""
    positives, negatives = (float(count[0]) for count in label_counts(ranking))
    if not positives or not negatives:
        return None
    wrong = np.concatenate([[0.0], (ranking.total_until - ranking.right_until)[0]]) / negatives
    right = np.concatenate([[0.0], ranking.right_until[0]]) / positives
    curve = np.interp(GRID, wrong, right)
    curve[0] = 0.0  # np.interp takes the upper end of a vertical step, also the one at 0
    return curve


def risk_curve(ranking: Ranking) -> Array | None:
    """Expected error rate of the most confident share of the answers, on the grid; None without answers."""
    if not ranking.total.size:
        return None
    total = np.concatenate([[0.0], ranking.total_until[0]])
    kept = np.maximum(1.0, GRID * total[-1])
    return 1 - np.interp(kept, total, np.concatenate([[0.0], ranking.right_until[0]])) / kept


def length_figure(runs: Sequence[SeedRun]) -> Figure:
    """Score against token count, right and wrong answers of all seeds, with Spearman's rank correlation."""
    figure = Figure(figsize=(10, 6.2), layout="constrained")
    right = np.concatenate([run.right for run in runs])
    tokens = np.concatenate([run.tokens for run in runs])
    for axes, name in zip(figure.subplots(2, 3).flat, _SCATTER, strict=True):
        clean_axes(axes)
        score = SCORE_BY_NAME[name]
        values = score.sign * np.concatenate([run.scores[name] for run in runs])
        for label, color, text in ((False, ORANGE, "wrong"), (True, BLUE, "right")):
            chosen = right == label
            axes.plot(tokens[chosen], values[chosen], ".", color=color, alpha=0.55, markersize=4, label=text)
        axes.set_title(f"{score.label}   {_correlation(values, tokens)}", fontsize=10)
    axes.legend(frameon=False, markerscale=2)
    figure.supxlabel("Response length in tokens", fontsize=10)
    figure.supylabel("Sum or mean in nats, not negated", fontsize=10)
    return figure


def _curves(runs: Iterable[SeedRun], name: str, curve: Curve) -> Iterable[Array | None]:
    for run in runs:
        known = np.isfinite(run.scores[name])
        weights = np.ones((1, int(known.sum())), dtype=np.int32)
        yield curve(rank(run.scores[name][known], run.right[known], weights))


def _correlation(values: Array, tokens: Array) -> str:
    known = np.isfinite(values)
    if np.unique(values[known]).size < 2 or np.unique(tokens[known]).size < 2:
        return "(constant)"
    return f"ρ = {spearmanr(values[known], tokens[known]).statistic:.2f}"
