"""The stop rule against the plain formula, and what is said of a request's keys."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bayesian_transformer.quantities import FIELDS
from bayesian_transformer.stop_rule import REQUEST_KEYS, StopRule

DOUBT = ("total", "aleatoric", "epistemic", "implicit_reward", "entropy")
TOKENS = st.lists(st.floats(-10, 10, width=32) | st.sampled_from([None, math.nan, math.inf, -math.inf]), max_size=40)


def plain(rule: StopRule, values: list[float | None]) -> int | None:
    """After how many tokens: each window by itself, in float64."""
    array = np.array([math.nan if value is None else value for value in values], dtype=np.float64)
    for end in range(max(rule.window, rule.min_tokens), len(array) + 1):
        window = array[end - rule.window : end]
        if np.isfinite(window).all():
            mean = math.fsum(window) / rule.window
            if mean > rule.threshold if rule.quantity in DOUBT else mean < rule.threshold:
                return end
    return None


@given(
    st.sampled_from(FIELDS), st.floats(-10, 10), st.integers(1, 12), st.integers(0, 20), TOKENS
)  # fmt: skip
def test_it_stops_where_the_formula_says(
    quantity: str, threshold: float, window: int, min_tokens: int, values: list[float | None]
) -> None:
    rule = StopRule(quantity, threshold, window, min_tokens)
    assert rule.stopped_after(values) == plain(rule, values)


@pytest.mark.parametrize("quantity", FIELDS)
def test_the_side_of_the_threshold(quantity: str) -> None:
    """A mean that equals the threshold does not stop."""
    rule = StopRule(quantity, 1.0, window=2)
    high, low = [2.0, 2.0], [0.0, 0.0]
    assert rule.stopped_after(high) == (2 if quantity in DOUBT else None)
    assert rule.stopped_after(low) == (None if quantity in DOUBT else 2)
    assert rule.stopped_after([1.0] * 9) is None


def test_a_request_and_its_rule_say_the_same() -> None:
    rule = StopRule("epistemic", 0.5, 16, 64)
    assert StopRule.from_request({"other": 1, **rule.request_keys()}) == rule
    assert tuple(rule.request_keys()) == REQUEST_KEYS
    assert StopRule.from_request(None) is StopRule.from_request({"other": 1}) is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"uncertainty_stop": "eu"}, "uncertainty_stop must be one of total, "),
        ({"uncertainty_stop": ["epistemic"]}, "uncertainty_stop must be one of total, "),
        ({"uncertainty_threshold": "1"}, "uncertainty_threshold must be a finite number; got '1'"),
        ({"uncertainty_threshold": math.nan}, "uncertainty_threshold must be a finite number; got nan"),
        ({"uncertainty_threshold": 10**400}, "uncertainty_threshold must be a finite number; got 1000"),
        ({"uncertainty_threshold": True}, "uncertainty_threshold must be a finite number; got True"),
        ({"uncertainty_window": 0}, "uncertainty_window must be an integer from 1 to 4096; got 0"),
        ({"uncertainty_window": 1.5}, "uncertainty_window must be an integer from 1 to 4096; got 1.5"),
        ({"uncertainty_window": 10**9}, "uncertainty_window must be an integer from 1 to"),
        ({"uncertainty_min_tokens": -1}, "uncertainty_min_tokens must be an integer from 0 to 1048576; got -1"),
        ({"uncertainty_treshold": 1}, "uncertainty_treshold is not known; the keys are uncertainty_stop, "),
        ({"uncertainty_stop": ...}, "uncertainty_stop is missing beside uncertainty_threshold; a rule needs"),
        ({"uncertainty_threshold": ...}, "uncertainty_threshold is missing beside uncertainty_stop; a rule needs"),
    ],
)
def test_what_a_request_may_not_ask(changes: dict[str, Any], said: str) -> None:
    asked = {"uncertainty_stop": "epistemic", "uncertainty_threshold": 0.5} | changes
    with pytest.raises(ValueError, match="^" + said.replace("[", r"\[")) as error:
        StopRule.from_request({key: value for key, value in asked.items() if value is not ...})
    assert "\n" not in str(error.value)
