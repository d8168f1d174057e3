"""Extraction, numbers, verdicts and canonical texts; agreement with the solutions of public data sets; throughput."""

import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bayesian_transformer.files import read_jsonl
from bayesian_transformer.grading import Grader, Verdict
from bayesian_transformer.grading.extraction import extract_answer
from bayesian_transformer.grading.normal_form import RELATIVE_TOLERANCE, normalize, number
from bayesian_transformer.grading.words import choice, lone_number, words

SOLUTIONS = Path(__file__).parents[1] / "data" / "grader_solutions.jsonl"
PUBLIC = Path(__file__).resolve().parents[3] / "shared" / "data"
integers = st.integers(-(10**12), 10**12)
positive = st.integers(1, 10**6)


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader() as grader:
        yield grader


def boxed(answer: str) -> str:
    return f"\\boxed{{{answer}}}"


def grade(grader: Grader, answer: str, gold: str) -> Verdict:
    return grader.grade([(boxed(answer), gold)])[0]


@given(st.text())
def test_extraction_and_reading_take_any_text(text: str) -> None:
    answer = extract_answer(text)
    assert answer is None or answer.strip()
    normal = normalize(text)
    number(normal), words(text), choice(text), lone_number(normal)
    assert normalize(text) == normal


@given(st.text(alphabet="ab1 \\{}", max_size=30))
def test_last_balanced_box_matches_brute_force(text: str) -> None:
    """Against counting braces from every box; boxes whose content is balanced by itself are all that can be found."""
    response = f"\\boxed{{9}} {text}"
    expected = None
    for start in range(len(response)):
        if not response.startswith("\\boxed{", start):
            continue
        begin = start + len("\\boxed{")
        depth, position = 1, begin
        while position < len(response) and depth:
            if response[position] == "\\":
                position += 1
            elif response[position] in "{}":
                depth += 1 if response[position] == "{" else -1
            position += 1
        if depth == 0 and response[begin : position - 1].strip():
            expected = response[begin : position - 1].strip()
    assert extract_answer(response) == expected


@given(integers, positive)
def test_ways_to_write_a_fraction(above: int, below: int) -> None:
    value = Fraction(above, below)
    sign, above = ("-" if above < 0 else ""), abs(above)
    whole, rest = divmod(above, below)
    written = [
        f"{sign}{above}/{below}",
        f"{sign}\\frac{{{above}}}{{{below}}}",
        f"{sign}\\dfrac {{{above}}} {{{below}}}",
    ]
    if whole and rest:
        written += [f"{sign}{whole}\\frac{{{rest}}}{{{below}}}", f"{sign}{whole} {rest}/{below}"]
    for text in written:
        read = number(normalize(text))
        assert read is not None, text
        assert (read.value, read.decimal, read.percent) == (value, False, False), text


@given(integers, st.integers(0, 9999))
def test_ways_to_write_a_decimal(whole: int, places: int) -> None:
    digits = f"{places:04d}"
    value = Fraction(f"{abs(whole)}.{digits}") * (-1 if whole < 0 else 1)
    sign = "-" if whole < 0 else ""
    grouped = f"{abs(whole):,}"
    for separator in (",", "{,}", ",\\!", " ", "\\,"):
        for currency in ("", "\\$", "€"):
            text = f"{sign}{currency}{grouped.replace(',', separator)}.{digits}"
            read = number(normalize(text))
            assert read is not None, text
            assert read.value == value, text
            assert read.decimal == (places > 0)


@given(positive, st.integers(-20, 20))
def test_scientific_notation(mantissa: int, exponent: int) -> None:
    value = mantissa * Fraction(10) ** exponent
    for text in (
        f"{mantissa}e{exponent}",
        f"{mantissa}\\times 10^{{{exponent}}}",
        f"{mantissa}\\cdot10^{{{exponent}}}",
    ):
        read = number(normalize(text))
        assert read is not None, text
        assert read.value == value


@given(st.text(alphabet="0123456789", max_size=4), st.text(alphabet="0123456789", min_size=1, max_size=4))
def test_repeating_decimal_is_the_limit_of_its_digits(head: str, cycle: str) -> None:
    read = number(f"0.{head}\\overline{{{cycle}}}")
    assert read is not None
    places = len(head) + 12 * len(cycle)
    assert abs(read.value - Fraction(f"0.{head}{cycle * 12}")) <= Fraction(1, 10**places)


@settings(deadline=None)
@given(gold=st.decimals(-1000, 1000, places=4), shift=st.decimals(-1, 1, places=5))
def test_decimals_agree_within_the_relative_tolerance(grader: Grader, gold: object, shift: object) -> None:
    """Next to a gold answer that is not whole; next to a whole one every shift counts."""
    expected, given_value = Fraction(str(gold)), Fraction(str(gold)) + Fraction(str(shift))
    tolerance = Fraction(RELATIVE_TOLERANCE) if expected.denominator > 1 else 0
    is_right = abs(given_value - expected) <= tolerance * abs(expected)
    text = f"{float(given_value):.9f}"
    assert grade(grader, text, str(gold)) == (Verdict.RIGHT if is_right else Verdict.WRONG)


@settings(deadline=None)
@given(above=integers, below=positive, places=st.integers(1, 9), slip=st.integers(-2, 2))
def test_a_decimal_is_a_fraction_rounded_to_its_digits(
    grader: Grader, above: int, below: int, places: int, slip: int
) -> None:
    """Against brute force: the multiple of the last place that is nearest, if that is near enough."""
    gold, place = Fraction(above, below), Fraction(1, 10**places)
    counted = round(gold / place) + slip
    value = counted * place
    digits = f"{abs(counted):0{places + 1}d}"
    text = ("-" if counted < 0 else "") + f"{digits[:-places]}.{digits[-places:]}"
    nearest = abs(value - gold) == min(abs((counted + step) * place - gold) for step in (-1, 0, 1))
    is_near = abs(value - gold) <= Fraction(RELATIVE_TOLERANCE) * abs(gold)
    expected = Verdict.RIGHT if nearest and is_near else Verdict.WRONG
    if gold.denominator > 1 and value.denominator > 1:
        assert grade(grader, text, f"{above}/{below}") == expected


@settings(deadline=None)
@given(integers, integers)
def test_integers_must_be_exact(grader: Grader, gold: int, answer: int) -> None:
    assert grade(grader, f"{answer:,}", str(gold)) == (Verdict.RIGHT if gold == answer else Verdict.WRONG)
    assert grade(grader, str(gold + 1), str(gold)) == Verdict.WRONG


def test_no_answer_is_wrong_and_no_gold_answer_is_undecided(grader: Grader) -> None:
    assert grader.grade([(None, "5"), ("", "5"), ("I cannot say what it is.", "5")]) == [Verdict.WRONG] * 3
    assert grader.grade([("\\boxed{5}", ""), ("\\boxed{5}", "$$")]) == [Verdict.UNDECIDED] * 2


def test_order_of_verdicts_is_that_of_the_pairs(grader: Grader) -> None:
    golds = [f"{index}\\sqrt{{2}}" if index % 3 else str(index) for index in range(1, 40)]
    answers = [f"\\sqrt{{{2 * index**2}}}" if index % 3 else str(index) for index in range(1, 40)]
    shifted = [*golds[1:], golds[0]]
    assert set(grader.grade([(boxed(a), g) for a, g in zip(answers, golds, strict=True)])) == {Verdict.RIGHT}
    assert set(grader.grade([(boxed(a), g) for a, g in zip(answers, shifted, strict=True)])) == {Verdict.WRONG}
    mixed = [pair for triple in zip(answers, golds, shifted, strict=True) for pair in (triple[:2], triple[::2])]
    assert grader.grade([(boxed(a), g) for a, g in mixed]) == [Verdict.RIGHT, Verdict.WRONG] * len(golds)


CANONICAL = [
    ["1/2", "0.5", r"\frac12", r"\dfrac{1}{2}", ".50", r"\frac{2}{4}", "½", "50/100"],
    ["5", "x = 5", "5.0", r"5 \text{ cm}", r"\$5", "5%", r"\sqrt{25}", "2+3"],
    ["7", "3 + 4 = 7", "7 x 1 = 7", r"14 \div 2 = \sqrt{49}"],
    ["0=0"],
    ["8=9"],
    ["1234", "1,234", r"1{,}234", "1234.00"],
    [r"2\sqrt{3}", r"\sqrt{12}", r"\frac{6}{\sqrt{3}}", r"2 \cdot 3^{1/2}"],
    ["(x+1)^2", "x^2+2x+1", "1+2x+x^2", r"(x+1)(1+x)"],
    [r"\frac{x}{2}", "x/2", "0.5x"],
    ["1,-2", r"\{-2, 1\}", "-2, 1", r"1 \text{ and } -2"],
    ["(1,-2)", r"\left(1, -2\right)"],
    ["(-2,1)"],
    ["[0,1)", r"\left[0, 1\right)"],
    [r"\begin{pmatrix} 1/2 & 2 \end{pmatrix}", r"\begin{bmatrix}0.5&2\end{bmatrix}"],
    ["6-5i", "-5i+6"],
    ["B", "(B)", r"\text{B}", r"\text{(B)}"],
    ["Evelyn", r"\text{Evelyn}", "evelyn"],
    ["52_8", "52_{8}"],
    ["5x - 7y + 4 = 0", "-5x + 7y - 4 = 0", "10x - 14y = -8"],
    ["2x = 6"],
    ["(2,100)", "(2, 100)", r"\left(2,\,100\right)"],
    ["2100", "2,100", r"\text{2100 eggs}"],
    ["3000000", "3 million", r"\$3\text{ million}"],
    ["1,1,2", "2,1,1"],
    [r"\{1,1,2\}", r"\{2,1\}", "2, 1"],
    ["June 20"],
    ["20", "20 June", "Total: 20", r"\text{Total} = 20"],
    ["3"],
    ["12"],
    ["1 2", r"1\quad 2"],
    [r"\frac{1}{"],  # stands for itself
]


def test_canonical_texts_tell_answers_apart_and_together(grader: Grader) -> None:
    forms = [set(grader.canonical([boxed(answer) for answer in group])) for group in CANONICAL[:-1]]
    forms.append(set(grader.canonical([CANONICAL[-1][0]])))
    for group, form in zip(CANONICAL, forms, strict=True):
        assert len(form) == 1, (group, form)
    assert len(set.union(*forms)) == len(CANONICAL)
    assert grader.canonical([None, "", "no answer in this text"]) == [None] * 3


def test_canonical_texts_do_not_depend_on_process_or_order(grader: Grader) -> None:
    texts = [boxed(answer) for group in CANONICAL[:-1] for answer in group]
    with Grader(workers=1) as other:
        assert other.canonical(texts[::-1])[::-1] == grader.canonical(texts)


def test_plain_answers_need_no_process() -> None:
    with Grader() as grader:
        grader.grade([("#### 1,234", "1234"), (boxed("(B)"), "C"), (boxed(r"\text{Eve}"), r"\text{Adam}")])
        grader.canonical(["#### 5", boxed(r"\frac12")])
        assert grader.pool.pids == []


def test_limits_must_make_sense() -> None:
    for arguments in ({"workers": 0}, {"seconds": 0}, {"memory_mb": 10}):
        with pytest.raises(ValueError, match="a grader needs at least 1 worker"):
            Grader(**arguments)


def test_own_solutions_agree_with_their_answers(grader: Grader) -> None:
    rows = read_jsonl(SOLUTIONS)
    assert grader.grade([(row["solution"], row["answer"]) for row in rows]) == [Verdict.RIGHT] * len(rows)
    others = [rows[-1], *rows[:-1]]
    pairs = [(row["solution"], other["answer"]) for row, other in zip(rows, others, strict=True)]
    assert grader.grade(pairs) == [Verdict.WRONG] * len(rows)


@pytest.mark.parametrize("name", ["gsm8k_test", "math500"])
def test_public_solutions_agree_with_their_answers(grader: Grader, name: str) -> None:
    path = PUBLIC / f"{name}.jsonl"
    if not path.exists():
        pytest.skip(f"no {name}.jsonl in ../shared/data next to the repository")
    rows = read_jsonl(path)
    right = grader.grade([(row["solution"], row["answer"]) for row in rows]).count(Verdict.RIGHT)
    assert right >= 0.99 * len(rows)


def test_throughput_of_gsm8k_like_answers() -> None:
    """20,000 different pairs in well under a minute (it takes a few seconds), and again from the cache."""
    endings = ("#### {:,}", "so she pays \\boxed{{\\${:,}.00}}.", "The final answer is ${}$.", "That makes {} in total")
    pairs: list[tuple[str | None, str]] = []
    for index in range(20_000):
        steps = f"Each of the {index} boxes has 12 pens, 12*{index}=<<12*{index}={12 * index}>>{12 * index} pens.\n" * 4
        pairs.append((steps + endings[index % 4].format(12 * index), str(12 * index + (index % 2))))
    with Grader(workers=2) as grader:
        start = time.monotonic()
        verdicts = grader.grade(pairs)
        seconds = time.monotonic() - start
        assert grader.grade(pairs) == verdicts
    assert verdicts == [Verdict.RIGHT, Verdict.WRONG] * 10_000
    assert seconds < 60
