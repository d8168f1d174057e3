"""A calibrator as JSON: bit by bit the same, checked when it is read, and used without scikit-learn."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bayesian_transformer.calibration import Calibrator, Isotonic, Logistic, Temperature, fit, threshold_for
from tests.helpers.simulated_responses import simulated

DATA = simulated(300, seed=6)
SOURCE = {"model": "TFB-m", "weights_digest": "d1", "dataset": "arithmetic", "num_samples": 5, "bayes_sigma": 0.1}
FEATURES = {
    "logistic": ("ll_mean", "length", "eu_mean"),
    "isotonic": ("ll_mean",),
    "temperature": ("ll_mean",),
}


def fitted(method: str = "logistic") -> Calibrator:
    return fit(DATA.table, DATA.right, DATA.groups, FEATURES[method], method, SOURCE)


@pytest.mark.parametrize("method", FEATURES)
@pytest.mark.parametrize("accepting", [True, False])
def test_a_file_gives_the_same_numbers(tmp_path: Path, method: str, accepting: bool) -> None:
    calibrator = fitted(method)
    if accepting:
        calibrator = calibrator.accepting(threshold_for(calibrator.predict(DATA.table), DATA.right, 0.3))
    calibrator.save(tmp_path / "calibrator.json")
    loaded = Calibrator.load(tmp_path / "calibrator.json")
    assert loaded == calibrator
    np.testing.assert_array_equal(loaded.predict(DATA.table), calibrator.predict(DATA.table))
    loaded.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "calibrator.json").read_bytes()


NUMBER = st.floats(allow_nan=False, allow_infinity=False)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.lists(st.tuples(NUMBER, st.floats(1e-300, 1e300), NUMBER), min_size=3, max_size=3), NUMBER)
def test_any_number_comes_back_bit_by_bit(
    tmp_path: Path, rows: list[tuple[float, float, float]], intercept: float
) -> None:
    means, scales, weights = zip(*rows, strict=True)
    calibrator = Calibrator("logistic", FEATURES["logistic"], Logistic(means, scales, weights, intercept), {}, {})
    calibrator.save(tmp_path / "c.json")
    assert repr(Calibrator.load(tmp_path / "c.json")) == repr(calibrator)


def test_prediction_needs_numpy_alone(tmp_path: Path) -> None:
    fitted().save(tmp_path / "c.json")
    code = f"""
import sys
from pathlib import Path
for name in ("sklearn", "scipy", "torch", "transformers"):
    sys.modules[name] = None
from bayesian_transformer.calibration import Calibrator
p = Calibrator.load(Path({str(tmp_path / "c.json")!r})).predict({{"ll_mean": [-1], "length": [-50], "eu_mean": [-1]}})
assert 0 < p[0] < 1
"""
    subprocess.run([sys.executable, "-P", "-c", code], check=True, timeout=60)


def _set(*keys: str | int, value: object) -> Callable[[dict[str, Any]], None]:
    def change(stored: dict[str, Any]) -> None:
        place: Any = stored
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value

    return change


def _drop(*keys: str) -> Callable[[dict[str, Any]], None]:
    def change(stored: dict[str, Any]) -> None:
        place = stored
        for key in keys[:-1]:
            place = place[key]
        del place[keys[-1]]

    return change


@pytest.mark.parametrize(
    ("method", "change", "says"),
    [
        ("logistic", _set("schema_version", value=2), "'schema_version' is 2, this program reads 1"),
        ("logistic", _drop("schema_version"), "'schema_version' is absent"),
        ("logistic", _set("schema_version", value=True), "'schema_version' must be a whole number"),
        ("logistic", _set("method", value="platt"), "'method' is 'platt', not one of logistic, isotonic, temperature"),
        ("logistic", _set("features", 0, value="nll"), "'features': no score is called 'nll'"),
        ("logistic", _set("features", value="ll_mean"), "'features' must be a list"),
        ("logistic", _set("features", 0, value=1), "'features' must be a list of texts"),
        ("logistic", _drop("parameters"), "'parameters' is absent"),
        ("logistic", _set("parameters", value=[]), "'parameters' must be an object"),
        ("logistic", _set("parameters", "intercept", value=None), "'parameters.intercept' must be a number"),
        ("logistic", _set("parameters", "intercept", value="1"), "'parameters.intercept' must be a number"),
        ("logistic", _set("parameters", "weights", value=[1, 2]), "'parameters.weights' must have one number for each"),
        ("logistic", _set("parameters", "weights", 1, value=None), "'parameters.weights' must be a list of finite"),
        ("logistic", _set("parameters", "means", 0, value=float("inf")), "'parameters.means' must be a list of finite"),
        ("logistic", _set("parameters", "scales", 0, value=0), "'parameters.scales' must be above 0"),
        ("logistic", _set("parameters", "intercept", value=float("nan")), "'parameters.intercept' is not finite"),
        ("logistic", _set("counts", "right", value=1.5), "'counts.right' must be a whole number"),
        ("logistic", _set("versions", "scikit-learn", value=1), "'versions.scikit-learn' must be a text"),
        ("logistic", _set("source", value=None), "'source' must be an object"),
        ("logistic", _set("notes", value=[None]), "'notes' must be a list of texts"),
        ("logistic", _set("acceptance", "alpha", value=2), "'acceptance.alpha' must be between 0 and 1"),
        ("logistic", _set("acceptance", "threshold", value="x"), "'acceptance.threshold' must be a number"),
        ("logistic", _set("acceptance", "accepted", value=301), "'acceptance.accepted' must be between 0 and the resp"),
        ("logistic", _set("acceptance", "accepted", value=-1), "'acceptance.accepted' must be between 0 and the resp"),
        ("logistic", _set("acceptance", "wrong", value=301), "'acceptance.wrong' must be between 0 and the accepted"),
        ("logistic", _set("acceptance", "wrong", value=-1), "'acceptance.wrong' must be between 0 and the accepted"),
        ("logistic", _set("parameters", "intercept", value=10**400), "'parameters.intercept' is not finite"),
        ("logistic", _set("parameters", "means", 0, value=-(10**400)), "'parameters.means' must be a list of finite"),
        ("isotonic", _set("parameters", "scores", 1, value=-99), "'parameters.scores' must rise"),
        ("isotonic", _set("parameters", "probabilities", 0, value=0.9), "'parameters.probabilities' must rise"),
        ("isotonic", _set("parameters", "probabilities", -1, value=1.5), "'parameters.probabilities' must rise"),
        ("isotonic", _set("parameters", "probabilities", value=[]), "'parameters.probabilities' must be as many"),
        ("isotonic", _set("parameters", "scores", value=[]), "'parameters.scores' must rise"),
        ("isotonic", _set("features", value=["ll_mean", "length"]), "'parameters.scores' belong to one feature"),
        ("temperature", _set("parameters", "temperature", value=0), "'parameters.temperature' must be above 0"),
        ("temperature", _set("features", value=["ll_mean", "length"]), "'parameters.temperature' belongs to one"),
    ],
)
def test_a_wrong_file_is_one_line(
    tmp_path: Path, method: str, change: Callable[[dict[str, Any]], None], says: str
) -> None:
    path = tmp_path / "c.json"
    calibrator = fitted(method)
    calibrator.accepting(threshold_for(calibrator.predict(DATA.table), DATA.right, 0.3)).save(path)
    stored = json.loads(path.read_text())
    change(stored)
    path.write_text(json.dumps(stored))
    with pytest.raises(ValueError, match="^" + str(path)) as caught:
        Calibrator.load(path)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_of_something_else_is_one_line(tmp_path: Path) -> None:
    for text in ("[1]", "{", "\x80"):
        (tmp_path / "c.json").write_text(text, encoding="latin-1")
        with pytest.raises(ValueError, match=str(tmp_path / "c.json")):
            Calibrator.load(tmp_path / "c.json")


def test_results_with_other_scores_are_refused() -> None:
    says = r"^these results have no length, eu_mean; the calibrator computes with ll_mean, length, eu_mean$"
    for use in (fitted().predict, fitted().reasons):
        with pytest.raises(ValueError, match=says):
            use({"ll_mean": [-1.0], "ll_sum": [-2.0]})


def test_what_does_not_fit_is_one_line() -> None:
    calibrator = fitted()
    assert calibrator.check() is None
    assert calibrator.check(**SOURCE) is None
    assert calibrator.check(**SOURCE, bayes_noise="left", temperature=None) is None  # not known when it was fitted
    assert calibrator.check(model="/models/TFB-m") is None
    assert calibrator.check(model="TFB-other", num_samples=10, bayes_sigma=0.1) == (
        "the calibrator was fitted on model 'TFB-m', not 'TFB-other'; num_samples 5, not 10: fit another one"
    )
    with pytest.raises(ValueError, match=r"^sigma cannot be compared; use model, weights_digest, dataset, num_samples"):
        calibrator.check(sigma=0.1)


def test_results_that_name_no_projections_have_the_noise_of_the_default() -> None:
    """As those have that were made before there was a choice. What says nothing of its noise is not compared."""
    known, other = {**SOURCE, "bayes_noise": "right"}, ["q_proj", "k_proj"]
    old = fit(DATA.table, DATA.right, DATA.groups, ("ll_mean", "eu_mean"), source=known)
    new = fit(DATA.table, DATA.right, DATA.groups, ("ll_mean", "eu_mean"), source={**known, "bayes_projections": other})
    assert old.check(**known, bayes_projections=["q_proj", "v_proj"]) is None
    assert old.check(**known, bayes_projections=other) == (
        f"the calibrator was fitted on bayes_projections ['q_proj', 'v_proj'], not {other}: fit another one"
    )
    assert new.check(**known, bayes_projections=other) is None
    assert new.check(**known) is not None
    assert new.check(**SOURCE) is None


def test_the_noise_matters_to_noisy_scores_only() -> None:
    clean = fit(DATA.table, DATA.right, DATA.groups, ("ll_mean", "length"), source=SOURCE)
    assert clean.check(num_samples=10, bayes_sigma=0.2) is None
    assert clean.check(dataset="math500") is not None
    assert fitted().check(bayes_sigma=0.2) is not None


def test_predictions_by_hand() -> None:
    logistic = Calibrator("logistic", ("ll_mean", "length"), Logistic((-1, 2), (2, 0.5), (3, -1), 0.25), {}, {})
    z = 0.25 + 3 * (-0.5 + 1) / 2 - (np.log(9) - 2) / 0.5
    assert logistic.predict({"ll_mean": [-0.5], "length": [-9]})[0] == pytest.approx(1 / (1 + np.exp(-z)))
    isotonic = Calibrator("isotonic", ("tu_sum",), Isotonic((-2, 0), (0.25, 0.75)), {}, {})
    assert isotonic.predict({"tu_sum": [-9, -2, -1, 0, 9]}).tolist() == [0.25, 0.25, 0.5, 0.75, 0.75]
    temperature = Calibrator("temperature", ("ll_mean",), Temperature(2.0), {}, {})
    odds = (0.9 / 0.1) ** 0.5  # of exp(ll_mean) = 0.9
    assert temperature.predict({"ll_mean": [np.log(0.9)]})[0] == pytest.approx(odds / (1 + odds))
