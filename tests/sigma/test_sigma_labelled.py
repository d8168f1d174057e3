"""Detection per sigma: AUROC against scikit-learn, and that picking the best of many is not mistaken for skill."""

from itertools import pairwise

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from bayesian_transformer.metrics import auroc, rank
from bayesian_transformer.sigma.labelled import HALVINGS, detection, halvings, out_of_sample
from bayesian_transformer.sigma.summary import Setting, Sums, TextSums, text_weights


def test_halves_keep_problems_together() -> None:
    problems = ["a", "b", "a", "c", "d", "e"]
    halves = halvings(problems)
    assert halves.shape == (HALVINGS, 6)
    assert (halves[:, 0] == halves[:, 2]).all()
    assert set(halves[:, [0, 1, 3, 4, 5]].sum(axis=1)) == {3}
    assert len({tuple(half) for half in halves.tolist()}) > 1
    assert set(halvings(["a", "b", "c", "d"]).sum(axis=1)) == {2}


def test_the_picked_one_is_judged_on_the_other_half() -> None:
    """By hand, over all halves and directions."""
    generator = np.random.default_rng(0)
    right = generator.random(30) < 0.5
    scores = generator.normal(size=(4, 30)) + 0.5 * right
    halves = halvings([str(n) for n in range(30)])
    values, picked = [], [0] * 4
    for half in halves:
        for seen in (half, ~half):
            on_seen = [roc_auc_score(right[seen], score[seen]) for score in scores]
            best = int(np.argmax(on_seen))
            picked[best] += 1
            values.append(roc_auc_score(right[~seen], scores[best][~seen]))
    found, counts = out_of_sample(scores, right, np.ones((1, 30), dtype=np.int64), halves)
    assert found == pytest.approx([np.mean(values)])
    assert counts == picked


def test_halves_without_a_label_are_left_out() -> None:
    right = np.array([True, False, False, False])
    scores = np.array([[1.0, 0, 0, 0], [0, 1.0, 0, 0]])
    found, picked = out_of_sample(scores, right, np.ones((1, 4), dtype=np.int64), halvings(["a", "b", "c", "d"]))
    assert np.isnan(found).all()
    assert picked == [0, 0]


def texts_of(scores: np.ndarray, sigmas: list[float]) -> list[TextSums]:
    """Texts of one token whose EU and TU at each sigma are minus the scores [G, n]."""
    return [
        TextSums(1, 1.0, {Setting(sigma, 5): Sums(0, 0, -x, -x, 0, 0) for sigma, x in zip(sigmas, column, strict=True)})
        for column in scores.T
    ]


def test_the_best_of_a_grid_of_chance_is_not_taken_for_skill() -> None:
    """Scores that know nothing: the best of eight looks good, the picked one is near a half."""
    generator = np.random.default_rng(3)
    right, once = np.arange(60) < 30, np.ones((1, 60), dtype=np.int64)
    halves = halvings([str(n) for n in range(60)])
    best, judged = [], []
    for _ in range(100):
        scores = generator.normal(size=(8, 60))
        best.append(max(auroc(rank(score, right, once))[0] for score in scores))
        judged.append(out_of_sample(scores, right, once, halves)[0][0])
    assert np.mean(best) > 0.58
    assert abs(np.mean(judged) - 0.5) < 0.02


def test_a_sigma_that_is_better_is_picked_and_counts() -> None:
    generator = np.random.default_rng(4)
    right = np.arange(200) < 100
    scores = generator.normal(size=(3, 200)) + np.array([[0.0], [2.0], [0.3]]) * right
    sigmas = [0.1, 0.2, 0.4]
    found = detection(texts_of(scores, sigmas), right, [str(n) for n in range(200)], [Setting(s, 5) for s in sigmas], 7)
    assert (found.right, found.wrong, found.undecided, found.problems, found.notes) == (100, 100, 7, 200, ())
    assert [value.value for value in found.baselines.values()] == [0.5, 0.5]  # all texts are alike without noise
    for each, name in zip(found.detections, ("eu_mean", "tu_sum"), strict=True):
        assert (each.score, each.num_samples) == (name, 5)
        assert each.picked == {0.1: 0, 0.2: 20, 0.4: 0}
        value = each.by_sigma[0.2]
        assert value.value == pytest.approx(roc_auc_score(right, scores[1]))
        assert each.out_of_sample.value == pytest.approx(value.value, abs=0.02)
        for interval in (value, each.out_of_sample):
            assert 0.8 < (interval.low or 0) < (interval.value or 0) < (interval.high or 0) < 1


def test_means_and_sums_are_told_apart() -> None:
    """eu_mean and ll_mean divide by the tokens, tu_sum does not."""
    at = Setting(0.1, 2)
    lengths, right = np.array([1, 2, 3, 4, 5, 6]), np.array([True, False, True, False, True, False])
    texts = [TextSums(int(n), float(7 - n), {at: Sums(0, 0, n * (7.0 - n), n, 0, 0)}) for n in lengths]
    found = detection(texts, right, list("abcdef"), [at])
    eu, tu = found.detections
    assert eu.by_sigma[0.1].value == pytest.approx(roc_auc_score(right, -(7 - lengths)))
    assert tu.by_sigma[0.1].value == pytest.approx(roc_auc_score(right, -lengths))
    assert found.baselines["ll_mean"].value == pytest.approx(roc_auc_score(right, -(7 - lengths) / lengths))
    assert found.baselines["length"].value == pytest.approx(roc_auc_score(right, -lengths))
    assert found.notes == ("only 3 problems have a right answer; below 20 the figures say little",)


def test_one_label_has_no_auroc() -> None:
    at = Setting(0.1, 2)
    texts = [TextSums(2, 1.0, {at: Sums(0, 1, 0.1 * n, 1, 0, 0)}) for n in range(3)]
    found = detection(texts, np.array([True] * 3), ["a", "b", "c"], [at])
    assert (found.detections[0].by_sigma[0.1].value, found.detections[0].out_of_sample.low) == (None, None)
    assert "only 0 problems have a wrong answer" in found.notes[0]


def test_intervals_get_smaller_with_problems() -> None:
    widths = []
    for count in (40, 160, 640):
        right = np.arange(count) % 2 == 0
        score = np.random.default_rng(5).normal(size=count) + right
        weights = text_weights([str(n) for n in range(count)])
        low, high = np.percentile(auroc(rank(score, right, weights))[1:], [2.5, 97.5])
        widths.append(high - low)
    assert all(wide > 1.5 * narrow for wide, narrow in pairwise(widths))
