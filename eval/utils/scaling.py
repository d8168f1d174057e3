"""Accuracy against the number of responses, over all problems: table, picture and what must be said about them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from bayesian_transformer.metrics import Array
from bayesian_transformer.results import SETTINGS
from bayesian_transformer.scores import SAMPLED_SCORES, SCORE_BY_NAME, Score

from .notes import distinct, name_some, not_comparable
from .plots import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, clean_axes
from .responses import NO_ANSWER, Problem
from .voting import METHODS, UNFILTERED, problem_accuracy

SMALLEST = 16
MODES = ("all", *METHODS[:4])
_MODE_METHODS = {"all": METHODS, "pass": ("pass", "pass_expected")}
_RED, _YELLOW, _VIOLET, _BROWN = "#B91C1C", "#E69F00", "#8B5CF6", "#A16207"
# A color per quantity; means are solid, sums and the token count dashed, which shows what length adds.
_COLORS = {
    "total": BLUE,
    "aleatoric": GREEN,
    "epistemic": ORANGE,
    "implicit_reward": _VIOLET,
    "logprob": PURPLE,
    "entropy": _YELLOW,
    "self_certainty": _RED,
    "confidence": SKY,
}
_NAMES = (UNFILTERED, *(score.name for score in SAMPLED_SCORES))
_TITLES = {"majority": "Majority vote", "weighted": "Weighted vote", "best_of_n": "Best of N"}


@dataclass(frozen=True)
class ScalingRow:
    """One line of the summary. `accuracy_std` is over the repeats (ddof = 1), NaN for a single one.

    `standard_error` is that of the mean over problems, NaN for a single problem: how far another set of problems of
    this size would typically be off.
    """

    method: str
    score: str  # the published name, where there is one; `name` says which score it is
    n: int
    p_val: float
    accuracy_mean: float
    accuracy_std: float
    standard_error: float
    repeats: int
    problems: int
    short_problems: int  # problems with fewer than n responses, which count with all they have
    name: str  # of the score


def sizes(stored: int) -> list[int]:
    """Powers of two from SMALLEST (from 1, if no more are stored) up to `stored`, and `stored` itself."""
    first = SMALLEST if stored > SMALLEST else 1
    powers = [first << k for k in range(stored.bit_length()) if first << k < stored]
    return [*powers, stored]


def known_scores(problems: Sequence[Problem]) -> list[str]:
    """The names of the scores with a value in at least one response."""
    return [s.name for row, s in enumerate(SAMPLED_SCORES) if any(np.isfinite(p.values[row]).any() for p in problems)]


def scaling_rows(
    problems: Sequence[Problem], seed: int, p_val: float, repeats: int, mode: str, progress: Any
) -> list[ScalingRow]:
    """The summary: every size, method of `mode` and score. `progress` wraps an iterable, as tqdm does."""
    stored = max(problem.answers.size for problem in problems)
    chosen = {UNFILTERED, *known_scores(problems)}
    rows = []
    for size in progress(sizes(stored)):
        count = 1 if size == stored else repeats
        accuracies = [problem_accuracy(problem, seed, size, count, p_val) for problem in problems]
        short = sum(problem.answers.size < size for problem in problems)
        for method, name in accuracies[0]:
            if name in chosen and method in _MODE_METHODS.get(mode, (mode,)):
                table = np.stack([accuracy[method, name] for accuracy in accuracies])
                rows.append(_row(table, method, name, size, p_val, short))
    return sorted(rows, key=lambda row: (METHODS.index(row.method), _NAMES.index(row.name), row.n))


def _row(table: Array, method: str, name: str, size: int, p_val: float, short: int) -> ScalingRow:
    """Summary of accuracies [problems, repeats]."""
    problems, repeats = table.shape
    per_subset, per_problem = table.mean(axis=0), table.mean(axis=1)
    return ScalingRow(
        method=method,
        score=name if name == UNFILTERED else SCORE_BY_NAME[name].scaling_name,
        n=size,
        p_val=p_val,
        accuracy_mean=float(table.mean()),
        accuracy_std=float(per_subset.std(ddof=1)) if repeats > 1 else np.nan,
        standard_error=float(per_problem.std(ddof=1) / np.sqrt(problems)) if problems > 1 else np.nan,
        repeats=repeats,
        problems=problems,
        short_problems=short,
        name=name,
    )


def settings_found(problems: Sequence[Problem]) -> dict[str, list[Any]]:
    """The different values of each setting; one if all is well, None where a file does not say."""
    return {key: distinct(problem.made_with.get(key) for problem in problems) for key in SETTINGS}


def scaling_notes(problems: Sequence[Problem]) -> list[str]:
    """What a reader of the summary must know."""
    stored = max(problem.answers.size for problem in problems)
    total = sum(problem.answers.size for problem in problems)
    notes = [not_comparable(key, values) for key, values in settings_found(problems).items() if len(values) > 1]
    undecided = {problem.question_id: problem.undecided for problem in problems if problem.undecided}
    if undecided:
        notes.append(
            f"{sum(undecided.values())} of {total} responses could not be graded (undecided) and count as wrong, in "
            f"problems {name_some(list(undecided))}"
        )
    silent = sum(int((problem.answers == NO_ANSWER).sum()) for problem in problems)
    if silent:
        notes.append(f"{silent} of {total} responses give no answer: wrong, and without a vote")
    short = [problem.question_id for problem in problems if problem.answers.size < stored]
    if short:
        notes.append(f"{len(short)} problems have fewer than {stored} responses: {name_some(short)}")
    mixed = [problem.question_id for problem in problems if problem.mixed_classes]
    if mixed:
        notes.append(
            "answers that are one for the vote but not for the grader count by their most frequent grade, in problems "
            + name_some(mixed)
        )
    known = known_scores(problems)
    absent = [score.name for score in SAMPLED_SCORES if score.name not in known]
    if absent:
        notes.append(f"not stored in the results, so not evaluated: {', '.join(absent)}")
    for row, score in enumerate(SAMPLED_SCORES):
        lacking = sum(int(np.isnan(problem.values[row]).sum()) for problem in problems)
        if score.name in known and lacking:
            notes.append(f"{lacking} of {total} responses have no value of {score.name} and rank last by it")
    return notes


def scaling_table(rows: Iterable[ScalingRow]) -> str:
    """Accuracy in percent, methods and scores down, N across."""
    rows = list(rows)
    across = sorted({row.n for row in rows})
    cells = {(row.method, row.name, row.n): row for row in rows}
    width = max(map(len, _NAMES)) + 2
    lines = ["".join(["method".ljust(15), "score".ljust(width), *(f"N = {n}".rjust(15) for n in across)])]
    lines.append("-" * len(lines[0]))
    for method, name in dict.fromkeys((row.method, row.name) for row in rows):
        accuracies = [_cell(cells[method, name, n]).rjust(15) for n in across]
        lines.append("".join([method.ljust(15), name.ljust(width), *accuracies]))
    return "\n".join(lines)


def _cell(row: ScalingRow) -> str:
    deviation = "" if np.isnan(row.accuracy_std) else f" ±{100 * row.accuracy_std:.2f}"
    return f"{100 * row.accuracy_mean:.2f}{deviation}"


def scaling_figure(rows: Sequence[ScalingRow], title: str) -> Figure:
    """Accuracy against N, one panel per kind of choice, with the ceiling and both baselines in each."""
    methods = [method for method in _TITLES if any(row.method == method for row in rows)]
    panels = methods or ["pass"]
    figure = Figure(figsize=(1.6 + 4.0 * len(panels), 4.6), layout="constrained")
    scores = [score for score in SAMPLED_SCORES if any(row.name == score.name for row in rows)]
    labelled: dict[str, Any] = {}
    for axes, method in zip(figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels, strict=True):
        clean_axes(axes)
        lines = [("pass", UNFILTERED, "pass@N (ceiling)", "black", ":")]
        lines += [("majority", UNFILTERED, "majority of all", "black", "-")]
        lines += [("single", UNFILTERED, "single response", GREY, ":")]
        if method in _TITLES:
            lines += [(method, score.name, score.label, *_style(score)) for score in scores]
        for kind, name, label, color, style in lines:
            chosen = [row for row in rows if (row.method, row.name) == (kind, name)]
            if chosen:
                means = np.array([100 * row.accuracy_mean for row in chosen])
                band = np.nan_to_num([100 * row.accuracy_std for row in chosen])
                across = [row.n for row in chosen]
                (labelled[label],) = axes.plot(across, means, style, color=color, marker="o", markersize=3.5)
                if name == UNFILTERED:  # a band for each of the scores would hide the others
                    axes.fill_between(across, means - band, means + band, color=color, alpha=0.1, linewidth=0)
        across = sorted({row.n for row in rows})
        axes.set_xscale("log", base=2)
        axes.set_xticks(across, [str(n) for n in across])
        axes.minorticks_off()
        axes.set(title=_TITLES.get(method, "pass@N"), xlabel="Responses N")
        axes.set_ylabel("Accuracy in %" if method == panels[0] else "")
    figure.suptitle(f"{title}\n(dashed: sums over tokens; bands: one standard deviation over repeats)", fontsize=11)
    figure.legend(labelled.values(), labelled.keys(), loc="outside right upper", frameon=False, fontsize=9)
    return figure


def _style(score: Score) -> tuple[str, str]:
    """Color and line of a score."""
    color = _BROWN if score.quantity is None else _COLORS[score.quantity.name]
    return color, "-" if score.aggregation.name == "mean" else "--"
