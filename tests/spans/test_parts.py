"""The answer and the steps of a response as tokens, and of stored records, against a search by characters."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bayesian_transformer.aggregations import NO_PARTS
from bayesian_transformer.graded import record_scores
from bayesian_transformer.quantities import FIELDS
from bayesian_transformer.spans import parts_of, token_offsets

TEXT = "First 3 + 4 = 7.\n\nThen 7 - 2 = 5.\n \nSo we get \\boxed{5}."
CUTS, ANSWER = [5, 16, 20, 51, 52], 5  # the last of six tokens is "{5}."
STEPS = ["First 3 + 4 = 7.", "Then 7 - 2 = 5.", "So we get \\boxed{5}."]


def cut(text: str, places: list[int]) -> list[str]:
    edges = sorted({0, len(text), *(place % len(text) for place in places)})
    return [text[start:end] for start, end in pairwise(edges)]


@given(st.lists(st.integers(0, 1000), max_size=30))
def test_tokens_of_answer_and_steps_share_a_character_with_them(places: list[int]) -> None:
    tokens = cut(TEXT, places)
    parts = parts_of(TEXT, token_offsets(tokens, TEXT))
    owner = [index for index, token in enumerate(tokens) for _ in token]
    answer = TEXT.index("{5}") + 1
    assert list(parts.answer) == [owner[answer]]
    assert len(parts.steps) == len(STEPS)
    for step, found in zip(STEPS, parts.steps, strict=True):
        start = TEXT.index(step)
        assert list(found) == sorted(set(owner[start : start + len(step)]))


def test_nothing_is_known_without_offsets_or_without_an_answer() -> None:
    assert parts_of(TEXT, None) == NO_PARTS
    parts = parts_of("I do not know.", [(0, 14)])
    assert (parts.answer, parts.steps) == (range(0), (range(1),))
    assert parts_of("", []) == NO_PARTS


def record(**changes: Any) -> dict[str, Any]:
    tokens = cut(TEXT, CUTS)
    arrays = {name: np.linspace(0.1, 1.0, len(tokens)).tolist() for name in FIELDS}
    offsets = [list(pair) for pair in token_offsets(tokens, TEXT) or ()]
    own = {"unique_id": "one", "text": TEXT, "token_ids": [*range(len(tokens))], "token_offsets": offsets}
    return {**own, **arrays, **changes}


def test_a_record_has_scores_of_its_answer_and_of_its_steps() -> None:
    scores, values = record_scores(record()), record()["logprob"]
    assert scores["ll_answer"] == pytest.approx(values[ANSWER])
    assert scores["ll_worst_step"] == pytest.approx(np.mean(values[:2]))  # the first step has the smallest values


@pytest.mark.parametrize("offsets", [{}, {"token_offsets": None}])
def test_an_older_record_has_none_of_them_and_all_others(offsets: dict[str, None]) -> None:
    older = {key: value for key, value in record().items() if key != "token_offsets"} | offsets
    scores, newer = record_scores(older), record_scores(record())
    missing = {name for name, value in scores.items() if np.isnan(value)}
    assert missing == {name for name in scores if name.endswith(("_answer", "_worst_step"))}
    assert all(scores[name] == newer[name] for name in scores.keys() - missing)


EARLIER = [[0, 1]] * 5


@pytest.mark.parametrize(
    "offsets",
    [
        "x",
        [[0, 1]],
        [[0, 1]] * 5 + [[2, 1]],
        [[0, 1]] * 5 + [[0.0, 1]],
        [[0]] * 6,
        [*EARLIER, [0, len(TEXT) + 1]],
        [*EARLIER, [0, 10**30]],
    ],
)
def test_wrong_offsets_are_named(offsets: Any) -> None:
    with pytest.raises(ValueError, match="response one: 'token_offsets' must be a range"):
        record_scores(record(token_offsets=offsets))
