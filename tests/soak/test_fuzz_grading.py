"""`extract` and `grade` against generated answers: no crash, bounded time, reflexive, symmetric for exact values.

An answer equals itself. The exceptions: a gold answer without a text has no verdict, and of one with #### in it only
what follows counts, as a gold text of GSM8K may still have its solution before it.
"""

import time
from collections.abc import Iterator
from fractions import Fraction
from random import Random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bayesian_transformer.grading import Grader, Verdict, extract
from tests.soak.hostile_answers import FAMILIES, TEXTS

BOUND = 30.0  # seconds of one comparison on a busy machine, in which a worker may have to be started again
integers = st.integers(-999, 999)
naturals = st.integers(1, 99)
rationals = st.builds(Fraction, integers, naturals)


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader(workers=1, seconds=1.0) as grader:
        yield grader


def boxed(answer: str) -> str:
    return f"\\boxed{{{answer}}}"


def graded(grader: Grader, response: str, gold: str) -> Verdict:
    """The verdict, which must come in time."""
    start = time.monotonic()
    (verdict,) = grader.grade([(response, gold)])
    assert time.monotonic() - start < BOUND
    return verdict


@st.composite
def written(draw: st.DrawFn, value: Fraction) -> str:
    """One of the ways to write a rational number exactly."""
    above, below, sign = abs(value.numerator), value.denominator, "-" if value < 0 else ""
    factor = draw(naturals)
    ways = [
        f"{sign}{above}/{below}",
        rf"{sign}\frac{{{above}}}{{{below}}}",
        rf"\frac{{{sign}{factor * above}}}{{{factor * below}}}",
        rf"{sign}\dfrac {{{above}}} {{{below}}}",
        rf"{sign}{above} \div {below}",
        rf"\frac{{{value.numerator - factor * below}}}{{{below}}} + {factor}",
    ]
    if below == 1:
        ways += [f"{value.numerator}", f"{value.numerator}.0", f"{value.numerator:,}", f"{sign}\\sqrt{{{above**2}}}"]
    return draw(st.sampled_from(ways))


@st.composite
def formulas(draw: st.DrawFn) -> str:
    """An exact value: a number, a root, a power, a formula, or a container of them."""
    number = draw(rationals.flatmap(written))
    a, b = draw(naturals), draw(integers)
    simple = [
        number,
        rf"{b}\sqrt{{{a}}}",
        rf"\sqrt[3]{{{a}}}+{a}",
        rf"{a}^{{{b % 7}}}",
        rf"\frac{{{b}\pi}}{{{a}}}",
        rf"e^{{{b}}}",
        rf"\ln {a}",
        rf"{a}x^2{b:+d}x",
        rf"{a}!",
        rf"2^{{-{a}}}",
        rf"{b}{a:+d}i",
        r"\infty",
    ]
    one = draw(st.sampled_from(simple))
    other = draw(st.sampled_from(simple[:-1]))
    containers = [
        one,
        f"({one}, {other})",
        f"{one}, {other}",
        rf"\{{{one}, {other}\}}",
        f"[{a}, {a + 1})",
        f"x = {other}",
    ]
    return draw(st.sampled_from(containers))


texts = st.one_of(
    st.text(max_size=200),
    st.lists(st.sampled_from(TEXTS), max_size=20).map("".join),
    formulas(),
)


@given(st.randoms(use_true_random=False), st.sampled_from(sorted(set(FAMILIES) - {"megabyte"})))
def test_nothing_is_too_hostile(grader: Grader, draw: Random, family: str) -> None:
    text = FAMILIES[family](draw)
    for response, gold in ((text, "7"), (boxed(text), r"\sqrt{7}"), (boxed(r"\sqrt{8}"), text)):
        assert graded(grader, response, gold) in Verdict
    assert extract(text) is None or str(extract(text)).strip()


@given(texts, texts)
def test_no_pair_of_texts_is_too_odd(grader: Grader, response: str, gold: str) -> None:
    assert graded(grader, response, gold) in Verdict
    assert graded(grader, boxed(response), gold) in Verdict


@given(texts)
def test_an_answer_equals_itself(grader: Grader, text: str) -> None:
    assume(extract(boxed(text)) == text.strip() and "####" not in text)
    assert graded(grader, boxed(text), text) == Verdict.RIGHT


@given(
    formulas(),
    st.sampled_from(("%s ", " %s", "$%s$", r"\(%s\)", r"\displaystyle %s", "%s.", r"{%s}", "**%s**", r"\,%s\,")),
)
def test_an_answer_equals_itself_however_it_is_set(grader: Grader, answer: str, setting: str) -> None:
    assert graded(grader, boxed(setting.replace("%s", answer)), answer) == Verdict.RIGHT


@given(formulas(), formulas())
def test_equality_of_exact_values_is_symmetric(grader: Grader, one: str, other: str) -> None:
    verdicts = {graded(grader, boxed(one), other), graded(grader, boxed(other), one)}
    assert len(verdicts) == 1 or Verdict.UNDECIDED in verdicts


@given(st.data(), rationals, rationals)
def test_rational_numbers_are_equal_where_fractions_are(
    grader: Grader, data: st.DataObject, one: Fraction, other: Fraction
) -> None:
    expected = Verdict.RIGHT if one == other else Verdict.WRONG
    assert graded(grader, boxed(data.draw(written(one))), data.draw(written(other))) == expected
    assert graded(grader, boxed(data.draw(written(one))), data.draw(written(one))) == Verdict.RIGHT


@given(formulas(), st.integers(2, 400), st.sampled_from(("+", "-")))
def test_nothing_is_so_small_that_it_does_not_count(grader: Grader, value: str, power: int, sign: str) -> None:
    assume(not any(part in value for part in (",", "=", "infty", "[")))
    assert graded(grader, boxed(rf"{value} {sign} \frac{{1}}{{10^{{{power}}}}}"), value) == Verdict.WRONG


@given(st.text(alphabet="ab1 +-*/^_=,.()[]|<>\\", max_size=60))
def test_a_balanced_box_is_read_as_it_is(text: str) -> None:
    assume(text.strip() and "\\" not in text)
    assert extract(f"So we get {boxed(text)}. That is all.") == text.strip()
