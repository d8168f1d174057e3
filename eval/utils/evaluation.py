"""Every metric of every score, per seed and over seeds, with bootstrap intervals."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesian_transformer.scores import SCORES

from .bootstrap import bootstrap_weights, interval
from .detection import SeedRun
from .length import length_metrics
from .metrics import Array, rank, ranking_metrics

Columns = dict[str, float]
COUNTS = ("total_samples", "correct_samples")  # columns of whole numbers


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
    problems = sorted({name for run in runs for name in run.ids})
    weights = bootstrap_weights(len(problems), draws)
    position = {name: column for column, name in enumerate(problems)}
    values = {run.seed: seed_metrics(run, weights[:, [position[name] for name in run.ids]], strata) for run in runs}
    columns = next(iter(values.values()))
    return Evaluation(
        runs=list(runs),
        per_seed={seed: {name: float(array[0]) for name, array in row.items()} for seed, row in values.items()},
        summary={name: summarise(np.stack([row[name] for row in values.values()])) for name in columns},
    )


def seed_metrics(run: SeedRun, weights: NDArray[np.integer[Any]], strata: int) -> dict[str, Array]:
    """All columns of one seed, float64 [B], for the weightings [B, n]; see metrics.py."""
    size = weights.sum(axis=1)
    right = weights @ run.right.astype(np.int64)
    columns: dict[str, Array] = {
        "total_samples": size.astype(np.float64),
        "correct_samples": right.astype(np.float64),
        "overall_accuracy": np.divide(right, size, out=np.full(len(size), np.nan), where=size > 0),
    }
    for score in SCORES:
        known = np.isfinite(run.scores[score.name])
        values, labels, rows = run.scores[score.name][known], run.right[known], weights[:, known]
        metrics = ranking_metrics(rank(values, labels, rows))
        metrics |= length_metrics(values, labels, run.tokens[known], strata, rows)
        columns |= {f"{prefix}_{score.name}": array for prefix, array in metrics.items()}
    for score in SCORES:
        columns[f"auc_gain_{score.name}"] = columns[f"auc_{score.name}"] - columns["auc_length"]
    return columns


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
