"""Response scores beside plain Python sums, and their bad input."""

import math
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bayesian_transformer.scores import BY_NAME, SCORES, group_means, response_scores, token_arrays
from bayesian_transformer.uncertainty import FIELDS

values = st.lists(st.floats(0, 50), min_size=1, max_size=60)
FIELD_OF = {
    "tu": "total", "au": "aleatoric", "eu": "epistemic", "bir": "implicit_reward", "ll_sum": "logprob",
    "pe": "entropy", "ce_sum": "self_certainty", "dc_sum": "confidence",
}  # fmt: skip
MEAN_OF = {
    "tu": "ntu", "au": "nau", "eu": "neu", "bir": "nbir", "ll_sum": "ll", "pe": "npe", "ce_sum": "ce", "dc_sum": "dc",
}  # fmt: skip
CONFIDENT = {"logprob", "self_certainty", "confidence"}


@given(values, st.integers(1, 70))
def test_sums_means_and_groups_equal_plain_python(numbers: list[float], window: int) -> None:
    arrays = {name: np.array(numbers) * (i + 1) for i, name in enumerate(FIELDS)}
    scores = response_scores(arrays, len(numbers), window)
    assert set(scores) == {score.name for score in SCORES}
    for name, field in FIELD_OF.items():
        sign = 1 if field in CONFIDENT else -1
        own = arrays[field].tolist()
        assert scores[name] == pytest.approx(sign * math.fsum(own), abs=1e-9)
        assert scores[MEAN_OF[name]] == pytest.approx(sign * fmean(own), abs=1e-9)
    confidence = arrays["confidence"].tolist()
    width = min(window, len(confidence))
    groups = sorted(fmean(confidence[i : i + width]) for i in range(len(confidence) - width + 1))
    assert scores["dc_low"] == pytest.approx(groups[0], abs=1e-9)
    assert scores["dc_bottom"] == pytest.approx(fmean(groups[: max(1, len(groups) // 10)]), abs=1e-9)
    assert scores["length"] == -len(numbers)


def test_a_response_shorter_than_the_window_is_one_group() -> None:
    assert group_means(np.array([1.0, 3.0]), 32).tolist() == [2.0]


def test_a_value_that_is_not_finite_makes_only_its_scores_nan() -> None:
    arrays = {name: np.ones(3) for name in FIELDS}
    arrays["self_certainty"] = np.array([1.0, np.nan, 1.0])
    arrays["entropy"] = np.array([np.inf, 1.0, 1.0])
    scores = response_scores(arrays, 3)
    assert {name for name, value in scores.items() if math.isnan(value)} == {"ce", "ce_sum", "pe", "npe"}


def test_no_token_gives_zero_sums_and_undefined_means() -> None:
    scores = response_scores({name: np.zeros(0) for name in FIELDS}, 0)
    for name, value in scores.items():
        assert value == 0 if BY_NAME[name].kind in ("sum", "length") else math.isnan(value)


def test_null_in_a_stored_array_becomes_nan() -> None:
    arrays = token_arrays({key: [2.0, 3.0] for key in FIELDS} | {"total": [1.0, None]}, 2)
    assert np.isnan(arrays["total"]).tolist() == [False, True]
    assert arrays["entropy"].tolist() == [2.0, 3.0]


@pytest.mark.parametrize(("bad", "message"), [([1.0], "one value per token"), (["x", "y"], "not a list of numbers")])
def test_a_bad_array_is_named(bad: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=rf"'entropy'.*{message}"):
        token_arrays({key: [2.0, 3.0] for key in FIELDS} | {"entropy": bad}, 2)
