"""Aggregations of token values compared with plain Python, and what a response of one token gives."""

import math
from statistics import fmean, median

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bayesian_transformer.aggregations import (
    AGGREGATIONS,
    BURST_WIDTH,
    LONG_TAIL,
    Parts,
    bursts,
    edis,
    rebounds,
    spikes,
)
from bayesian_transformer.quantities import FIELDS, QUANTITIES
from bayesian_transformer.scores import SCORES, response_scores
from eval.utils.definitions import DEFINITIONS

responses = st.integers(1, 90).flatmap(
    lambda tokens: st.lists(
        st.lists(st.floats(0.001, 6), min_size=len(FIELDS), max_size=len(FIELDS)), min_size=tokens, max_size=tokens
    )
)


def close(value: float) -> object:
    return pytest.approx(value, rel=1e-9, abs=1e-9)


@given(responses, st.integers(1, 40))
def test_every_aggregation_equals_plain_python(rows: list[list[float]], window: int) -> None:
    arrays = {name: np.array(column) for name, column in zip(FIELDS, zip(*rows, strict=True), strict=True)}
    scores = response_scores(arrays, len(rows), window)
    entropy = arrays["entropy"].tolist()
    tail = min(max(math.sqrt(len(rows)) / fmean(entropy[-2048:]), 64), 2048)
    for quantity in QUANTITIES:
        own = [quantity.sign * value for value in arrays[quantity.name].tolist()]
        low = sorted(own)[: max(1, len(own) // 10)]
        expected = {
            "tail": fmean(own[-8:]),
            "long_tail": fmean(own[-2048:]),
            "adaptive_tail": median(own[-int(tail) :]),
            "median": median(own),
            "worst_decile": fmean(low),
        }
        if quantity.name != "confidence":
            width = min(window, len(own))
            expected["worst_group"] = min(fmean(own[i : i + width]) for i in range(len(own) - width + 1))
        for name, value in expected.items():
            assert scores[f"{quantity.prefix}_{name}"] == close(value), name
    share = math.fsum(arrays["epistemic"]) / math.fsum(arrays["total"])
    assert scores["eu_share"] == close(-share)


@given(responses)
def test_instability_equals_plain_python(rows: list[list[float]]) -> None:
    arrays = {name: np.array(column) for name, column in zip(FIELDS, zip(*rows, strict=True), strict=True)}
    scores, tokens = response_scores(arrays, len(rows)), len(rows)
    for prefix, field in (("entropy", "entropy"), ("eu", "epistemic")):
        doubt = arrays[field]
        values = (doubt / doubt.mean() if prefix == "eu" else doubt).tolist()
        steps = range(1, tokens)
        counts = {
            "spikes": sum(abs(values[t] - values[t - 1]) > 0.7 for t in steps),
            "bursts": sum(values[t + BURST_WIDTH] - values[t] > 1.36 for t in range(tokens - BURST_WIDTH)),
            "rebounds": sum(values[t] - min(values[:t]) > 1.33 for t in steps),
        }
        variance = fmean((value - fmean(values)) ** 2 for value in values)
        counts["edis"] = 0.5 * (counts["bursts"] + counts["rebounds"]) * (1 + variance)
        for name, count in counts.items():
            assert scores[f"{prefix}_{name}"] == close(-count), name
            assert scores[f"{prefix}_{name}_rate"] == close(-count / tokens), name


def test_counts_of_a_known_series() -> None:
    doubt = np.array([0.0, 0.1, 2.0, 2.1, 0.2, 1.9])
    assert (spikes(doubt), bursts(doubt), rebounds(doubt)) == (3, 1, 3)
    assert edis(doubt) == close(0.5 * 4 * (1 + float(np.var(doubt))))


def test_one_token_has_itself_and_no_change() -> None:
    arrays = {name: np.array([0.5 + index]) for index, name in enumerate(FIELDS)}
    scores = response_scores(arrays, 1, parts=Parts(range(1), (range(1),)))
    for score in SCORES:
        if score.quantity is None or score.aggregation.name == "share":
            continue
        changes = score.aggregation.heading == "Instability"
        expected = 0.0 if changes else score.sign * arrays[score.quantity.name][0]
        assert scores[score.name] == close(expected), score.name


def ranges(tokens: int) -> st.SearchStrategy[range]:
    """Tokens that lie together, at times none."""
    return st.tuples(st.integers(0, tokens), st.integers(0, tokens)).map(lambda ends: range(min(ends), max(ends)))


@given(responses, st.data())
def test_answer_and_worst_step_equal_plain_python(rows: list[list[float]], data: st.DataObject) -> None:
    arrays = {name: np.array(column) for name, column in zip(FIELDS, zip(*rows, strict=True), strict=True)}
    parts = Parts(data.draw(ranges(len(rows))), tuple(data.draw(st.lists(ranges(len(rows)), max_size=4))))
    scores = response_scores(arrays, len(rows), parts=parts)
    for quantity in QUANTITIES:
        own = [quantity.sign * value for value in arrays[quantity.name].tolist()]
        steps = [fmean(own[token] for token in step) for step in parts.steps if step]
        answer = fmean(own[token] for token in parts.answer) if parts.answer else math.nan
        expected = {"answer": answer, "worst_step": min(steps, default=math.nan)}
        for name, value in expected.items():
            assert scores[f"{quantity.prefix}_{name}"] == pytest.approx(value, rel=1e-9, nan_ok=True), name


def test_no_noise_is_no_instability_and_no_share() -> None:
    arrays = {name: np.zeros(5) for name in FIELDS}
    scores = response_scores(arrays, 5)
    assert scores["eu_spikes"] == scores["eu_edis_rate"] == 0
    assert math.isnan(scores["eu_share"])  # of no uncertainty at all


def test_a_long_response_has_tails_of_its_end() -> None:
    arrays = {name: np.ones(3000) for name in FIELDS}
    arrays["logprob"] = np.arange(3000, dtype=np.float64)
    arrays["entropy"] = np.full(3000, 0.1)  # sqrt(3000) / 0.1 = 547.7 tokens
    scores = response_scores(arrays, 3000)
    assert scores["ll_long_tail"] == fmean(range(3000 - LONG_TAIL, 3000))
    assert scores["ll_adaptive_tail"] == median(range(3000 - 547, 3000))


def test_names_and_formulas_are_complete() -> None:
    assert all(how.formula and how.quantities for how in AGGREGATIONS)


def test_the_report_defines_each_name_once_with_both_units_and_the_bounds_of_the_adaptive_tail() -> None:
    explained = dict(DEFINITIONS)
    assert len(explained) == len(DEFINITIONS)
    for name in ("Spikes", "Bursts", "Rebounds", "Edis"):
        for term in (name, f"{name} per token"):
            assert explained[term].endswith("; entropy in nats, EU in units of its mean.")
    assert explained["Adaptive tail"].endswith("; at least 64 and at most 2,048.")
    formulas = {(how.name, how.formula) for how in AGGREGATIONS}
    assert len(formulas) == len({name for name, _ in formulas})  # the report explains a name once
