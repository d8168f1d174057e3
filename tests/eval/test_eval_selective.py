"""What keeping the most confident answers costs: generalised, excess and capped areas, coverage at a risk.

Each is compared with a loop over every order of tied answers or over every threshold, and with sklearn's areas.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import auc, roc_auc_score

from bayesian_transformer.grading import Verdict
from bayesian_transformer.metrics import RISK_PERCENTS, augrc, coverage_at, rank, ranking_metrics
from bayesian_transformer.scores import SCORES
from eval.utils import evaluation
from eval.utils.detection import SeedRun
from tests.helpers.rankings import Data, accuracies_over_all_orders, both_labels, ones, perfect_accuracies, responses


@settings(max_examples=100, deadline=None)
@given(responses(1, 6))
def test_areas_are_expectations_over_orders_of_ties(data: Data) -> None:
    score, right = data
    size = len(score)
    kept, perfect = accuracies_over_all_orders(score, right), perfect_accuracies(right)
    metrics = {name: values[0] for name, values in ranking_metrics(rank(score, right, ones(size))).items()}
    counts = np.arange(1, size + 1)
    assert metrics["augrc"] == pytest.approx(np.mean(counts * (1 - kept)) / size, abs=1e-12)
    assert metrics["eaurc"] == pytest.approx(np.mean(perfect - kept), abs=1e-12)
    for percent in (80, 90, 95):
        assert metrics[f"top{percent}"] == pytest.approx(kept[max(1, size * percent // 100) - 1], abs=1e-12)
    late = counts > size - int(0.5 * size)  # LM-Polygraph: the last int(max_rejection * n) of the n coverages
    if late.sum() < 2 or right.all() or not right.any():
        assert np.isnan(metrics["prr50"])
    else:
        random = right.mean()
        expected = (kept[late].mean() - random) / (perfect[late].mean() - random)
        assert metrics["prr50"] == pytest.approx(expected, abs=1e-9)


@settings(deadline=None)
@given(both_labels)
def test_augrc_is_the_area_under_the_generalised_risk_and_a_line_in_auroc(data: Data) -> None:
    """Traub et al.: the integral over the coverage, a straight line through tied answers."""
    score, right = data
    size, error = len(right), 1 - right.mean()
    thresholds = sorted(set(score), reverse=True)
    coverage = [0.0, *(np.mean(score >= threshold) for threshold in thresholds)]
    risk = [0.0, *(np.mean((score >= threshold) & ~right) for threshold in thresholds)]
    value = augrc(rank(score, right, ones(size)))[0]
    assert value == pytest.approx(auc(coverage, risk) + error / (2 * size), abs=1e-12)
    line = error**2 / 2 + (1 - error) * error * (1 - roc_auc_score(right, score))
    assert value == pytest.approx(line + error / (2 * size), abs=1e-12)


@settings(deadline=None)
@given(responses(1, 30), st.integers(0, 100))
def test_coverage_at_a_risk_is_the_best_of_all_thresholds(data: Data, percent: int) -> None:
    score, right = data
    kept = [right[score >= threshold] for threshold in score]
    shares = [len(labels) / len(right) for labels in kept if 100 * (~labels).sum() <= percent * len(labels)]
    assert coverage_at(rank(score, right, ones(len(score))), percent)[0] == max(shares, default=0.0)


def test_coverage_at_a_risk_keeps_tied_answers_together_and_looks_beyond_the_first_error() -> None:
    right = np.array([True] * 9 + [False] + [True] * 10)
    score = -np.arange(20, dtype=np.float64)
    assert coverage_at(rank(score, right, ones(20)), 5)[0] == 1.0
    assert coverage_at(rank(score, right, ones(20)), 1)[0] == 9 / 20
    score[:10] = 1.0
    assert coverage_at(rank(score, right, ones(20)), 1)[0] == 0.0
    assert coverage_at(rank(score, right, ones(20)), 10)[0] == 1.0


@settings(deadline=None)
@given(responses(1, 20), st.data())
def test_rows_of_weights_do_not_see_each_other(data: Data, drawn: st.DataObject) -> None:
    """Also where they weigh different totals, or nothing."""
    score, right = data
    count = st.lists(st.integers(0, 3), min_size=len(score), max_size=len(score))
    weights = np.array(drawn.draw(st.lists(count, min_size=2, max_size=4)))
    together = ranking_metrics(rank(score, right, weights))
    for row, weighting in enumerate(weights):
        for name, value in ranking_metrics(rank(score, right, weighting[None])).items():
            assert together[name][row] == pytest.approx(value[0], abs=1e-12, nan_ok=True), name


@pytest.mark.parametrize("label", [True, False])
def test_with_one_label_there_is_nothing_to_rank_and_all_or_nothing_to_keep(label: bool) -> None:
    metrics = ranking_metrics(rank(np.arange(5, dtype=np.float64), np.full(5, label), ones(5)))
    assert np.isnan(metrics["prr50"][0])
    assert metrics["eaurc"][0] == pytest.approx(0, abs=1e-12)
    assert metrics["augrc"][0] == pytest.approx(0.0 if label else 0.6)
    assert [metrics[f"cov_risk{percent}"][0] for percent in RISK_PERCENTS] == [float(label)] * 3


def drawn_run(seed: int, problems: list[str]) -> SeedRun:
    """Scores that are drawn, every third with ties, one of them with missing values."""
    rng = np.random.default_rng(seed)
    size = len(problems)
    values = rng.normal(size=(len(SCORES), size))
    values[::3] = np.round(values[::3])
    values[1, :4] = np.nan
    return SeedRun(
        seed=seed,
        ids=problems,
        verdicts=[Verdict.RIGHT if right else Verdict.WRONG for right in rng.random(size) < 0.4],
        tokens=rng.integers(5, 60, size),
        truncated=np.zeros(size, dtype=bool),
        made_with={"seed": [seed]},
        dataset_problems=None,
        levels=[str(level) for level in rng.integers(0, 3, size)],
        scores={score.name: row for score, row in zip(SCORES, values, strict=True)},
    )


def test_the_blocks_of_weightings_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [drawn_run(1, [f"p{index}" for index in range(50)]), drawn_run(2, [f"p{index}" for index in range(40)])]
    found = []
    for rows in (1, 7, 1000):
        monkeypatch.setattr(evaluation, "_ROWS_AT_ONCE", rows)
        found.append(repr(evaluation.evaluate(runs, 20, 5).summary))
    assert found[0] == found[1] == found[2]
    assert "undefined_draws" in found[0]
