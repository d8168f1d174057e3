"""Response scores compared with plain Python sums, their names, and their bad input."""

import math
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bayesian_transformer.aggregations import Parts, group_means
from bayesian_transformer.quantities import FIELDS
from bayesian_transformer.quantities import QUANTITY_BY_NAME as QUANTITY
from bayesian_transformer.scores import (
    ALIASES,
    LISTED,
    PRIMARY,
    SAMPLED_SCORES,
    SCORE_BY_NAME,
    SCORES,
    record_arrays,
    response_scores,
)

values = st.lists(st.floats(0, 50), min_size=1, max_size=60)
FIELD_OF = {
    "tu": "total", "au": "aleatoric", "eu": "epistemic", "bir": "implicit_reward", "ll": "logprob",
    "entropy": "entropy", "self_certainty": "self_certainty", "confidence": "confidence",
}  # fmt: skip
CONFIDENT = {"logprob", "self_certainty", "confidence"}


@given(values, st.integers(1, 70))
def test_sums_means_and_groups_equal_plain_python(numbers: list[float], window: int) -> None:
    arrays = {name: np.array(numbers) * (i + 1) for i, name in enumerate(FIELDS)}
    scores = response_scores(arrays, len(numbers), window)
    assert set(scores) == {score.name for score in SCORES}
    for prefix, field in FIELD_OF.items():
        sign = 1 if field in CONFIDENT else -1
        own = arrays[field].tolist()
        assert scores[f"{prefix}_sum"] == pytest.approx(sign * math.fsum(own), abs=1e-9)
        assert scores[f"{prefix}_mean"] == pytest.approx(sign * fmean(own), abs=1e-9)
    confidence = arrays["confidence"].tolist()
    width = min(window, len(confidence))
    groups = sorted(fmean(confidence[i : i + width]) for i in range(len(confidence) - width + 1))
    assert scores["confidence_lowest_group"] == pytest.approx(groups[0], abs=1e-9)
    assert scores["confidence_bottom_groups"] == pytest.approx(fmean(groups[: max(1, len(groups) // 10)]), abs=1e-9)
    assert scores["length"] == -len(numbers)


def test_every_name_says_quantity_and_aggregation() -> None:
    groups = ["confidence_lowest_group", "confidence_bottom_groups"]
    sums, means = ([f"{prefix}_{end}" for prefix in FIELD_OF] for end in ("sum", "mean"))
    assert [score.name for score in LISTED] == ["length", *sums, *means, *groups, "eu_tail", "ll_tail"]
    assert len(SCORE_BY_NAME) == len(SCORES)
    assert set(PRIMARY) <= {score.name for score in LISTED}
    assert len(PRIMARY) <= 5
    assert [SCORE_BY_NAME[name].label for name in ("length", "tu_sum", "ll_mean", "confidence_lowest_group")] == [
        "Token count", "TU, sum", "Logprob, mean", "Confidence, lowest group",
    ]  # fmt: skip
    for score in SCORES:
        if score.quantity is not None:
            assert QUANTITY[FIELD_OF[score.quantity.prefix]] is score.quantity
            assert score.sign == (1 if score.quantity.name in CONFIDENT else -1)


def test_each_alias_means_one_score_within_its_file() -> None:
    assert set(ALIASES) <= set(SCORE_BY_NAME)
    assert all(SCORE_BY_NAME[name].aliases is aliases for name, aliases in ALIASES.items())
    scaling = [score.scaling_name for score in SAMPLED_SCORES]
    places = [score.aliases.record for score in SAMPLED_SCORES]
    detection = [score.aliases.detection for score in SCORES if score.aliases.detection]
    for names in (scaling, places, detection):
        assert len(set(names)) == len(names)
    assert {SCORE_BY_NAME["ll_mean"].aliases.detection, SCORE_BY_NAME["ll_sum"].aliases.scaling} == {"ll"}


def test_a_response_shorter_than_the_window_is_one_group() -> None:
    assert group_means(np.array([1.0, 3.0]), 32).tolist() == [2.0]


def test_a_value_that_is_not_finite_makes_only_its_scores_nan() -> None:
    arrays = {name: np.ones(3) for name in FIELDS}
    arrays["self_certainty"] = np.array([1.0, np.nan, 1.0])
    arrays["entropy"] = np.array([np.inf, 1.0, 1.0])
    scores = response_scores(arrays, 3, parts=Parts(range(1), (range(3),)))
    own = {name for name in scores if name.startswith(("self_certainty_", "entropy_"))}
    assert {name for name, value in scores.items() if math.isnan(value)} == own | {
        name
        for name in scores
        if name.endswith("_adaptive_tail")  # the entropy decides how long it is
    }


def test_no_token_gives_zero_sums_and_undefined_means() -> None:
    scores = response_scores({name: np.zeros(0) for name in FIELDS}, 0)
    counts = ("length", "_sum", "_spikes", "_bursts", "_rebounds", "_edis")
    for name, value in scores.items():
        assert value == 0 if name.endswith(counts) else math.isnan(value)


def test_null_in_a_stored_array_becomes_nan() -> None:
    arrays = record_arrays({key: [2.0, 3.0] for key in FIELDS} | {"total": [1.0, None]}, 2)
    assert np.isnan(arrays["total"]).tolist() == [False, True]
    assert arrays["entropy"].tolist() == [2.0, 3.0]


@pytest.mark.parametrize(("bad", "message"), [([1.0], "one value per token"), (["x", "y"], "not a list of numbers")])
def test_a_bad_array_is_named(bad: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=rf"'entropy'.*{message}"):
        record_arrays({key: [2.0, 3.0] for key in FIELDS} | {"entropy": bad}, 2)
