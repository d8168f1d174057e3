"""Can the scores decide? What the comparison found, as rows of tables and as sentences."""

import math
from dataclasses import dataclass

from bayesian_transformer.bootstrap import LEVEL
from bayesian_transformer.calibration import ENOUGH
from bayesian_transformer.scores import PRIMARY, SCORE_BY_NAME

from .comparison import BASE_RATE, LOSSES, P_CORRECT, RANKINGS, Comparison, Pair
from .evaluation import Summary

HEAD = ("AUROC", "within length strata", "within level", "Brier score", "log-loss", "ECE")
_WITHOUT_INTERVAL = ("ece",)  # noise only adds to it, so bootstrap draws lie above their sample


@dataclass(frozen=True)
class ComparedRow:
    """A line of the table; per metric a number and its interval, both as text, empty where there is none."""

    label: str
    cells: tuple[tuple[str, str], ...]  # in the order of HEAD
    is_difference: bool = False


def number(metric: str, summary: Summary, is_difference: bool = False) -> tuple[str, str]:
    """A metric and its interval as text: rankings in percent, the others as they are."""
    if math.isnan(summary.mean):
        return "", ""
    sign = "+" if is_difference else ""
    scale, form = (100, f"{sign}.1f") if metric in RANKINGS else (1, f"{sign}.4f")
    interval = f"[{format(scale * summary.low, form)}, {format(scale * summary.high, form)}]"
    hidden = metric in _WITHOUT_INTERVAL and not is_difference
    return format(scale * summary.mean, form), "" if hidden or math.isnan(summary.low) else interval


def compared_rows(comparison: Comparison) -> list[tuple[str, list[ComparedRow]]]:
    """The table under its headings: what noise adds to each base, and what P(correct) adds to each primary score."""
    return [
        ("What there is to beat", [_row(comparison, "the base rate for every answer", BASE_RATE, RANKINGS)]),
        *((f"Does noise add to the {pair.label}?", _pair_rows(comparison, pair)) for pair in comparison.pairs),
        ("P(correct) minus each primary score", [_over_row(comparison, name) for name in PRIMARY]),
    ]


def _pair_rows(comparison: Comparison, pair: Pair) -> list[ComparedRow]:
    with_noise = "P(correct): these and noisy scores" if pair.noisy == P_CORRECT else "with noisy scores"
    return [
        _row(comparison, f"{pair.label}, no noise", pair.base),
        _row(comparison, with_noise, pair.noisy),
        _row(comparison, "difference", f"gain_{pair.noisy}", is_difference=True),
    ]


def _row(
    comparison: Comparison, label: str, name: str, hidden: tuple[str, ...] = (), is_difference: bool = False
) -> ComparedRow:
    cells = [
        ("", "") if metric in hidden else number(metric, comparison.columns[f"{metric}_{name}"], is_difference)
        for metric in (*RANKINGS, *LOSSES)
    ]
    return ComparedRow(label, tuple(cells), is_difference)


def _over_row(comparison: Comparison, score: str) -> ComparedRow:
    cells = (number(metric, comparison.columns[f"{metric}_over_{score}"], True) for metric in RANKINGS)
    return ComparedRow(f"over {SCORE_BY_NAME[score].label}", (*cells, *[("", "")] * len(LOSSES)), True)


def decision_lines(comparison: Comparison | str) -> list[str]:
    """What a reader wants to know first: how good P(correct) is, what noise adds to it, and which answers to accept."""
    if isinstance(comparison, str):
        return [comparison]
    ranks, gain = comparison.columns[f"auc_{P_CORRECT}"], comparison.columns[f"auc_gain_{P_CORRECT}"]
    ece = comparison.columns[f"ece_{P_CORRECT}"].mean
    return [
        f"P(correct), cross-fitted from {len(comparison.features)} scores: AUROC {' '.join(number('auc', ranks))}, "
        f"calibration error {ece:.3f} ({comparison.ece_by_chance:.3f} by chance)",
        f"Noise adds {' '.join(number('auc', gain, True))} points of AUROC to {comparison.pairs[-1].label}: "
        f"{_verdict(gain)}",
        f"Accept? {comparison.acceptance}",
        *_few(comparison),
    ]


def _few(comparison: Comparison) -> list[str]:
    """The same warning as that of a calibrator."""
    problems, which = comparison.rarer
    if problems >= ENOUGH:
        return []
    return [
        f"Only {problems} problems have a {which} answer: with fewer than {ENOUGH} right and {ENOUGH} wrong ones "
        "P(correct) may be no better than the base rate"
    ]


def _verdict(gain: Summary) -> str:
    """The difference in words."""
    if gain.low > 0:
        return "it helps"
    return "it does not help" if gain.high < 0 else f"these data do not show that it helps ({LEVEL}% interval)"
