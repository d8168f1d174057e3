"""Ranking metrics compared with sklearn and with plain loops over random orders of tied responses."""

import itertools
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu
from sklearn.metrics import auc, precision_recall_curve, roc_auc_score

from bayesian_transformer.bootstrap import bootstrap_weights, interval
from bayesian_transformer.metrics import (
    TOP_PERCENTS,
    accuracy_at,
    auprc,
    aurc,
    auroc,
    prediction_rejection_ratio,
    rank,
    ranking_metrics,
    rejection_area,
    stratified_auroc,
)
from eval.utils.length import length_residual, length_strata, problem_folds
from tests.helpers.rankings import Data, accuracies_over_all_orders, both_labels, ones, perfect_accuracies, responses


@settings(deadline=None)
@given(both_labels)
def test_auroc_and_auprc_equal_sklearn(data: Data) -> None:
    score, right = data
    ranking = rank(score, right, ones(len(score)))
    precision, recall, _ = precision_recall_curve(right, score)
    assert auroc(ranking)[0] == pytest.approx(roc_auc_score(right, score), abs=1e-12)
    assert auprc(ranking)[0] == pytest.approx(auc(recall, precision), abs=1e-12)


@given(both_labels, st.randoms(use_true_random=False))
def test_a_weighting_equals_repeating_the_responses(data: Data, random: Random) -> None:
    score, right = data
    weights = np.array([[random.randint(0, 3) for _ in score]])
    repeated_score, repeated_right = np.repeat(score, weights[0]), np.repeat(right, weights[0])
    if not 0 < repeated_right.sum() < len(repeated_right):
        return
    direct = ranking_metrics(rank(repeated_score, repeated_right, ones(len(repeated_score))))
    weighted = ranking_metrics(rank(score, right, weights))
    for name, value in direct.items():
        assert weighted[name][0] == pytest.approx(value[0], abs=1e-12, nan_ok=True), name
    precision, recall, _ = precision_recall_curve(repeated_right, repeated_score)
    assert weighted["auprc"][0] == pytest.approx(auc(recall, precision), abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(responses(1, 6))
def test_top_accuracy_and_aurc_are_expectations_over_orders_of_ties(data: Data) -> None:
    score, right = data
    expected = accuracies_over_all_orders(score, right)
    ranking = rank(score, right, ones(len(score)))
    for percent in TOP_PERCENTS:
        count = max(1, len(score) * percent // 100)
        assert accuracy_at(ranking, percent)[0] == pytest.approx(expected[count - 1], abs=1e-12)
    assert aurc(rejection_area(ranking))[0] == pytest.approx(np.mean(1 - expected), abs=1e-12)


@settings(deadline=None)
@given(both_labels)
def test_prr_is_one_for_the_perfect_ranking_zero_without_ranking_and_as_defined(data: Data) -> None:
    score, right = data
    weights = ones(len(score))
    perfect = rejection_area(rank(right.astype(float), right, weights))
    oracle = np.mean(1 - perfect_accuracies(right))
    error = 1 - right.mean()
    area = rejection_area(rank(score, right, weights))
    assert aurc(perfect)[0] == pytest.approx(oracle, abs=1e-12)  # tied right answers come first in both
    assert prediction_rejection_ratio(perfect)[0] == pytest.approx(1, abs=1e-9)
    tied = rejection_area(rank(np.zeros(len(score)), right, weights))
    assert prediction_rejection_ratio(tied)[0] == pytest.approx(0, abs=1e-9)
    expected = (error - aurc(area)[0]) / (error - oracle)
    assert prediction_rejection_ratio(area)[0] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("label", [True, False])
def test_one_label_makes_the_two_label_metrics_nan_and_leaves_the_others(label: bool) -> None:
    right = np.full(5, label)
    metrics = ranking_metrics(rank(np.arange(5, dtype=np.float64), right, ones(5)))
    for name in ("auc", "auprc", "prr"):
        assert np.isnan(metrics[name][0])
    assert metrics["top50"][0] == float(label)
    assert metrics["aurc"][0] == pytest.approx(1 - label)


def test_no_response_gives_nan_everywhere() -> None:
    metrics = ranking_metrics(rank(np.zeros(0), np.zeros(0, dtype=bool), ones(0)))
    assert all(np.isnan(value[0]) for value in metrics.values())


@settings(deadline=None)
@given(both_labels, st.randoms(use_true_random=False))
def test_stratified_auroc_counts_the_pairs_within_strata(data: Data, random: Random) -> None:
    score, right = data
    strata = np.array([random.randint(0, 2) for _ in score])
    weights = np.array([[random.randint(0, 3) for _ in score]])
    concordant, pairs = 0.0, 0
    for i, j in itertools.product(np.flatnonzero(right), np.flatnonzero(~right)):
        if strata[i] == strata[j]:
            count = weights[0, i] * weights[0, j]
            pairs += count
            concordant += count * ((score[i] > score[j]) + 0.5 * (score[i] == score[j]))
    value = stratified_auroc(score, right, strata, weights)[0]
    assert np.isnan(value) if pairs == 0 else value == pytest.approx(concordant / pairs)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=200), st.integers(1, 12))
def test_length_strata_are_ordered_and_keep_equal_lengths_together(lengths: list[int], count: int) -> None:
    tokens = np.array(lengths)
    strata = length_strata(tokens, count)
    assert len(set(strata)) <= count
    assert all(len(set(strata[tokens == length])) == 1 for length in set(lengths))
    assert (np.diff(strata[np.argsort(tokens, kind="stable")]) >= 0).all()


def test_length_strata_of_distinct_lengths_are_equal_shares() -> None:
    strata = length_strata(np.random.default_rng(0).permutation(100), 10)
    assert np.bincount(strata).tolist() == [10] * 10


@given(
    st.lists(st.tuples(st.integers(1, 500), st.floats(-100, 100), st.integers(0, 2)), min_size=3, max_size=50),
)
def test_length_residual_equals_least_squares_on_the_other_folds(rows: list[tuple[int, float, int]]) -> None:
    tokens, score, folds = (np.array([row[column] for row in rows]) for column in range(3))
    residual = length_residual(score, tokens, folds)
    for index, (length, value, fold) in enumerate(rows):
        others = folds != fold
        if not others.any():
            assert np.isnan(residual[index])
        else:
            many = len(set(tokens[others])) > 1
            slope, offset = np.polyfit(tokens[others], score[others], 1) if many else (0.0, score[others].mean())
            assert residual[index] == pytest.approx(value - slope * length - offset, abs=1e-6)


def test_length_residual_of_a_fold_does_not_depend_on_its_own_scores() -> None:
    """The line is: another score changes the residual by exactly its own change."""
    rng = np.random.default_rng(3)
    score, tokens, folds = rng.normal(size=40), rng.integers(10, 90, 40), problem_folds(40)
    changed = score + np.where(folds == 1, rng.normal(size=40), 0.0)
    inside = folds == 1
    difference = length_residual(changed, tokens, folds)[inside] - length_residual(score, tokens, folds)[inside]
    np.testing.assert_allclose(difference, (changed - score)[inside], atol=1e-12)


@given(st.integers(0, 60))
def test_folds_are_equal_shares_and_always_the_same(problems: int) -> None:
    folds = problem_folds(problems)
    assert np.ptp(np.bincount(folds, minlength=5)) <= 1
    assert folds.tolist() == problem_folds(problems).tolist()


def test_a_score_that_is_a_line_in_the_length_ranks_nothing_once_length_is_out() -> None:
    rng = np.random.default_rng(1)
    tokens = rng.integers(10, 400, 300)
    right = rng.random(300) < 0.5
    residual = length_residual((-0.37 * tokens + 0.11).astype(np.float64), tokens, problem_folds(300))
    assert auroc(rank(residual, right, ones(300)))[0] == 0.5


def test_bootstrap_interval_agrees_with_the_normal_theory_of_auroc() -> None:
    rng = np.random.default_rng(2)
    right = rng.random(400) < 0.5
    score = rng.normal(size=400) + right
    estimates = auroc(rank(score, right, bootstrap_weights(400, 2000)))
    value = estimates[0]
    assert value == pytest.approx(mannwhitneyu(score[right], score[~right]).statistic / right.sum() / (~right).sum())
    # Hanley and McNeil (1982)
    positives, negatives = right.sum(), (~right).sum()
    q1, q2 = value / (2 - value), 2 * value**2 / (1 + value)
    variance = value * (1 - value) + (positives - 1) * (q1 - value**2) + (negatives - 1) * (q2 - value**2)
    error = np.sqrt(variance / positives / negatives)
    low, high = interval(estimates[1:])
    assert low == pytest.approx(value - 1.96 * error, abs=0.01)
    assert high == pytest.approx(value + 1.96 * error, abs=0.01)


def test_bootstrap_weights_start_with_ones_and_keep_the_sample_size() -> None:
    weights = bootstrap_weights(7, 50)
    assert (weights[0] == 1).all()
    assert (weights.sum(axis=1) == 7).all()
    assert (weights == bootstrap_weights(7, 50)).all()


def test_interval_leaves_out_undefined_draws() -> None:
    assert interval(np.array([np.nan, 1.0, 1.0])) == (1.0, 1.0)
    assert np.isnan(interval(np.array([np.nan]))).all()
