"""P(correct) against scikit-learn, brute force, and answers drawn from a known P."""

import warnings
from collections import Counter

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, roc_auc_score
from sklearn.preprocessing import StandardScaler

from bayesian_transformer.calibration import (
    DECLARED,
    NOISE_FREE,
    Calibrator,
    Isotonic,
    Logistic,
    Temperature,
    cross_fit,
    fit,
)
from bayesian_transformer.calibration.calibrator import SOURCE, sigmoid
from bayesian_transformer.results import SETTINGS
from bayesian_transformer.scores import SAMPLED_SCORES
from tests.helpers.simulated_responses import Array, Simulated, simulated

FEATURES = ("ll_mean", "length", "eu_mean")


@pytest.fixture(scope="module")
def many() -> Simulated:
    return simulated(20_000)


@pytest.fixture(scope="module")
def few() -> Simulated:
    return simulated(400, seed=1)


def columns(data: Simulated) -> Array:
    return np.stack([data.table["ll_mean"], np.log(-data.table["length"]), data.table["eu_mean"]], axis=1)


def logistic(calibrator: Calibrator) -> Logistic:
    assert isinstance(calibrator.parameters, Logistic)
    return calibrator.parameters


def test_known_weights_are_recovered(many: Simulated) -> None:
    """The weights of columns with spread 1, so standardising changes them little; the standard error is 0.02."""
    calibrator = fit(many.table, many.right, many.groups, FEATURES)
    found = logistic(calibrator)
    np.testing.assert_allclose(found.weights, (1.2, -0.8, 0), atol=0.07)
    np.testing.assert_allclose(found.intercept, 0.4, atol=0.07)
    np.testing.assert_allclose(found.means[:2], (-1, 4), atol=0.02)
    np.testing.assert_allclose(found.scales[:2], (0.5, 0.6), atol=0.02)
    assert np.abs(calibrator.predict(many.table) - many.p).mean() < 0.01


def test_predictions_are_those_of_sklearn(few: Simulated) -> None:
    scaler = StandardScaler().fit(columns(few))
    model = LogisticRegression(tol=1e-10, max_iter=1000).fit(scaler.transform(columns(few)), few.right)
    unseen = simulated(1000, seed=2)
    expected = model.predict_proba(scaler.transform(columns(unseen)))[:, 1]
    found = fit(few.table, few.right, few.groups, FEATURES).predict(unseen.table)
    np.testing.assert_allclose(found, expected, atol=1e-5)  # two solvers
    same = fit(few.table, few.right, few.groups, FEATURES)
    model.coef_, model.intercept_ = np.array([logistic(same).weights]), np.array([logistic(same).intercept])
    expected = model.predict_proba(scaler.transform(columns(unseen)))[:, 1]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_the_formula_of_the_logistic(few: Simulated) -> None:
    found = logistic(fit(few.table, few.right, few.groups, FEATURES))
    calibrator = fit(few.table, few.right, few.groups, FEATURES)
    p = calibrator.predict(few.table)
    for row in range(0, 400, 40):
        z = found.intercept
        for x, mean, scale, weight in zip(columns(few)[row], found.means, found.scales, found.weights, strict=True):
            z += weight * (x - mean) / scale
        assert p[row] == pytest.approx(1 / (1 + np.exp(-z)), rel=1e-12)


def test_sigmoid_is_exact_at_both_ends() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_allclose(sigmoid(np.array([-700.0, 0, 800])), [np.exp(-700.0), 0.5, 1], rtol=1e-14)
        assert sigmoid(np.array([-1e9, 1e9])).tolist() == [0, 1]


def test_isotonic_is_sklearns_and_rises(few: Simulated) -> None:
    calibrator = fit(few.table, few.right, few.groups, ("ll_mean",), method="isotonic")
    assert isinstance(calibrator.parameters, Isotonic)
    x = np.linspace(-4, 2, 1001)
    p = calibrator.predict({"ll_mean": x})
    edge = 1 / 402
    model = IsotonicRegression(y_min=edge, y_max=1 - edge, out_of_bounds="clip")
    np.testing.assert_allclose(p, model.fit(few.table["ll_mean"], few.right).predict(x), atol=1e-12)
    assert (np.diff(p) >= 0).all()
    assert p.min() >= edge
    assert p.max() <= 1 - edge
    assert p.max() - p.min() > 0.5


def test_isotonic_falls_nowhere_even_if_the_score_is_turned(few: Simulated) -> None:
    p = fit({"ll_mean": -few.table["ll_mean"]}, few.right, few.groups, ("ll_mean",), method="isotonic").predict(
        {"ll_mean": np.linspace(-2, 4, 101)}
    )
    assert (np.diff(p) >= 0).all()
    assert np.ptp(p) < 0.3


@pytest.mark.parametrize("name", ["ll_mean", "ll_sum", "tu_sum"])
def test_temperature_is_that_of_the_largest_likelihood(name: str) -> None:
    """x is logit(exp(score)) of a log-likelihood, and the score itself otherwise."""
    generator = np.random.default_rng(3)
    logit = 3 * generator.normal(size=4000)
    right = generator.random(4000) < sigmoid(logit / 2.5)
    score = np.log(sigmoid(logit)) if name.startswith("ll_") else logit
    calibrator = fit({name: score}, right, range(4000), (name,), method="temperature")
    assert isinstance(calibrator.parameters, Temperature)
    found = calibrator.parameters.temperature
    signed = np.where(right, 1, -1) * logit
    best = minimize_scalar(lambda log_t: np.logaddexp(0, -signed / np.exp(log_t)).sum(), bounds=(-3, 3)).x
    assert found == pytest.approx(np.exp(best), rel=1e-4)
    assert found == pytest.approx(2.5, rel=0.15)
    np.testing.assert_allclose(calibrator.predict({name: score}), sigmoid(logit / found), rtol=1e-9)


def test_a_log_likelihood_of_zero_has_a_probability() -> None:
    score = np.log(sigmoid(np.linspace(-3, 3, 100)))
    calibrator = fit({"ll_mean": score}, np.arange(100) > 40, range(100), ("ll_mean",), method="temperature")
    assert calibrator.predict({"ll_mean": [0.0]}) == pytest.approx(1, abs=1e-3)


def test_a_score_that_falls_has_no_temperature(few: Simulated) -> None:
    with pytest.raises(ValueError, match=r"^the score does not rise with being right, so no temperature fits; use log"):
        fit({"tu_sum": -few.table["ll_mean"]}, few.right, few.groups, ("tu_sum",), method="temperature")


def test_a_response_without_a_value_has_no_probability(few: Simulated) -> None:
    """It is left out of the fit, counted and named; never filled in."""
    table = {name: values.copy() for name, values in few.table.items()}
    table["ll_mean"][3], table["length"][5], table["eu_mean"][[5, 7]] = np.nan, -0.0, -np.inf
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        calibrator = fit(table, few.right, few.groups, FEATURES)
        p, reasons = calibrator.predict(table), calibrator.reasons(table)
        crossed = cross_fit(table, few.right, few.groups, FEATURES)
    assert np.flatnonzero(np.isnan(p)).tolist() == [3, 5, 7]
    assert [index for index, reason in enumerate(reasons) if reason] == [3, 5, 7]
    assert [reasons[index] for index in (3, 5, 7)] == [
        "no value of ll_mean", "no value of length, eu_mean", "no value of eu_mean",
    ]  # fmt: skip
    kept = np.isfinite(p)
    rest = {name: values[kept] for name, values in table.items()}
    names = [name for name, keep in zip(few.groups, kept, strict=True) if keep]
    assert calibrator.parameters == fit(rest, few.right[kept], names, FEATURES).parameters
    assert calibrator.counts["left_out"] == 3
    assert calibrator.counts["responses"] == 397
    assert "3 responses were left out: a score has no value there" in calibrator.notes
    assert np.flatnonzero(crossed.fold < 0).tolist() == [3, 5, 7]
    assert np.isfinite(crossed.brier)
    single = fit(few.table, few.right, few.groups, ("ll_mean",), method="isotonic")
    assert np.isnan(single.predict({"ll_mean": [np.nan, -1.0]})).tolist() == [True, False]


def test_no_problem_is_in_both_parts() -> None:
    data = simulated(600, seed=4)
    groups = [f"problem {index * index % 101}" for index in range(600)]
    crossed = cross_fit(data.table, data.right, groups, FEATURES)
    assert all(len({crossed.fold[i] for i in range(600) if groups[i] == name}) == 1 for name in groups)
    assert Counter(crossed.fold.tolist()).keys() == set(range(5))
    for number in range(5):
        part = crossed.fold == number
        rest = {name: values[~part] for name, values in data.table.items()}
        names = [name for name, inside in zip(groups, part, strict=True) if not inside]
        calibrator = fit(rest, data.right[~part], names, FEATURES)
        assert {names[i] for i in range(len(names))}.isdisjoint({groups[i] for i in np.flatnonzero(part)})
        inside = {name: values[part] for name, values in data.table.items()}
        np.testing.assert_array_equal(calibrator.predict(inside), crossed.p_correct[part])
        assert set(crossed.base_rate[part]) == {data.right[~part].mean()}


def test_copies_of_a_problem_teach_nothing_about_it() -> None:
    """Each of 200 problems has two equal responses, and verdicts are drawn at random: honest cross-fitting finds
    nothing, where one that splits the copies seems to know more. Means over 20 draws, as single ones scatter.
    """
    honest: list[float] = []
    leaking: list[float] = []
    for seed in range(20):
        generator = np.random.default_rng(seed)
        table = {"ll_mean": -np.repeat(generator.random(200), 2)}
        right = np.repeat(generator.random(200) < 0.5, 2)
        for found, groups in ((honest, np.repeat(np.arange(200), 2)), (leaking, np.arange(400))):
            crossed = cross_fit(table, right, groups, ("ll_mean",), method="isotonic")
            found.append(crossed.brier - crossed.base_brier)
    assert np.mean(honest) > 0.003
    assert np.mean(leaking) < -0.003


def test_cross_fitting_is_repeatable_and_measures_as_sklearn_does(few: Simulated) -> None:
    crossed = cross_fit(few.table, few.right, few.groups, FEATURES)
    again = cross_fit(few.table, few.right, few.groups, FEATURES)
    np.testing.assert_array_equal(crossed.p_correct, again.p_correct)
    assert crossed.brier == pytest.approx(brier_score_loss(few.right, crossed.p_correct), rel=1e-12)
    assert crossed.base_brier == pytest.approx(brier_score_loss(few.right, crossed.base_rate), rel=1e-12)
    assert crossed.auroc == pytest.approx(roc_auc_score(few.right, crossed.p_correct), rel=1e-12)
    assert crossed.brier < crossed.base_brier - 0.02


def test_the_names_are_those_of_scores_and_settings() -> None:
    assert set(DECLARED) <= {score.name for score in SAMPLED_SCORES}  # so that every results file has them
    assert set(NOISE_FREE) < set(DECLARED)
    assert set(SOURCE) <= set(SETTINGS)


def test_what_a_calibrator_says_of_itself(few: Simulated) -> None:
    source = {"model": "m", "num_samples": 5, "bayes_sigma": 0.1, "engine_args": {}, "rank": None}
    calibrator = fit(few.table, few.right, few.groups, FEATURES, source=source)
    number = int(few.right.sum())
    assert calibrator.counts == {
        "responses": 400, "right": number, "wrong": 400 - number, "groups": 400, "left_out": 0,
    }  # fmt: skip
    assert calibrator.source == {"model": "m", "num_samples": 5, "bayes_sigma": 0.1}
    assert set(calibrator.versions) == {"bayesian_transformer", "scikit-learn"}
    assert calibrator.notes == ()


def test_too_few_labels_are_said(few: Simulated) -> None:
    table = {name: values[:60] for name, values in few.table.items()}
    right = few.right[:60]
    (note,) = fit(table, right, few.groups[:60], FEATURES).notes
    fewer = min((int(right.sum()), "right"), (int((~right).sum()), "wrong"))
    says = f"only {fewer[0]} problems have a {fewer[1]} answer: with fewer than 50 right and 50 wrong ones"
    assert note.startswith(says)
    copies = {name: np.tile(values, 9) for name, values in table.items()}
    (note,) = fit(copies, np.tile(right, 9), few.groups[:60] * 9, FEATURES).notes
    assert note.startswith(says)
    flat = few.table | {"eu_mean": np.full(400, -2.0)}
    calibrator = fit(flat, few.right, few.groups, FEATURES)
    assert calibrator.notes == ("eu_mean: the same value everywhere, which says nothing",)
    assert logistic(calibrator).weights[2] == 0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"features": ("ll_mean", "nll")}, r"^no score is called 'nll'; the names are those of scores\.py$"),
        ({"features": ()}, r"^features must be at least one score, each once; got none$"),
        ({"features": ("ll_mean", "ll_mean")}, r"each once; got ll_mean, ll_mean$"),
        ({"features": ("ll_mean", "bir_mean")}, r"^these results have no bir_mean; the calibrator computes with ll_m"),
        ({"method": "platt"}, r"^method must be one of logistic, isotonic, temperature; got 'platt'$"),
        ({"method": "isotonic"}, r"^isotonic calibrates one score; got ll_mean, length, eu_mean$"),
        ({"right": [True] * 400}, r"^calibration needs right and wrong answers .*; all 400 are right$"),
        ({"right": [0] * 400}, r"; all 400 are wrong$"),
        ({"right": [True] * 399}, r"^'right' must say true or false for each of the 400 responses$"),
        ({"right": [0.5] * 400}, r"^'right' must say true or false"),
        ({"groups": ["a"]}, r"^'groups' must name the problem of each of the 400 responses; got 1$"),
        ({"table": {"ll_mean": [1], "length": [-1, -2], "eu_mean": [1]}}, r"one value per response each; they have"),
        ({"table": {"ll_mean": ["x"], "length": [-1], "eu_mean": [1]}}, r"^ll_mean is not a list of numbers"),
        ({"table": {"ll_mean": [1], "length": [7], "eu_mean": [1]}}, r"^length must be minus the token count"),
        ({"table": {"ll_mean": [[1]], "length": [-7], "eu_mean": [1]}}, r"^ll_mean must have one value per response"),
    ],
)
def test_refusals_are_one_line(few: Simulated, change: dict[str, object], says: str) -> None:
    given = {"table": few.table, "right": few.right, "groups": few.groups, "features": FEATURES} | change
    for function in (fit, cross_fit):
        with pytest.raises(ValueError, match=says) as caught:
            function(**given)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)


def test_too_few_problems_for_cross_fitting(few: Simulated) -> None:
    with pytest.raises(ValueError, match=r"^cross-fitting in 5 parts needs at least 5 problems; there are 4$"):
        cross_fit(few.table, few.right, [index % 4 for index in range(400)], FEATURES)
    with pytest.raises(ValueError, match=r"^cross-fitting needs at least 2 parts; got 1$"):
        cross_fit(few.table, few.right, few.groups, FEATURES, folds=1)
    right = np.arange(400) == 7  # the part without it has one class only
    with pytest.raises(ValueError, match=r"all 320 are wrong$"):
        cross_fit(few.table, right, few.groups, FEATURES)


def test_a_missing_extra_is_named(few: Simulated, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bayesian_transformer.extras.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"^sklearn not installed; .*\[calibration\]$"):
        fit(few.table, few.right, few.groups, FEATURES)
