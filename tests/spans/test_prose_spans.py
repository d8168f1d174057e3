"""Answers, thinking, steps, sentences and patterns in the text of a response."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bayesian_transformer.spans import (
    Span,
    answer_spans,
    place,
    regex_spans,
    sentence_spans,
    span_scores,
    step_spans,
    thinking_spans,
)  # fmt: skip
from bayesian_transformer.spans.prose import LONGEST_SEARCHED


def shown(text: str, spans: list[Span]) -> list[str]:
    return [text[span.start : span.end] for span in spans]


@pytest.mark.parametrize(
    ("text", "answer", "at"),
    [
        (r"So \boxed{5}, and 5 again.", "5", 10),
        (r"First \boxed{1}, then \boxed{12", "1", 13),  # the box that never closes has no answer
        (r"\boxed{1} or better \boxed{ \frac{1}{2} }", r"\frac{1}{2}", 28),
        (r"<think>\boxed{7}</think>\boxed{8}", "8", 31),
        (r"\boxed{7}</think> It is \boxed{8}", "8", 31),
        ("The answer is 1, not 12.", "1", 14),
    ],
)
def test_the_answer(text: str, answer: str, at: int) -> None:
    assert answer_spans(text) == [Span("answer", at, at + len(answer))]
    assert text[at : at + len(answer)] == answer


@pytest.mark.parametrize("text", ["", "No idea", r"<think>It is \boxed{7}", r"<think>\boxed{7}</think>"])
def test_no_answer(text: str) -> None:
    """Thinking that never ends has none, whatever it says."""
    assert answer_spans(text) == []


@pytest.mark.parametrize(
    ("text", "opened", "blocks"),
    [
        ("<think>a</think>b", False, ["<think>a</think>"]),
        ("a</think>b", False, ["a</think>"]),
        ("a</think>b", True, ["a</think>"]),
        ("a", True, ["a"]),
        ("a", False, []),
        ("a<think>b", False, ["<think>b"]),
        ("a<think>b</think>c<think>d</think>e", False, ["<think>b</think>", "<think>d</think>"]),
        ("<think>a</think>b</think>c", False, ["<think>a</think>"]),
        ("<think>a<think>b</think>c", False, ["<think>a<think>b</think>"]),
        ("", True, []),
    ],
)
def test_thinking(text: str, opened: bool, blocks: list[str]) -> None:
    spans = thinking_spans(text, opened)
    assert shown(text, spans) == blocks
    assert [span.cut for span in spans] == [not block.endswith("</think>") for block in blocks]
    assert [span.name for span in spans] == ["thinking", "thinking 2"][: len(spans)]


def test_steps_are_paragraphs_behind_the_thinking() -> None:
    text = "<think>a\n\nb</think>\n\nOne\nmore \n \t\n\n Two\n\n\n"
    assert shown(text, step_spans(text)) == ["One\nmore", "Two"]
    assert [span.name for span in step_spans(text)] == ["step 1", "step 2"]


@pytest.mark.parametrize(
    "text",
    [
        "It is 3.14. | So e.g. Dr. Who and Fig. 3 agree. | Really?! | Yes.",
        "It costs $5. | Then $6! | And $x = 1. Y$ holds.",
        "We have $$a = 1. B = 2.\nC$$ here. | Next",
        r"Here \(a. B\) and \[c! D\] stay. | Next",
        "Call `f. G` now. | Next",
        '1. First thing. | \n| 2. Second ("thing.") | Third',
        "Wait... no, go on. | Line\n| break",
        "一加一。| 等于二！",
        "An open $x. | Next",
        "Loose \\( paren. | Next",
        "v1.2.3 is out. | See a.b",
    ],
)
def test_sentences(text: str) -> None:
    parts = [part.strip() for part in text.split("|")]
    text = re.sub(r" ?\| ?", lambda mark: " " if mark[0].startswith(" ") else "", text)
    assert shown(text, sentence_spans(text)) == [part for part in parts if part]


@given(st.text(st.sampled_from("aB1.!? \n$`\\([|。"), max_size=60))
def test_sentences_and_steps_leave_out_only_white_space(text: str) -> None:
    for spans in (sentence_spans(text), step_spans(text)):
        at = 0
        for span in spans:
            assert not text[at : span.start].strip()
            assert text[span.start : span.end].strip() == text[span.start : span.end] != ""
            at = span.end
        assert not text[at:].strip()
    assert shown(text, step_spans(text)) == [part.strip() for part in re.split(r"\n\s*\n", text) if part.strip()]


@pytest.mark.parametrize("unit", ["$a ", "a$", "\\(", "`", ".", "! ", "\n ", "$$ ", "1 ", "\\boxed{"])
def test_time_is_linear(unit: str) -> None:
    text = unit * 50_000
    sentence_spans(text)
    step_spans(text)


def test_patterns() -> None:
    text = "x=1, y=22, z="
    assert shown(text, regex_spans(text, r"[a-z]=([0-9]*)", "value", group=1)) == ["1", "22"]
    assert [span.name for span in regex_spans(text, r"[a-z]=([0-9]*)", "value", group=1)] == ["value 1", "value 2"]
    assert regex_spans(text, "a?|(b)", group=1) == []
    with pytest.raises(ValueError, match="more than the"):
        regex_spans("a" * (LONGEST_SEARCHED + 1), "b")


@given(st.lists(st.integers(0, 3), max_size=12), st.integers(0, 20), st.integers(0, 20))
def test_placing_against_characters(sizes: list[int], one: int, other: int) -> None:
    """Tokens of given sizes, zero included; each character of a span is asked for its token."""
    owner = [index for index, size in enumerate(sizes) for _ in range(size)]
    starts = [sum(sizes[:index]) for index in range(len(sizes))]
    offsets = [(start, start + size) for start, size in zip(starts, sizes, strict=True)]
    start, end = sorted([min(one, len(owner)), min(other, len(owner))])
    (span,) = place([Span("x", start, end)], offsets)
    own = owner[start:end]
    assert span.tokens == (range(own[0], own[-1] + 1) if own else range(0))


def test_values_that_are_missing_are_left_out() -> None:
    span = Span("x", 0, 3, tokens=range(0, 3))
    found = span_scores(span, {"total": [1.0, None, 3.0, 9.0], "entropy": [None] * 4})
    assert found["total"] == {"min": 1.0, "mean": 2.0, "max": 3.0}
    assert str(found["entropy"]["mean"]) == "nan"
