"""What a reader of the numbers must know: missing seeds, undecided grades, missing values, ties, a single label."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bayesian_transformer.quantities import QUANTITIES
from bayesian_transformer.results import SETTINGS
from bayesian_transformer.scores import LISTED

from .detection import SeedRun
from .evaluation import Evaluation

_FEW = 10  # of one label
_SHOWN = 10  # ids named in a sentence; all of them are in metadata.json


def evaluation_notes(evaluation: Evaluation, missing: Mapping[int, Path], window: int) -> list[str]:
    """One sentence per circumstance, in a fixed order."""
    notes = [f"seed {seed}: no results in {folder}; the seed is missing here" for seed, folder in missing.items()]
    if len(evaluation.runs) == 1:
        notes.append("one seed only: there is no standard deviation over seeds")
    everything = set().union(*(run.ids for run in evaluation.runs))
    notes += _setting_notes(evaluation.runs)
    seeds_of = defaultdict(list)
    for run in evaluation.runs:
        lacking = sorted(everything - set(run.ids))
        if lacking:
            seeds_of[f"lacks {len(lacking)} of {len(everything)} problems: {name_some(lacking)}"].append(run.seed)
        for note in _run_notes(run, window):
            seeds_of[note].append(run.seed)
    for note, seeds in seeds_of.items():
        notes.append(f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}: {note}")
    worst = max((summary.undefined_draws for summary in evaluation.summary.values()), default=0)
    if worst:
        notes.append(f"up to {worst} bootstrap draws held one label only and are left out of the intervals")
    return notes


def setting_values(runs: Sequence[SeedRun], key: str) -> list[Any]:
    """The different values of a setting in all responses; one if all is well."""
    return distinct(value for run in runs for value in run.made_with.get(key, ()))


def distinct(values: Iterable[Any]) -> list[Any]:
    """Each of the values once, in the order of their first occurrence; they need not be hashable."""
    found: list[Any] = []
    for value in values:
        if value not in found:
            found.append(value)
    return found


def not_comparable(key: str, values: Sequence[Any]) -> str:
    """The note on a setting that has several values."""
    return f"not comparable: the responses were made with different {key}: {', '.join(map(str, values))}"


def _setting_notes(runs: Sequence[SeedRun]) -> list[str]:
    """Settings that differ where they should not: between seeds, or between a folder and what lies in it."""
    notes = []
    for key in SETTINGS:
        values = setting_values(runs, key)
        if len(values) > 1 and key != "seed":
            notes.append(not_comparable(key, values))
    for run in runs:
        others = [str(value) for value in run.made_with["seed"] if value != run.seed]
        if others:
            notes.append(f"seed {run.seed}: its folder holds responses made with seed {', '.join(others)}")
    return notes


def name_some(ids: Sequence[str]) -> str:
    """The first few ids, and how many more there are."""
    more = f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else ""
    return ", ".join(ids[:_SHOWN]) + more


def missing_values(run: SeedRun) -> dict[str, list[str]]:
    """Question ids without a finite value, for each score that has such."""
    unknown = {score.name: np.flatnonzero(~np.isfinite(run.scores[score.name])) for score in LISTED}
    return {name: [run.ids[i] for i in rows] for name, rows in unknown.items() if rows.size}


def _run_notes(run: SeedRun, window: int) -> list[str]:
    size, right = len(run.ids), int(run.right.sum())
    notes = []
    if run.dataset_problems is not None and size < run.dataset_problems:
        notes.append(f"only {size} of the {run.dataset_problems} problems of the data set have a response")
    if right in (0, size):
        label = "right" if right else "wrong"
        notes.append(f"all {size} answers are {label}: AUROC, AUPRC and PRR need both labels and are NaN")
    rarer = min(right, size - right)
    if 0 < rarer < _FEW:
        label = "right" if right == rarer else "wrong"
        notes.append(f"only {rarer} of {size} answers are {label}: too few for rankings and intervals to mean much")
    if run.undecided:
        notes.append(
            f"{len(run.undecided)} of {size} answers could not be graded (undecided) and count as wrong: "
            + name_some(run.undecided)
        )
    if run.truncated.any():
        notes.append(f"{int(run.truncated.sum())} of {size} responses stopped at the token limit")
    empty = [name for name, tokens in zip(run.ids, run.tokens, strict=True) if tokens == 0]
    if empty:
        notes.append(f"{len(empty)} responses have no token (sums 0, means undefined): {name_some(empty)}")
    short = int((run.tokens < window).sum())
    if short:
        notes.append(
            f"{short} of {size} responses are shorter than the {window}-token window of confidence_lowest_group and "
            "confidence_bottom_groups"
        )
    unplaced = _number_without(run, "worst_step", "mean")
    if unplaced:
        notes.append(
            f"{unplaced} of {size} responses have no scores of steps: their records do not say where the tokens stand "
            "in the text (an earlier version wrote them, or the tokens do not spell it), or all of it is thinking"
        )
    unanswered = _number_without(run, "answer", "worst_step")
    if unanswered:
        notes.append(
            f"{unanswered} of {size} responses have no answer in the text that could be found, so the scores of the "
            "answer leave them out"
        )
    return notes + _missing_notes(run) + _tie_notes(run) + _level_notes(run)


def _number_without(run: SeedRun, lacking: str, known: str) -> int:
    """How many responses lack an aggregation of a quantity that has another one, so that its values are finite."""
    rows = [
        np.isfinite(run.scores[f"{quantity.prefix}_{known}"]) & np.isnan(run.scores[f"{quantity.prefix}_{lacking}"])
        for quantity in QUANTITIES
    ]
    return int(np.any(rows, axis=0).sum())


def _level_notes(run: SeedRun) -> list[str]:
    """Why AUROC within level is NaN, or leaves responses out."""
    lacking = [name for name, level in zip(run.ids, run.levels, strict=True) if level is None]
    found = {level for level in run.levels if level is not None}
    if not found:
        return ["no response has a level of its data set: AUROC within level is NaN"]
    if len(found) == 1:
        return [f"all responses that have a level have the same one, {found.pop()}: AUROC within level is NaN"]
    if lacking:
        return [f"{len(lacking)} of {len(run.ids)} have no level; within level leaves them out: {name_some(lacking)}"]
    return []


def _missing_notes(run: SeedRun) -> list[str]:
    scores_of = defaultdict(list)
    for name, ids in missing_values(run).items():
        scores_of[tuple(ids)].append(name)
    return [
        f"no finite value of {', '.join(names)} for {len(ids)} of {len(run.ids)} responses, which these scores "
        f"leave out: {name_some(ids)}"
        for ids, names in scores_of.items()
    ]


def _tie_notes(run: SeedRun) -> list[str]:
    constant, tied = [], []
    for score in LISTED:
        values = run.scores[score.name]
        values = values[np.isfinite(values)]
        _, counts = np.unique(values, return_counts=True)
        if values.size > 1 and counts.size == 1:
            constant.append(score.name)
        elif (counts > 1).any():
            tied.append(f"{score.name} {int(counts[counts > 1].sum())}")
    notes = []
    if constant:
        notes.append(f"all responses have the same {', '.join(constant)}, so it ranks nothing (AUROC 0.5)")
    if tied:
        notes.append(f"responses tied with another one (handled by expectation): {', '.join(tied)}")
    return notes
