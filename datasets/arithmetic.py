"""Write a set of arithmetic problems, as JSON Lines.

A model of 135M parameters gets some of them right and some wrong, so that a detection table can be computed with it.
The rows are the same for the same kind, size and seed; no problem occurs twice. Answers are exact whole numbers.

--kind digits, the default: sums and products of two digits, in one step. `level` is 1 for a sum, 2 for a product.

--kind all: seven kinds in turn, so that any part of the file has as many of each. `level` is the name of the kind:
sum, difference and product of numbers with one or two digits (one factor of a product has one digit); word-sum,
word-difference and word-product, the same as word problems of one step; two-step, word problems of exactly two steps.
Every answer is above 0: the larger number comes first in a difference, as nobody gives away more than they have.
A larger size begins with the rows of a smaller one.

    python datasets/arithmetic.py --output datasets/arithmetic.jsonl

    python datasets/arithmetic.py --kind all --size 1400 --output datasets/arithmetic_all.jsonl
"""

import itertools
import operator
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bayesian_transformer.command_line import one_line_errors
from bayesian_transformer.files import atomic_path, dumps

# symbol -> what it does, and the level of its problems
OPERATIONS = {"+": (operator.add, 1), "*": (operator.mul, 2)}
DEFAULT_SIZE = 128
DEFAULT_SEED = 96
MOST_PER_KIND = 1000  # far from the number of different problems of any kind, so that drawing stays quick
NAMES = ("Amara", "Ben", "Chen", "Dina", "Elif", "Femi", "Greta", "Hugo", "Ines", "Jonas", "Kofi", "Lena", "Mateo",
         "Nora", "Omar", "Priya", "Rosa", "Sven", "Tara", "Yusuf")  # fmt: skip
# Those that are not the word and an "s".
PLURALS = {"berry": "berries", "box": "boxes", "brush": "brushes", "daisy": "daisies", "leaf": "leaves"}
THINGS = ("apple", "balloon", "berry", "book", "brush", "button", "card", "coin", "daisy", "leaf", "marble", "pencil",
          "plum", "shell", "stamp", "sticker")  # fmt: skip
HOLDERS = ("bag", "basket", "bowl", "box", "crate", "jar")


def numbers(draw: random.Random) -> tuple[int, ...]:
    """Three numbers from 1 to 99, of one or two digits equally often."""
    return tuple(draw.randint(1, 9) if draw.random() < 0.5 else draw.randint(10, 99) for _ in range(3))


def factors(draw: random.Random) -> tuple[int, ...]:
    """A number of one digit and one of one or two, in either order."""
    _, b, c = numbers(draw)
    pair = (draw.randint(1, 9), b)
    return (*(pair if draw.random() < 0.5 else pair[::-1]), c)


def groups(draw: random.Random) -> tuple[int, ...]:
    """Two to nine groups, what is in each, and a third number; one group would leave nothing to multiply."""
    return (draw.randint(2, 9), *numbers(draw)[1:])


def small_groups(draw: random.Random) -> tuple[int, ...]:
    """The same, with one digit in each group; for problems of two steps."""
    return (draw.randint(2, 9), draw.randint(1, 9), numbers(draw)[2])


@dataclass(frozen=True)
class Template:
    """A problem with places for numbers and words; see `words` for their names."""

    text: str
    answer: Callable[[int, int, int], int]
    operands: Callable[[random.Random], tuple[int, ...]] = numbers


def plus(a: int, b: int, _: int) -> int:
    return a + b


def minus(a: int, b: int, _: int) -> int:
    return a - b


def times(a: int, b: int, _: int) -> int:
    return a * b


# The kinds of --kind all, by the name that is their `level`.
KINDS: dict[str, tuple[Template, ...]] = {
    "sum": (Template("What is {a} + {b}?", plus),),
    "difference": (Template("What is {a} - {b}?", minus),),
    "product": (Template("What is {a} * {b}?", times, factors),),
    "word-sum": (
        Template("{Ann} has {a_things} and buys {b} more. How many {things} does {Ann} have now?", plus),
        Template("{Ann} has {a_things} and {Bob} has {b}. How many {things} do they have together?", plus),
        Template(
            "{Ann} finds {a_things} in the morning and {b} in the afternoon. How many {things} does {Ann} find in all?",
            plus,
        ),
        Template(
            "There is a {bag} with {a_things} in it. {Ann} puts in {b} more. How many {things} are in the {bag} now?",
            plus,
        ),
    ),
    "word-difference": (
        Template("{Ann} has {a_things} and gives {b} of them to {Bob}. How many {things} does {Ann} keep?", minus),
        Template("{Ann} has {a_things} and {Bob} has {b}. How many more {things} does {Ann} have than {Bob}?", minus),
        Template("{Ann} wants {a_things} and has only {b}. How many more {things} does {Ann} need?", minus),
        Template(
            "There is a {bag} with {a_things} in it. {Ann} takes out {b} of them. How many {things} stay in the {bag}?",
            minus,
        ),
    ),
    "word-product": (
        Template("{Ann} has {a_bags} with {b_things} in each. How many {things} does {Ann} have?", times, groups),
        Template("Each {bag} holds {b_things}. How many {things} do {a_bags} hold?", times, groups),
        Template("{Ann} finds {b_things} every day. How many {things} does {Ann} find in {a} days?", times, groups),
        Template("One {thing} costs {b_dollars}. How many dollars do {a_things} cost?", times, groups),
    ),
    "two-step": (
        Template(
            "{Ann} has {a_things}, buys {b} more and then loses {c}. How many {things} does {Ann} have now?",
            lambda a, b, c: a + b - c,
        ),
        Template(
            "{Ann} has {a_things}, gives {b} to {Bob} and then loses {c}. How many {things} does {Ann} have now?",
            lambda a, b, c: a - b - c,
        ),
        Template(
            "{Ann} has {a_things}. {Bob} has {b} more than {Ann}. How many {things} do they have together?",
            lambda a, b, _: a + (a + b),
        ),
        Template(
            "{Ann} has {a_bags} with {b_things} in each, and buys {c} more. How many {things} does {Ann} have now?",
            lambda a, b, c: a * b + c,
            small_groups,
        ),
        Template(
            "{Ann} has {a_bags} with {b_things} in each, and loses {c} of all these {things}. "
            "How many {things} does {Ann} have now?",
            lambda a, b, c: a * b - c,
            small_groups,
        ),
        Template(
            "Each {bag} holds {b_red_things} and {c_blue_ones}. How many {things} do {a_bags} hold?",
            lambda a, b, c: a * (b + c),
            small_groups,
        ),
    ),
}


def plural(noun: str) -> str:
    return PLURALS.get(noun, f"{noun}s")


def count(number: int, noun: str, colour: str = "") -> str:
    """ "1 apple", "2 apples"."""
    return f"{number} {colour}{noun if number == 1 else plural(noun)}"


def words(draw: random.Random, a: int, b: int, c: int) -> dict[str, str | int]:
    """What the places of a template are filled with: three numbers, two people, things and what holds them."""
    ann, bob = draw.sample(NAMES, 2)
    thing, bag = draw.choice(THINGS), draw.choice(HOLDERS)
    return {
        "a": a, "b": b, "c": c, "Ann": ann, "Bob": bob, "thing": thing, "things": plural(thing), "bag": bag,
        "a_things": count(a, thing), "b_things": count(b, thing), "a_bags": count(a, bag),
        "b_dollars": count(b, "dollar"), "b_red_things": count(b, thing, "red "), "c_blue_ones": count(c, "blue one"),
    }  # fmt: skip


def problem_of(templates: tuple[Template, ...], draw: random.Random) -> tuple[str, int]:
    """A problem and its answer, which is above 0."""
    template = draw.choice(templates)
    while True:
        a, b, c = template.operands(draw)
        answer = template.answer(a, b, c)
        if answer > 0:
            return template.text.format(**words(draw, a, b, c)), answer


def rows_of_all_kinds(size: int, seed: int) -> list[dict[str, Any]]:
    """`size` different problems, the kinds in turn; ValueError if that is more than MOST_PER_KIND of each."""
    most = MOST_PER_KIND * len(KINDS)
    if not 1 <= size <= most:
        raise ValueError(f"size must be 1 to {most} with --kind all; got {size}")
    draw = random.Random(seed)
    rows: dict[str, dict[str, Any]] = {}
    for index, (kind, templates) in zip(range(size), itertools.cycle(KINDS.items()), strict=False):
        text, answer = problem_of(templates, draw)
        while text in rows:
            text, answer = problem_of(templates, draw)
        row = {"unique_id": f"arithmetic-all/{index}", "problem": text, "answer": str(answer), "level": kind}
        rows[text] = row
    return list(rows.values())


def all_problems() -> list[tuple[int, str, int]]:
    """Every (left, operation, right) with operands 1 to 9."""
    return list(itertools.product(range(1, 10), OPERATIONS, range(1, 10)))


def arithmetic_rows(size: int, seed: int) -> list[dict[str, Any]]:
    """`size` different sums and products of two digits in random order; ValueError if there are not that many."""
    problems = all_problems()
    if not 1 <= size <= len(problems):
        raise ValueError(f"size must be 1 to {len(problems)}; got {size}. There are more problems with --kind all")
    rows = []
    for index, (a, op, b) in enumerate(random.Random(seed).sample(problems, size)):
        function, level = OPERATIONS[op]
        row = {"unique_id": f"arithmetic/{index}", "problem": f"What is {a} {op} {b}?", "answer": str(function(a, b))}
        rows.append(row | {"level": level})
    return rows


ROWS = {"digits": arithmetic_rows, "all": rows_of_all_kinds}


@click.command(help=__doc__)
@click.option("--output", required=True, type=click.Path(dir_okay=False, path_type=Path), help="File to write.")
@click.option("--kind", type=click.Choice([*ROWS]), default="digits", show_default=True, help="Which problems.")
@click.option("--size", default=DEFAULT_SIZE, show_default=True, help="Number of problems.")
@click.option("--seed", default=DEFAULT_SEED, show_default=True, help="Which problems, and in which order.")
def main(output: Path, kind: str, size: int, seed: int) -> None:
    with one_line_errors():
        rows = ROWS[kind](size, seed)
    with atomic_path(output) as temporary:
        temporary.write_text("".join(dumps(row) + "\n" for row in rows), encoding="utf-8")
    click.echo(f"wrote {len(rows)} problems to {output}")


if __name__ == "__main__":
    main()
