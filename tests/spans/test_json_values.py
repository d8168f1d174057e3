"""The values of JSON answers with their places: beside `json.loads`, and beside a character-level brute force."""

import json
import re
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bayesian_transformer.spans import field_scores, json_spans, place, token_offsets
from bayesian_transformer.spans.json_values import LONGEST_PATH

KEYS = st.one_of(st.sampled_from(["a", "b", "ab_1", "two words", "", '"', "é", "\u202e", "0"]), st.text(max_size=4))
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=6))
VALUES = st.recursive(
    SCALARS, lambda v: st.one_of(st.lists(v, max_size=4), st.dictionaries(KEYS, v, max_size=4)), max_leaves=12
)
ROOTS = st.one_of(st.lists(VALUES, max_size=4), st.dictionaries(KEYS, VALUES, max_size=4))
STYLE = st.sampled_from([{}, {"indent": 2}, {"separators": (",", ":")}, {"ensure_ascii": False, "indent": "\t"}])


def leaves(value: Any, path: str = "$") -> dict[str, Any]:
    """The scalars of a parsed document by path, written recursively."""
    if isinstance(value, list):
        return {k: v for i, item in enumerate(value) for k, v in leaves(item, f"{path}[{i}]").items()}
    if isinstance(value, dict):
        found: dict[str, Any] = {}
        for key, item in value.items():
            is_plain = re.fullmatch(r"[A-Za-z_\x80-\U0010ffff][A-Za-z_0-9\x80-\U0010ffff]*", key) and key.isprintable()
            step = f".{key}" if is_plain else f"[{json.dumps(key, ensure_ascii=not key.isprintable())}]"
            found |= leaves(item, path + step)
        return found
    return {path: value}


def literal(text: str, start: int, end: int) -> Any:
    """The value that stands at [start, end); of a string the characters between its quotes."""
    inside = text[start:end]
    if inside != '""' and text[start - 1 : start] == '"':
        inside = f'"{inside}"'
    return json.loads(inside, strict=False)


@settings(deadline=None)
@given(
    document=ROOTS,
    style=STYLE,
    around=st.sampled_from(["{}", "```json\n{}\n```", "Sure!\n```\n{}\n```\nDone.", " \n{} "]),
)
def test_complete_documents_agree_with_the_parser(document: Any, style: Any, around: str) -> None:
    text = around.replace("{}", json.dumps(document, **style))
    spans = json_spans(text)
    found = {span.name: literal(text, span.start, span.end) for span in spans}
    assert repr(found) == repr(leaves(document))  # NaN is not equal to itself
    assert [span.start for span in spans] == sorted(span.start for span in spans)
    assert not any(span.cut for span in spans)


@settings(deadline=None)
@given(document=ROOTS, style=STYLE, share=st.floats(0, 1))
def test_a_cut_document_keeps_what_stands_before_the_cut(document: Any, style: Any, share: float) -> None:
    whole = json.dumps(document, **style)
    text = whole[: int(share * len(whole))]
    expected = json_spans(whole)
    found = json_spans(text)
    assert [span.name for span in found] == [span.name for span in expected][: len(found)]
    for span, full in zip(found, expected, strict=False):
        assert span.start == full.start or (span.cut and span.start == full.start - 1)  # nothing but its quote
        assert span.end == (len(text) if span.cut else full.end)
    assert not any(span.cut for span in found[:-1])
    assert all(full.start >= len(text) for full in expected[len(found) :])


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ('{"a": "x", "b": {"c": [1, {"d e": null}]}}', {"$.a": "x", "$.b.c[0]": "1", '$.b.c[1]["d e"]': "null"}),
        ('{"a": 1, "b": 2, "a": 3}', {"$.b": "2", "$.a": "3"}),  # as json.loads: the last one counts
        ('{"a": {"x": 1}, "a": {}}', {}),
        ('{"a": {"x": 1, "x": 2}, "a": {"y": 3}}', {"$.a.y": "3"}),
        ('{"a": 1, "a"', {"$.a": "1"}),
        ('{"a": ""}', {"$.a": '""'}),
        (
            r'{"a": "\frac{1}{2} \sqrt{3}", "b": "raw' + "\n" + 'line"}',
            {"$.a": r"\frac{1}{2} \sqrt{3}", "$.b": "raw\nline"},
        ),
        ('The set {1, 2} and {x} give {"a": 1} and {"b": 2}.', {"$.b": "2"}),
        ("The interval [1, 2] is closed.", {}),
        ("[1, 2] is closed.", {"$[0]": "1", "$[1]": "2"}),
        (r"So \boxed{12", {}),
        ("12.5", {"$": "12.5"}),
        ('"Twelve," he said', {}),
        ("12 apples", {}),
        ("I", {}),
        ('{"a": 1,}', {}),
        ("{'a': 1}", {}),
        ('```json\n{"a": 1}\n```\nNo:\n```json\n{"a": 2}\n```', {"$.a": "2"}),
        ('```python\nx = 5\n```\nso {"a": 1}', {"$.a": "1"}),
        ('```json\n{"a": "``` inside", "b": 1}\n```', {"$.a": "``` inside", "$.b": "1"}),
        ('<think>{"a": 1}</think>{"b": 2}', {"$.b": "2"}),
        ('{"a": 1}</think>\n{"b": 2}', {"$.b": "2"}),
        ('<think>{"a": 1}', {}),
        ("", {}),
    ],
)
def test_values(text: str, values: dict[str, str]) -> None:
    assert {span.name: text[span.start : span.end] for span in json_spans(text)} == values


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ('{"a": [1, "abc', "$.a[1]", "abc"),
        ('{"a": "', "$.a", '"'),
        ('{"a": "x\\', "$.a", "x\\"),
        ('{"a": 12', "$.a", "12"),
        ('{"a": -', "$.a", "-"),
        ('{"a": 1.', "$.a", "1."),
        ('{"a": 1e', "$.a", "1e"),
        ('{"a": tru', "$.a", "tru"),
        ('```json\n{"a": [1, 2.5', "$.a[1]", "2.5"),
    ],
)
def test_the_value_that_is_cut_off_is_marked(text: str, name: str, value: str) -> None:
    last = json_spans(text)[-1]
    assert (last.name, text[last.start : last.end], last.cut) == (name, value, True)


def test_deep_and_hostile_documents_take_linear_time_and_no_recursion() -> None:
    deep = 50_000
    for text in (
        "[" * deep,
        '{"a":' * deep,
        "{" * deep,
        '"' * deep,
        "[" * deep + "]" * deep,
        '{"a":1}' * deep,
        "```\n" * deep,
    ):
        json_spans(text)
    with pytest.raises(ValueError, match=f"more than {LONGEST_PATH}"):
        json_spans("[1," * deep)
    many = json_spans('{"a":1,' * 1 + '"a":1,' * deep + '"b":2}')
    assert [span.name for span in many] == ["$.a", "$.b"]


@settings(deadline=None)
@given(document=ROOTS, style=STYLE, data=st.data())
def test_field_scores_against_a_map_of_characters(document: Any, style: Any, data: st.DataObject) -> None:
    """Each character of a value is asked for its tokens, one by one."""
    text = json.dumps(document, **style)
    places = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=12)))
    borders = [0, *places, len(text)]
    tokens = [text[start:end] for start, end in pairwise(borders)]
    array = data.draw(st.lists(st.one_of(st.none(), st.floats(-9, 9)), min_size=len(tokens), max_size=len(tokens)))
    owner = [index for index, token in enumerate(tokens) for _ in token]
    scores = field_scores(text, tokens, {"epistemic": array})
    assert scores.keys() == leaves(document).keys()
    for score in scores.values():
        own = {owner[place] for place in range(score.span.start, score.span.end)}
        spelled = [index for index in range(min(own), max(own) + 1) if tokens[index]]
        assert [index for index in score.span.tokens if tokens[index]] == spelled == sorted(own)
        known = [value for value in (array[index] for index in score.span.tokens) if value is not None]
        summary = score.quantities["epistemic"]
        if known:
            assert (summary["min"], summary["max"]) == (min(known), max(known))
            assert summary["mean"] == pytest.approx(sum(known) / len(known))
        else:
            assert str(summary) == str(dict.fromkeys(("min", "mean", "max"), np.nan))


def test_a_token_that_straddles_values_counts_for_each() -> None:
    scores = field_scores('{"a":1,"b":2}', ['{"a":', '1,"b":2', "}"], {"total": [0.5, 1.0, 9.0]})
    assert {path: (score.tokens, score.quantities["total"]["mean"]) for path, score in scores.items()} == {
        "$.a": (1, 1.0),
        "$.b": (1, 1.0),
    }


def test_what_cannot_be_placed_is_said() -> None:
    with pytest.raises(ValueError, match="do not spell the text"):
        field_scores('{"a":1}', ["x"], {})
    with pytest.raises(ValueError, match=r"total must have one value per token \(1\); it has 2"):
        field_scores("1", ["1"], {"total": [1.0, 2.0]})


def test_a_special_token_between_belongs_to_the_span() -> None:
    text = '{"a":"xy"}'
    offsets = token_offsets(['{"a":"', "x", "<s>", "y", '"}'], text, special=["<s>"])
    assert offsets is not None
    assert place(json_spans(text), offsets)[0].tokens == range(1, 4)
