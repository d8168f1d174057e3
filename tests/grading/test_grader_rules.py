"""Rules of the grader as properties: commas, equations, words next to numbers; what an interruption leaves behind."""

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bayesian_transformer.grading import Grader, Verdict
from bayesian_transformer.grading.normal_form import number
from bayesian_transformer.grading.words import lone_number, plain


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader() as grader:
        yield grader


def boxed(answer: str) -> str:
    return f"\\boxed{{{answer}}}"


def grade(grader: Grader, answer: str, gold: str) -> Verdict:
    return grader.grade([(boxed(answer), gold)])[0]


def test_an_interrupted_grading_decides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [(boxed(r"\sqrt{8}"), r"2\sqrt{2}")]

    def interrupt(requests: object) -> None:
        raise KeyboardInterrupt

    with Grader(workers=1) as grader:
        with monkeypatch.context() as patch:
            patch.setattr(grader.pool, "run", interrupt)
            with pytest.raises(KeyboardInterrupt):
                grader.grade(pairs)
            with pytest.raises(KeyboardInterrupt):
                grader.canonical([boxed(r"\sqrt{8}")])
        assert grader.grade(pairs * 2) == [Verdict.RIGHT] * 2
        assert grader.canonical([boxed(r"\sqrt{8}")]) == grader.canonical([boxed(r"2\sqrt{2}")])
        assert grader.undecided == {}


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 999), min_size=2, max_size=4), st.sampled_from((("(", ")"), ("[", "]"), ("\\{", "\\}"))))
def test_a_comma_in_brackets_never_joins_digits(grader: Grader, entries: list[int], brackets: tuple[str, str]) -> None:
    opening, closing = brackets
    listed = f"{opening}{','.join(map(str, entries))}{closing}"
    joined = "".join(map(str, entries))
    assert grade(grader, listed, joined) == grade(grader, joined, listed) == Verdict.WRONG
    assert grade(grader, listed, listed.replace(",", " , ")) == Verdict.RIGHT


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 50), st.integers(-50, 50), st.integers(-50, 50))
def test_an_unsolved_equation_is_no_number(grader: Grader, factor: int, shift: int, value: int) -> None:
    for left in (f"{factor}x", f"x^2+{factor}", f"{factor}x{shift:+d}", f"\\frac{{x}}{{{factor}}}"):
        assert grade(grader, f"{left} = {value}", str(value)) == Verdict.WRONG
        assert grade(grader, str(value), f"{left} = {value}") == Verdict.WRONG
    assert grade(grader, f"x = {value}", str(value)) == grade(grader, f"{value} = x", str(value)) == Verdict.RIGHT


@given(
    st.integers(-(10**12), 10**12),
    st.sampled_from(("hundred", "thousand", "million", "dozen", "and a half", "squared", "plus one")),
)
def test_a_word_that_changes_a_number_is_no_unit(value: int, word: str) -> None:
    for text in (f"{value} {word}", f"{value}\\text{{ {word}}}", f"\\text{{{value} {word} eggs}}"):
        assert number(plain(text)) != number(str(value)) or value == 0, text
        assert lone_number(plain(text)) != number(str(value)) or value == 0, text
    for unit in ("eggs", "km", "dollars per week", "m"):
        assert lone_number(plain(f"\\text{{Total: {value} {unit}}}")) == number(str(value))


def test_workers_that_do_not_start_are_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """An OSError, as the scripts show those as one line."""
    monkeypatch.setattr("bayesian_transformer.grading.pool.MODULE", "bayesian_transformer.grading.no_such_worker")
    with Grader(workers=1) as grader, pytest.raises(OSError, match="no grading worker starts") as caught:
        grader.grade([(boxed(r"\sqrt{8}"), r"2\sqrt{2}")])
    assert "\n" not in str(caught.value)
