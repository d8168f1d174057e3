"""What scores add to each other: models of P(correct) with and without some of them, on problems they have not seen.

Each model is a logistic regression on a few scores, cross-fitted by problem (`bayesian_transformer.calibration`). Three
pairs ask whether the noisy weight samples add anything: to the token count, to the mean log-likelihood, and to all that
needs no noise. A difference is paired: both models judge the same responses, and a bootstrap draw weighs them alike.
The draws keep the fitted models, so the intervals are those of the problems that are judged, not of the fit. How the
problems are dealt into folds moves a metric as well; so it is the mean over several ways to deal them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesian_transformer.bootstrap import bootstrap_weights, problem_places
from bayesian_transformer.calibration import (
    NOISY,
    CrossFit,
    RiskThreshold,
    cross_fit,
    declared_scores,
    rarer_class,
    threshold_for,
)
from bayesian_transformer.metrics import Array, auroc, rank, ranking_metrics, stratified_auroc
from bayesian_transformer.scores import PRIMARY

from .detection import SeedRun
from .evaluation import Summary, summarise
from .length import DEFAULT_STRATA, length_strata
from .levels import NO_LEVEL, level_codes
from .probability import brier, calibration_error, equal_mass_bins, error_by_chance, negative_log_likelihood

P_CORRECT = "p_correct"
BASE_RATE = "base_rate"  # a model that says the same of every answer
PARTITIONS = 5  # ways to deal the problems into folds, over which all metrics are averaged
RANKINGS = ("auc", "auc_strata", "auc_level")
LOSSES = ("brier", "log_loss", "ece")  # smaller is better


@dataclass(frozen=True)
class Pair:
    """A model of P(correct) without the noisy scores, and the same with them."""

    base: str  # names in the CSV file
    noisy: str
    label: str  # of the base, for people
    features: tuple[str, ...]  # of the base


@dataclass(frozen=True)
class Comparison:
    """What the report says about P(correct)."""

    pairs: tuple[Pair, ...]
    rarer: tuple[int, str]  # problems with an answer of the rarer class, and which that is
    p_correct: dict[int, Array]  # by seed, of each response: cross-fitted; NaN without a value of each score
    columns: dict[str, Summary]  # metric_model; metric_gain_model over its base; metric_over_score of P(correct)
    ece_by_chance: float  # mean over seeds
    acceptance: RiskThreshold  # on the first seed: one answer per problem

    @property
    def features(self) -> tuple[str, ...]:
        """The scores that P(correct) is made of."""
        return (*self.pairs[-1].features, *NOISY)


def pairs_for(rarer: int) -> tuple[Pair, ...]:
    """The three pairs. With how many scores the last one computes depends on the labels, see `declared_scores`."""
    noise_free = tuple(name for name in declared_scores(rarer) if name not in NOISY)
    return (
        Pair("model_length", "model_length_noise", "token count", ("length",)),
        Pair("model_ll", "model_ll_noise", "mean log-likelihood", ("ll_mean",)),
        Pair("model_noise_free", P_CORRECT, f"{len(noise_free)} noise-free scores", noise_free),
    )


def compare(
    runs: Sequence[SeedRun], draws: int, alpha: float, delta: float, strata: int = DEFAULT_STRATA
) -> Comparison | str:
    """Compare the models on all runs; in one line why not, if that cannot be done."""
    problems, places = problem_places([run.ids for run in runs])
    weights = bootstrap_weights(problems, draws)
    rarer = min(rarer_class(run.right, run.ids) for run in runs)
    pairs = pairs_for(rarer[0])
    found: dict[int, Array] = {}
    tables, chance = [], []
    try:
        for run, place in zip(runs, places, strict=True):
            dealt = [_fitted(run, pairs, partition) for partition in range(PARTITIONS)]
            found[run.seed] = dealt[0][P_CORRECT]
            columns = [_seed_columns(run, fitted, weights[:, place], strata, pairs) for fitted in dealt]
            tables.append({name: np.mean([each[name] for each in columns], axis=0) for name in columns[0]})
            known = found[run.seed][np.isfinite(found[run.seed])]
            chance.append(error_by_chance(known, equal_mass_bins(known)))
        acceptance = threshold_for(found[runs[0].seed], runs[0].right, alpha, delta)
    except ValueError as error:
        return f"P(correct) was not fitted: {error}"
    summaries = {name: summarise(np.stack([table[name] for table in tables])) for name in tables[0]}
    return Comparison(pairs, rarer, found, summaries, float(np.mean(chance)), acceptance)


def _fitted(run: SeedRun, pairs: Sequence[Pair], partition: int) -> dict[str, Array]:
    """Cross-fitted P(correct) [n] by the name of its model."""

    def crossed(features: tuple[str, ...]) -> CrossFit:
        return cross_fit(run.scores, run.right, run.ids, features, partition=partition)

    bases = {pair.base: crossed(pair.features).p_correct for pair in pairs}
    noisy = {pair.noisy: crossed((*pair.features, *NOISY)) for pair in pairs}
    return bases | {name: fit.p_correct for name, fit in noisy.items()} | {BASE_RATE: noisy[P_CORRECT].base_rate}


def _seed_columns(
    run: SeedRun, fitted: dict[str, Array], weights: NDArray[np.integer[Any]], strata: int, pairs: Sequence[Pair]
) -> dict[str, Array]:
    """All columns of one seed, float64 [B], on the responses that every model has judged.

    A model of one score is ranked by the score itself: P from several fits would only add their differences.
    """
    known = np.isfinite(np.stack(list(fitted.values()))).all(axis=0)
    judged = _Judged(
        run.right[known], length_strata(run.tokens[known], strata), level_codes(run.levels)[known], weights[:, known]
    )
    ranked = {**fitted, **{pair.base: run.scores[pair.features[0]] for pair in pairs if len(pair.features) == 1}}
    tables = {name: judged.rankings(ranked[name][known]) | judged.losses(p[known]) for name, p in fitted.items()}
    tables[P_CORRECT] |= ranking_metrics(rank(fitted[P_CORRECT][known], judged.right, judged.weights))
    columns = {f"{metric}_{name}": array for name, table in tables.items() for metric, array in table.items()}
    for pair in pairs:
        for metric in (*RANKINGS, *LOSSES):
            columns[f"{metric}_gain_{pair.noisy}"] = tables[pair.noisy][metric] - tables[pair.base][metric]
    for score in PRIMARY:
        for metric, array in judged.rankings(run.scores[score][known]).items():
            columns[f"{metric}_over_{score}"] = tables[P_CORRECT][metric] - array
    return columns


@dataclass(frozen=True)
class _Judged:
    """Responses with everything but what they are ranked by; arrays [n], weights [B, n]."""

    right: NDArray[np.bool_]
    strata: NDArray[np.int64]  # of the token count
    levels: NDArray[np.int64]  # of the data set
    weights: NDArray[np.integer[Any]]

    def rankings(self, values: Array) -> dict[str, Array]:
        """RANKINGS of the values [n], of which those that are NaN are left out."""
        known = np.isfinite(values)
        level = known & (self.levels != NO_LEVEL)

        def within(groups: NDArray[np.int64], rows: NDArray[np.bool_]) -> Array:
            return stratified_auroc(values[rows], self.right[rows], groups[rows], self.weights[:, rows])

        return {
            "auc": auroc(rank(values[known], self.right[known], self.weights[:, known])),
            "auc_strata": within(self.strata, known),
            "auc_level": within(self.levels, level),
        }

    def losses(self, p: Array) -> dict[str, Array]:
        """LOSSES of probabilities [n]."""
        return {
            "brier": brier(p, self.right, self.weights),
            "log_loss": negative_log_likelihood(p, self.right, self.weights),
            "ece": calibration_error(p, self.right, equal_mass_bins(p), self.weights),
        }
