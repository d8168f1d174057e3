"""Every metric of every score, per seed and over seeds, with bootstrap intervals."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesian_transformer.bootstrap import bootstrap_weights, interval, problem_places
from bayesian_transformer.metrics import Array, auroc, rank, ranking_metrics, stratified_auroc
from bayesian_transformer.scores import SCORES

from .detection import SeedRun
from .length import length_residual, length_strata, problem_folds
from .levels import NO_LEVEL, level_codes

Columns = dict[str, float]
COUNTS = ("total_samples", "correct_samples")  # columns of whole numbers
_ROWS_AT_ONCE = 64  # weightings; the arrays of all of them do not fit the processor's cache and take twice as long


@dataclass(frozen=True)
class Summary:
    """A column over the seeds. `std` is the sample standard deviation (ddof = 1), NaN for a single seed."""

    mean: float
    std: float
    minimum: float
    maximum: float
    seeds: int  # seeds on which it is defined
    low: float  # bootstrap interval of the mean over those seeds
    high: float
    undefined_draws: int  # bootstrap draws that were left out of the interval


@dataclass(frozen=True)
class Evaluation:
    """What the detection report shows."""

    runs: list[SeedRun]
    per_seed: dict[int, Columns]
    summary: dict[str, Summary]


def evaluate(runs: Sequence[SeedRun], draws: int, strata: int) -> Evaluation:
    """Metrics of all runs. `draws` bootstrap draws over problems, `strata` token-count strata."""
    problems, places = problem_places([run.ids for run in runs])
    weights, folds = bootstrap_weights(problems, draws), problem_folds(problems)
    values = {
        run.seed: seed_metrics(run, weights[:, place], strata, folds[place])
        for run, place in zip(runs, places, strict=True)
    }
    columns = next(iter(values.values()))
    return Evaluation(
        runs=list(runs),
        per_seed={seed: {name: float(array[0]) for name, array in row.items()} for seed, row in values.items()},
        summary={name: summarise(np.stack([row[name] for row in values.values()])) for name in columns},
    )


@dataclass(frozen=True)
class _Scored:
    """One score of the responses that have it; all arrays are [n]."""

    values: Array
    right: NDArray[np.bool_]
    residual: Array  # of the values, without a line in the token count; NaN if there is no line
    strata: NDArray[np.int64]  # of the token count
    levels: NDArray[np.int64]  # of the data set


def seed_metrics(
    run: SeedRun, weights: NDArray[np.integer[Any]], strata: int, folds: NDArray[np.int64]
) -> dict[str, Array]:
    """All columns of one seed, float64 [B], for the weightings [B, n]; see metrics.py. `folds` [n] are of problems."""
    size = weights.sum(axis=1)
    right = weights @ run.right.astype(np.int64)
    columns: dict[str, Array] = {
        "total_samples": size.astype(np.float64),
        "correct_samples": right.astype(np.float64),
        "overall_accuracy": np.divide(right, size, out=np.full(len(size), np.nan), where=size > 0),
    }
    levels = level_codes(run.levels)
    for score in SCORES:
        known = np.isfinite(run.scores[score.name])
        values, tokens = run.scores[score.name][known], run.tokens[known]
        residual = length_residual(values, tokens, folds[known])
        scored = _Scored(values, run.right[known], residual, length_strata(tokens, strata), levels[known])
        blocks = np.array_split(weights[:, known], math.ceil(len(weights) / _ROWS_AT_ONCE))
        parts = [_score_metrics(scored, rows) for rows in blocks]
        columns |= {f"{prefix}_{score.name}": np.concatenate([part[prefix] for part in parts]) for prefix in parts[0]}
    for score in SCORES:
        columns[f"auc_gain_{score.name}"] = columns[f"auc_{score.name}"] - columns["auc_length"]
    return columns


def _score_metrics(scored: _Scored, weights: NDArray[np.integer[Any]]) -> dict[str, Array]:
    """All metrics of one score, float64 [B], under the prefixes of their columns."""
    values, right, residual = scored.values, scored.right, scored.residual
    line, level = np.isfinite(residual), scored.levels != NO_LEVEL
    return {
        **ranking_metrics(rank(values, right, weights)),
        "auc_strata": stratified_auroc(values, right, scored.strata, weights),
        "auc_residual": auroc(rank(residual[line], right[line], weights[:, line])),
        "auc_level": stratified_auroc(values[level], right[level], scored.levels[level], weights[:, level]),
    }


def summarise(values: Array) -> Summary:
    """Summary of one column from its values [seeds, B]; seeds whose estimate is NaN are left out."""
    defined = values[~np.isnan(values[:, 0])]
    if not len(defined):
        return Summary(np.nan, np.nan, np.nan, np.nan, 0, np.nan, np.nan, 0)
    estimates, means = defined[:, 0], defined[:, 1:].mean(axis=0)
    low, high = interval(means)
    return Summary(
        mean=float(estimates.mean()),
        std=float(estimates.std(ddof=1)) if len(estimates) > 1 else np.nan,
        minimum=float(estimates.min()),
        maximum=float(estimates.max()),
        seeds=len(estimates),
        low=low,
        high=high,
        undefined_draws=int(np.isnan(means).sum()),
    )
