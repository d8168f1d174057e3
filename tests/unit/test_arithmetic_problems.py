"""The arithmetic problems: right, different, repeatable, and in plain English."""

import hashlib
import json
import re
import runpy
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

# By path: an installed package bears the name of the folder.
SCRIPT = runpy.run_path(str(Path(__file__).resolve().parents[2] / "datasets" / "arithmetic.py"))
ARITHMETIC = SCRIPT["main"]
LEVELS = ("sum", "difference", "product", "word-sum", "word-difference", "word-product", "two-step")

# How a reader understands each sentence: the pattern, and the answer from its numbers in order. Written apart from the
# templates: a place that is filled in wrongly, or a sentence that does not say what is computed, does not match.
NAME, NOUN = "[A-Z][a-z]+", "[a-z]+"
READ: dict[str, list[tuple[str, Callable[..., int]]]] = {
    "sum": [(r"What is N \+ N\?", lambda a, b: a + b)],
    "difference": [(r"What is N - N\?", lambda a, b: a - b)],
    "product": [(r"What is N \* N\?", lambda a, b: a * b)],
    "word-sum": [
        (r"P has N T and buys N more\. How many T does P have now\?", lambda a, b: a + b),
        (r"P has N T and Q has N\. How many T do they have together\?", lambda a, b: a + b),
        (r"P finds N T in the morning and N in the afternoon\. How many T does P find in all\?", lambda a, b: a + b),
        (r"There is a H with N T in it\. P puts in N more\. How many T are in the H now\?", lambda a, b: a + b),
    ],
    "word-difference": [
        (r"P has N T and gives N of them to Q\. How many T does P keep\?", lambda a, b: a - b),
        (r"P has N T and Q has N\. How many more T does P have than Q\?", lambda a, b: a - b),
        (r"P wants N T and has only N\. How many more T does P need\?", lambda a, b: a - b),
        (r"There is a H with N T in it\. P takes out N of them\. How many T stay in the H\?", lambda a, b: a - b),
    ],
    "word-product": [
        (r"P has N H with N T in each\. How many T does P have\?", lambda a, b: a * b),
        (r"Each H holds N T\. How many T do N H hold\?", lambda a, b: a * b),
        (r"P finds N T every day\. How many T does P find in N days\?", lambda a, b: a * b),
        (r"One T costs N dollars?\. How many dollars do N T cost\?", lambda a, b: a * b),
    ],
    "two-step": [
        (r"P has N T, buys N more and then loses N\. How many T does P have now\?", lambda a, b, c: a + b - c),
        (r"P has N T, gives N to Q and then loses N\. How many T does P have now\?", lambda a, b, c: a - b - c),
        (r"P has N T\. Q has N more than P\. How many T do they have together\?", lambda a, b: a + a + b),
        (r"P has N H with N T in each, and buys N more\. How many T does P have now\?", lambda a, b, c: a * b + c),
        (
            r"P has N H with N T in each, and loses N of all these T\. How many T does P have now\?",
            lambda a, b, c: a * b - c,
        ),
        (r"Each H holds N red T and N blue ones?\. How many T do N H hold\?", lambda a, b, c: (a + b) * c),
    ],
}


def problems(*options: str, output: Path) -> list[dict[str, Any]]:
    result = CliRunner().invoke(ARITHMETIC, ["--output", str(output), *options])
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in output.read_text().splitlines()]


@pytest.fixture(scope="module")
def all_kinds(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return problems("--kind", "all", "--size", "1400", output=tmp_path_factory.mktemp("all") / "all.jsonl")


def pattern(sentence: str) -> re.Pattern[str]:
    """A sentence of READ as a regular expression: N a number, P and Q people, H what holds things, T things."""
    filled = re.sub(r"\b[PQ]\b", lambda name: f"(?P<{name[0]}_>{NAME})", sentence)
    seen: set[str] = set()

    def once(group: re.Match[str]) -> str:
        name = group[1]
        if name in seen:
            return f"(?P={name})"
        seen.add(name)
        return group[0]

    filled = re.sub(rf"\(\?P<(\w_)>{re.escape(NAME)}\)", once, filled)
    filled = re.sub(r"\bN\b", "([1-9][0-9]*)", filled)
    return re.compile(re.sub(r"\b[HT]\b", NOUN, filled))


def answer_of(row: dict[str, Any]) -> int:
    """What the text asks for; AssertionError unless exactly one sentence of its kind matches all of it."""
    found = []
    for sentence, answer in READ[row["level"]]:
        match = pattern(sentence).fullmatch(row["problem"])
        if match:
            found.append(answer(*(int(text) for text in match.groups() if text.isdigit())))
    (only,) = found
    return only


def test_arithmetic_problems_are_right_different_and_repeatable(tmp_path: Path) -> None:
    rows = problems(output=tmp_path / "a.jsonl")
    assert len(rows) >= 120
    assert rows == problems(output=tmp_path / "b.jsonl")
    assert rows != problems("--seed", "1", output=tmp_path / "c.jsonl")
    assert max(Counter(row["problem"] for row in rows).values()) == 1
    assert max(Counter(row["unique_id"] for row in rows).values()) == 1
    for row in rows:
        a, sign, b = row["problem"].removeprefix("What is ").removesuffix("?").split()
        assert int(row["answer"]) == {"+": int(a) + int(b), "*": int(a) * int(b)}[sign]
        assert row["level"] == {"+": 1, "*": 2}[sign]


@pytest.mark.parametrize(
    ("options", "digest"),
    [
        ((), "512cd54bc581b52d0faf0066e79e32ecbe0d57a0ae99e5fc6de713283b1c1479"),
        (("--size", "162", "--seed", "1"), "3f0ce3bf6c20e3b55a2dcf12bb134d4687ff35f0383ef293250f16492d0e893f"),
        (("--kind", "digits"), "512cd54bc581b52d0faf0066e79e32ecbe0d57a0ae99e5fc6de713283b1c1479"),
        (("--kind", "all", "--size", "1400"), "56f4388c4969aba8f2a90c82282d26f2604bafca0abab162cf9efffc6d5169c0"),
    ],
)
def test_the_rows_are_those_that_results_were_made_with(tmp_path: Path, options: tuple[str, ...], digest: str) -> None:
    """The digests of two digits were taken before there was another kind."""
    problems(*options, output=tmp_path / "a.jsonl")
    assert hashlib.sha256((tmp_path / "a.jsonl").read_bytes()).hexdigest() == digest


def test_all_kinds_come_in_turn(all_kinds: list[dict[str, Any]]) -> None:
    assert [row["level"] for row in all_kinds] == [*LEVELS] * 200
    assert len({row["problem"] for row in all_kinds}) == len({row["unique_id"] for row in all_kinds}) == 1400


@pytest.mark.parametrize("seed", ["96", "89", "64"])
def test_answers_are_what_the_texts_ask_for(tmp_path: Path, seed: str) -> None:
    rows = problems("--kind", "all", "--size", "1400", "--seed", seed, output=tmp_path / "a.jsonl")
    assert [row["answer"] for row in rows] == [str(answer_of(row)) for row in rows]
    assert min(answer_of(row) for row in rows) > 0
    used = Counter(
        sentence for row in rows for sentence, _ in READ[row["level"]] if pattern(sentence).fullmatch(row["problem"])
    )
    assert min(used[sentence] for sentences in READ.values() for sentence, _ in sentences) >= 15


def test_a_wrong_text_is_not_read() -> None:
    row = {"level": "word-sum", "problem": "Ben has 2 apples and buys 3 more. How many apples does Ben have now?"}
    assert answer_of(row) == 5
    for text in (row["problem"].replace("Ben have", "Tom have"), row["problem"].replace("3", "0")):
        with pytest.raises(ValueError, match="not enough values"):
            answer_of(row | {"problem": text})


def test_nouns_agree_with_their_numbers(all_kinds: list[dict[str, Any]]) -> None:
    """One of a thing is singular, more are plural; "one" is written out where a price is named."""
    nouns = [*SCRIPT["THINGS"], *SCRIPT["HOLDERS"], "dollar", "blue one"]
    plural = {noun: SCRIPT["plural"](noun) for noun in nouns}
    assert {noun: many for noun, many in plural.items() if many != f"{noun}s"} == {
        "berry": "berries", "box": "boxes", "brush": "brushes", "daisy": "daisies", "leaf": "leaves",
    }  # fmt: skip
    seen = Counter[bool]()
    for row in all_kinds:
        for number, noun in re.findall(r"\b(\d+) (?:red )?(blue ones?|[a-z]+)", row["problem"]):
            if noun in plural or noun in plural.values():
                assert (noun in plural) == (number == "1"), row["problem"]
                seen[number == "1"] += 1
        for noun in re.findall(r"How many (?:more )?([a-z]+)", row["problem"]):
            assert noun in plural.values(), row["problem"]
        assert not re.search(r"\b1 (?:bags|days|\w+ of them to)|\bhas 1 (?:\w+) and gives", row["problem"])
        assert not re.search(rf"\b(?:a|Each|One) (?:{'|'.join(plural.values())})\b", row["problem"])
    assert seen[True] > 30
    assert seen[False] > 1000


def test_numbers_have_one_and_two_digits(all_kinds: list[dict[str, Any]]) -> None:
    for kind in ("sum", "difference", "product"):
        digits = Counter(
            len(text) for row in all_kinds if row["level"] == kind for text in re.findall(r"\d+", row["problem"])
        )
        assert set(digits) == {1, 2}
        assert min(digits.values()) >= 80, kind
    for row in all_kinds:
        if row["level"] == "product":
            assert min(len(text) for text in re.findall(r"\d+", row["problem"])) == 1
        if row["level"] == "word-product":
            assert max(map(int, re.findall(r"\d+", row["problem"]))) <= 99


def test_a_larger_size_begins_with_a_smaller_one(tmp_path: Path, all_kinds: list[dict[str, Any]]) -> None:
    assert problems("--kind", "all", "--size", "100", output=tmp_path / "a.jsonl") == all_kinds[:100]
    most = problems("--kind", "all", "--size", "7000", output=tmp_path / "b.jsonl")
    assert most[:1400] == all_kinds
    assert len({row["problem"] for row in most}) == 7000


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--size", "163"), "size must be 1 to 162; got 163. There are more problems with --kind all"),
        (("--size", "0"), "size must be 1 to 162; got 0"),
        (("--kind", "all", "--size", "7001"), "size must be 1 to 7000 with --kind all; got 7001"),
        (("--kind", "all", "--size", "0"), "size must be 1 to 7000 with --kind all; got 0"),
    ],
)
def test_too_many_arithmetic_problems_are_refused(tmp_path: Path, options: tuple[str, ...], says: str) -> None:
    result = CliRunner().invoke(ARITHMETIC, ["--output", str(tmp_path / "a.jsonl"), *options])
    assert result.exit_code == 1
    assert says in result.output
    assert not (tmp_path / "a.jsonl").exists()


def test_the_help_says_what_is_in_the_file() -> None:
    text = " ".join(CliRunner().invoke(ARITHMETIC, ["--help"], terminal_width=1000).output.split())
    for said in (*SCRIPT["KINDS"], "--kind all --size 1400", "Every answer is above 0", "`level`"):
        assert said in text
