"""What noisy scores add to P(correct), on made-up answers whose truth is known."""

import math

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, roc_auc_score

from bayesian_transformer.calibration import DECLARED, MANY, NOISE_FREE, NOISY, cross_fit
from bayesian_transformer.grading import Verdict
from bayesian_transformer.scores import PRIMARY, SCORES
from eval.utils.comparison import PARTITIONS, Comparison, compare, pairs_for
from eval.utils.decision import HEAD, compared_rows, decision_lines
from eval.utils.decision_plots import decision_figure
from eval.utils.detection import SeedRun

DRAWS = 100


def run(seed: int, size: int, of_noise: float, offset: float = 0.0, level: bool = True) -> SeedRun:
    """Answers whose log-odds of being right are a log-likelihood plus `of_noise` times the mean of EU."""
    generator = np.random.default_rng(7)  # the same problems and verdicts for each seed
    scores = {score.name: generator.standard_normal(size) for score in SCORES}
    scores["length"] = -generator.integers(5, 60, size).astype(np.float64)
    odds = 1.5 * scores["ll_mean"] + of_noise * scores["eu_mean"] + offset
    right = generator.random(size) < 1 / (1 + np.exp(-odds))
    scores["eu_mean"] = scores["eu_mean"] + 0.1 * np.random.default_rng(seed).standard_normal(size)
    return SeedRun(
        seed=seed,
        ids=[f"p{index}" for index in range(size)],
        verdicts=[Verdict.RIGHT if each else Verdict.WRONG for each in right],
        tokens=-scores["length"].astype(np.int64),
        truncated=np.zeros(size, dtype=bool),
        made_with={},
        dataset_problems=None,
        levels=[str(index % 3) if level else None for index in range(size)],
        scores=scores,
    )


def compared(*runs: SeedRun, alpha: float = 0.2) -> Comparison:
    found = compare(runs, DRAWS, alpha, 0.1)
    assert isinstance(found, Comparison), found
    return found


def test_noise_that_tells_something_adds_it_and_other_noise_adds_nothing() -> None:
    helpful, useless = compared(run(1, 600, 1.5)), compared(run(1, 600, 0.0))
    assert helpful.columns["auc_gain_p_correct"].low > 0.02
    assert helpful.columns["brier_gain_p_correct"].high < 0
    assert decision_lines(helpful)[1].endswith(": it helps")
    assert -0.01 < useless.columns["auc_gain_p_correct"].mean < 0.01
    assert useless.columns["auc_gain_p_correct"].low < 0  # a score that says nothing costs a little
    assert "not" in decision_lines(useless)[1].rpartition(": ")[2]


def test_columns_are_those_of_scikit_learn_on_cross_fitted_models() -> None:
    runs = [run(1, 300, 1.0), run(2, 300, 1.0)]
    found = compared(*runs)
    crossed = {
        name: [
            cross_fit(each.scores, each.right, each.ids, features, partition=partition).p_correct
            for each in runs
            for partition in range(PARTITIONS)
        ]
        for name, features in (
            ("model_noise_free", NOISE_FREE),
            ("p_correct", DECLARED),
            ("model_ll_noise", ("ll_mean", *NOISY)),
        )
    }
    right = [each.right for each in runs for _ in range(PARTITIONS)]
    aucs = {
        name: np.mean([roc_auc_score(labels, p) for labels, p in zip(right, values, strict=True)])
        for name, values in crossed.items()
    }
    briers = [brier_score_loss(labels, p) for labels, p in zip(right, crossed["p_correct"], strict=True)]
    for name, auc in aucs.items():
        assert found.columns[f"auc_{name}"].mean == pytest.approx(auc)
    assert found.columns["brier_p_correct"].mean == pytest.approx(np.mean(briers))
    gain = aucs["p_correct"] - aucs["model_noise_free"]
    assert found.columns["auc_gain_p_correct"].mean == pytest.approx(gain)
    assert found.p_correct[2] == pytest.approx(crossed["p_correct"][PARTITIONS])
    for score in PRIMARY:
        alone = np.mean([roc_auc_score(each.right, each.scores[score]) for each in runs])
        assert found.columns[f"auc_over_{score}"].mean == pytest.approx(aucs["p_correct"] - alone)


def test_a_model_of_one_score_is_ranked_by_the_score() -> None:
    """P of several fits, thrown together, ranks worse than the score that each of them rises with."""
    one = run(1, 300, 1.0)
    columns = compared(one).columns
    for name, score in (("model_ll", "ll_mean"), ("model_length", "length")):
        assert columns[f"auc_{name}"].mean == pytest.approx(roc_auc_score(one.right, one.scores[score]))
        gain = columns[f"auc_{name}_noise"].mean - columns[f"auc_{name}"].mean
        assert columns[f"auc_gain_{name}_noise"].mean == pytest.approx(gain)


def test_the_base_rate_is_what_there_is_to_beat() -> None:
    one = run(1, 300, 1.0)
    columns = compared(one).columns
    rate = one.right.mean()
    assert columns["brier_base_rate"].mean == pytest.approx(rate * (1 - rate), rel=0.02)
    assert columns["brier_p_correct"].high < columns["brier_base_rate"].low


def test_few_labels_are_said() -> None:
    assert not any(line.startswith("Only") for line in decision_lines(compared(run(1, 300, 1.0))))
    few = run(1, 60, 1.0)
    problems = min(int(few.right.sum()), int((~few.right).sum()))
    assert decision_lines(compared(few))[-1].startswith(f"Only {problems} problems have a ")


def test_a_paired_difference_is_narrower_than_its_parts() -> None:
    columns = compared(run(1, 400, 0.5)).columns
    width = {name: columns[name].high - columns[name].low for name in ("auc_gain_p_correct", "auc_p_correct")}
    assert width["auc_gain_p_correct"] < 0.7 * width["auc_p_correct"]


def test_labels_decide_how_many_scores_there_are() -> None:
    assert (*pairs_for(10 * len(MANY) - 1)[-1].features, "eu_mean", "bir_mean") == DECLARED
    assert (*pairs_for(10 * len(MANY))[-1].features, "eu_mean", "bir_mean") == MANY
    assert compared(run(1, 600, 1.0)).features == MANY
    assert compared(run(1, 120, 1.0)).features == DECLARED


def test_answers_without_a_score_are_left_out_of_every_model() -> None:
    lacking = run(1, 300, 1.0)
    lacking.scores["ll_tail"][:30] = np.nan
    found = compared(lacking)
    assert np.isnan(found.p_correct[1][:30]).all()
    rest = roc_auc_score(lacking.right[30:], lacking.scores["length"][30:])
    assert found.columns["auc_model_length"].mean == pytest.approx(rest)


def test_what_cannot_be_fitted_is_said_in_one_line() -> None:
    said = compare([run(1, 50, 1.0, offset=100.0)], DRAWS, 0.1, 0.1)
    why = "calibration needs right and wrong answers with values of all scores; all 50 are right"
    assert said == f"P(correct) was not fitted: {why}"
    assert decision_lines(said) == [said]


def test_without_levels_their_cells_are_empty() -> None:
    rows = dict(compared_rows(compared(run(1, 200, 1.0, level=False))))
    cells = [row.cells[HEAD.index("within level")] for group in rows.values() for row in group]
    assert set(cells) == {("", "")}


def test_the_table_and_the_picture_show_what_was_found() -> None:
    runs = [run(1, 400, 1.5, offset=2.0)]
    found = compared(*runs)
    assert found.acceptance.threshold is not None
    groups = compared_rows(found)
    assert [len(rows) for _, rows in groups] == [1, 3, 3, 3, len(PRIMARY)]
    difference = groups[3][1][2]
    gain = found.columns["auc_gain_p_correct"]
    assert difference.cells[0] == (f"{100 * gain.mean:+.1f}", f"[{100 * gain.low:+.1f}, {100 * gain.high:+.1f}]")
    assert decision_lines(found)[2] == f"Accept? {found.acceptance}"
    reliability, risk = decision_figure(runs, found).axes
    assert risk.get_title().endswith(f"{found.acceptance.coverage:.0%} (star)")
    (star,) = (line for line in risk.lines if line.get_marker() == "*")
    assert star.get_xydata()[0] == pytest.approx(  # type: ignore[index]
        [found.acceptance.coverage, found.acceptance.wrong / found.acceptance.accepted]
    )
    shares = [float(line.get_ydata()[0]) for line in reliability.lines if line.get_marker() == "o"]  # type: ignore[index,arg-type]
    assert len(shares) == 10
    assert not any(map(math.isnan, shares))
    assert shares[-1] > shares[0]
    curve = next(line for line in risk.lines if line.get_label() == "P(correct), with 95% band")
    assert curve.get_ydata()[-1] == pytest.approx(1 - runs[0].right.mean())  # type: ignore[index]
