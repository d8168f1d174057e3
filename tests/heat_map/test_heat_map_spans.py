"""Spans on the heat map: outlines, the list and its order, and a page that is the same where nobody asks for them."""

import re
from pathlib import Path

import pytest

from bayesian_transformer.heat_map import Response
from bayesian_transformer.heat_map.page import render
from bayesian_transformer.spans import Span
from tests.helpers.heat_map_pages import Page, a_record, a_response, run, write

TOKENS = ['{"', "a", '": ', "1", ', "b', '":"', "x<b>", " y", '"}']
VALUES = {
    "epistemic": [0.0, 0.0, 0.0, 0.1, 0.0, 0.0, 0.5, 0.2, 9.0],
    "logprob": [0.0, 0.0, 0.0, -4.0, 0.0, 0.0, -1.0, -2.0, 0.0],
}


def rows(page: str) -> list[list[str]]:
    """The cells of the lists of spans, without markup."""
    bodies = re.findall(r'<div class="spans">.*?<tbody>(.*?)</tbody>', page, re.DOTALL)
    cells = [re.findall(r"<t[hd].*?</t[hd]>", row) for body in bodies for row in body.split("</tr>")]
    return [[re.sub("<.*?>", "", cell) for cell in row] for row in cells if row]


def styles(page: str) -> list[str]:
    """The classes of the tokens, which come behind the steps of the scales."""
    text = page[page.index('<div class="text tokens"') :]
    return [a.get("class") or "" for tag, a in Page(text).tags if tag == "span" and "data-level" in a]


def test_the_least_certain_span_comes_first() -> None:
    page = render([a_response(TOKENS, values=VALUES).with_spans(["json"])], "t")
    assert rows(page) == [
        ["$.b", "x&lt;b&gt; y", "2", "0.3500", "0.5000"],
        ["$.a", "1", "1", "0.1000", "0.1000"],
    ]
    spans = Page(page).data[0]["spans"]
    assert spans["tokens"] == [[6, 8], [3, 4]]
    assert spans["by"]["epistemic"]["order"] == [0, 1]
    assert spans["by"]["logprob"] == {"order": [1, 0], "mean": ["-1.5000", "-4.0000"], "worst": ["-2.0000", "-4.0000"]}


def test_spans_are_outlined() -> None:
    page = render([a_response(TOKENS, values=VALUES).with_spans(["json"])], "t")
    frame = "frame frame-first frame-last"
    assert styles(page) == ["", "", "", frame, "", "", "frame frame-first", "frame frame-last", ""]
    steps = a_response(["One", ".", "\n\n", "Two"]).with_spans(["steps", "steps"])
    page = render([steps], "t")
    assert styles(page) == ["flow flow-first", "flow flow-last", "", "flow flow-first flow-last"]
    assert re.findall('data-mark="(.*?)"', page) == ["1", "2"]


def test_spans_of_the_caller_are_shown_with_those_found() -> None:
    own = Span("<mine>", 0, 3, tokens=range(0, 2), cut=True)
    response = a_response(["One", ".", "\n\n", "Two"], spans=[own]).with_spans(["steps"])
    names = [row[0] for row in rows(render([response], "t"))]
    assert sorted(names) == ["&lt;mine&gt; cut off", "step 1", "step 2"]


def test_spans_without_tokens_or_values_come_last() -> None:
    values = {"epistemic": [None, 0.1]}
    response = a_response(["a", "b"], values=values, spans=[Span("x", 0, 1, range(0, 1)), Span("y", 1, 2, range(1, 2))])
    assert [(row[0], row[3]) for row in rows(render([response], "t"))] == [("y", "0.1000"), ("x", "–")]


def test_nobody_asked_nothing_grows() -> None:
    """Neither style nor script nor data; the page of one response that has a list has them."""
    plain, asked = a_response(["a"]), a_response(["a"], spans=[])
    for word in ("spans", "frame", ".flow", "data-mark"):
        assert word not in render([plain], "t")
    assert "There are none of the spans" in render([asked], "t")
    assert "sortSpans" in render([plain, asked], "t")
    assert [("spans" in section) for section in Page(render([plain, asked], "t")).data] == [False, True]


def test_what_cannot_be_placed_is_said() -> None:
    with pytest.raises(ValueError, match="r: the tokens do not spell the text"):
        a_response(["a"], text="b").with_spans(["json"])
    with pytest.raises(ValueError, match="'jsn' is not a kind of span; choose from answer, json"):
        a_response(["a"]).with_spans(["jsn"])


def test_the_command_outlines(tmp_path: Path) -> None:
    good, bad = a_record(TOKENS, id="good"), a_record(["a"], response="b", id="bad")
    source = write(tmp_path / "scores.jsonl", good, bad)
    page = tmp_path / "page.html"
    result = run(source, "--output", page, "--spans", "json", "--spans", "steps")
    assert result.exit_code == 1
    assert result.stderr == (
        "bad: the tokens do not spell the text, so no span in it can be placed; it is shown without spans\n"
    )
    assert "2 of 2 responses shown, 0 failed" in result.stdout
    assert sorted(row[0] for row in rows(page.read_text())) == ["$.a", "$.b", "step 1"]
    assert run(write(source, good), "--output", page, "--spans", "answer").exit_code == 0
    assert run(source, "--output", page, "--spans", "words").exit_code == 2


def test_a_response_knows_its_text() -> None:
    assert Response("r", [0, 1], ["a", "b"], {"total": [0.0, 1.0]}).whole_text == "ab"
