"""Random runs for the kill storm: problems, how the data set is cut, options; and what such a run has stored.

All follows from a random generator.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import click

from bayesian_transformer.problems import question_id
from bayesian_transformer.results import PARTS, RESPONSES, SETTINGS_FILE
from run import greedy_responses_unc, greedy_unc_single_batch_refine
from tests.helpers.run_scripts import write_rows

GREEDY, SAMPLED = greedy_unc_single_batch_refine.main, greedy_responses_unc.main
# Line ends of all kinds, control and bidi characters, a byte order mark, what JSON and LaTeX escape, wide characters.
ODD = (
    *("\n", "\r\n", "\x0b", "\x85", "\u2028", "\t", "\x00", "\x1b[31m", "\x7f", "\u202e", "\ufeff", "\ufffd"),
    *('"', "\\", "{", "}", "\\boxed{", "</s>", "<|eos|>", "é", "e\u0301", "日本", "𝄞", "👩‍🔬", "%s", "'; --"),
)
ID_PARTS = ("", "test/sum/", "..", ".hidden", "é", "日本", "𝄞", "a b", "q\n", "--help", "*", "x" * 150, "{}", "#", '"')
LONGEST_TEXT = 20_000  # characters


@dataclass(frozen=True)
class Case:
    """A run in several parts, one for each cut of the data set; together they ask all problems."""

    command: click.Command
    options: tuple[str, ...]
    cuts: tuple[tuple[int, int], ...]
    ids: frozenset[str]  # question ids

    def arguments(self, output: Path, cut: tuple[int, int], batch_size: int) -> list[str]:
        """The command line of one part."""
        start, end = map(str, cut)
        place = ["--output-dir", str(output), "--batch-size", str(batch_size)]
        return [*self.options, *place, "--dataset-start", start, "--dataset-end", end]


def random_case(rng: Random, folder: Path, model: Path, command: click.Command | None = None) -> Case:
    """A case of a new data set in `folder`, of one of the two scripts if `command` names none."""
    rows = random_problems(rng)
    dataset = write_rows(folder / f"{rng.choice(('sums', 'math500', 'data é'))}.jsonl", rows)
    options = ["--model-path", str(model), "--dataset-path", str(dataset), "--seed", str(rng.randrange(2**32))]
    command = command or rng.choice((GREEDY, SAMPLED))
    if command is SAMPLED:
        options += ["--n-particles", str(rng.randint(1, 3)), *rng.choice(((), ("--per-token",)))]
    return Case(command, tuple(options), random_cuts(rng, len(rows)), frozenset(map(question_id, rows)))


def random_problems(rng: Random) -> list[dict[str, Any]]:
    """5 to 44 rows: ids of all kinds, odd and long and repeated texts, some rows twice."""
    rows: list[dict[str, Any]] = []
    for index in range(rng.randint(5, 40)):
        text = rng.choice(rows)["problem"] if rows and rng.random() < 0.2 else random_text(rng)
        row = {"problem": text, "answer": rng.choice((str(index), index, index / 3, random_text(rng)[:50]))}
        if rng.random() < 0.2:
            row["metadata"] = {"source_index": index}
        else:
            row["unique_id"] = f"{rng.choice(ID_PARTS)}{index}{rng.choice(ID_PARTS[:8])}{rng.choice(('', '.json'))}"
        rows.append(row | rng.choice(({}, {"level": rng.choice((1, "Level 5", None, [float("inf")]))})))
    rows += rng.sample(rows, rng.randint(0, min(4, len(rows))))
    rng.shuffle(rows)
    return rows


def random_text(rng: Random) -> str:
    """A text of 1 to LONGEST_TEXT characters, mostly short."""
    length = int(LONGEST_TEXT ** rng.random())
    pieces = [rng.choice(("What is 2 + 2? ", "x", *ODD)) for _ in range(min(length, 60))]
    return ("?" + "".join(pieces) * (1 + length // 60))[:length]


def random_cuts(rng: Random, count: int) -> tuple[tuple[int, int], ...]:
    """One to four parts that may overlap and together are all `count` problems, in any order."""
    ends = sorted({*rng.sample(range(1, count), min(rng.randint(0, 3), count - 1)), count})
    cuts = [(max(0, start - rng.choice((0, 0, 2))), end) for start, end in zip([0, *ends], ends, strict=False)]
    rng.shuffle(cuts)
    return tuple(cuts)


def stored(output: Path, doubles: bool = False) -> dict[str, bytes]:
    """What a run has stored below `output`: each record by its question id, and its settings.

    AssertionError for a record that is there twice, a file that does not end a line, and a temporary file. With
    `doubles` a record may be there twice if it is the same: parts that overlap and are written at once do not wait for
    each other, and a reader takes the first.
    """
    found = {path.name: path.read_bytes() for path in output.rglob(SETTINGS_FILE)}
    for part in output.rglob(PARTS):
        *lines, rest = part.read_bytes().split(b"\n")
        assert not rest, f"{part} ends in half a line"
        for line in lines:
            name = question_id(json.loads(line))
            assert name not in found or (doubles and found[name] == line), f"{part}: {name} is stored twice"
            found[name] = line
    for path in output.rglob(RESPONSES):
        if path.name != SETTINGS_FILE:
            found[path.name.removesuffix(".json")] = path.read_bytes()
    left = [path for path in output.rglob("*") if path.name.endswith(".tmp")]
    assert not left, f"temporary files are left: {left}"
    return found


def assert_same(found: dict[str, bytes], wanted: dict[str, bytes], about: object) -> None:
    """Both have the same records, byte by byte."""
    lost, extra = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    assert not lost, f"{about}: lost {lost}"
    assert not extra, f"{about}: nobody asked for {extra}"
    for name, content in wanted.items():
        assert found[name] == content, f"{about}: {name} differs in {different_keys(found[name], content)}"


def different_keys(one: bytes, other: bytes) -> Sequence[str]:
    """The keys of two JSON objects that have not the same values, or what says that these are none."""
    first, second = json.loads(one), json.loads(other)
    return sorted(key for key in first.keys() | second.keys() if first.get(key) != second.get(key)) or ["spelling"]
