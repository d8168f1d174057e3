"""Write a set of single-step arithmetic problems, sums and products of two digits, as JSON Lines.

A model of 135M parameters gets some of them right and some wrong, so that a detection table can be computed with it.
The rows are the same for the same size and seed; no problem occurs twice.

    python datasets/arithmetic.py --output datasets/arithmetic.jsonl
"""

import itertools
import operator
import random
import sys
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


def all_problems() -> list[tuple[int, str, int]]:
    """Every (left, operation, right) with operands 1 to 9."""
    return list(itertools.product(range(1, 10), OPERATIONS, range(1, 10)))


def arithmetic_rows(size: int, seed: int) -> list[dict[str, Any]]:
    """`size` different problems in random order; ValueError if there are not that many."""
    problems = all_problems()
    if not 1 <= size <= len(problems):
        raise ValueError(f"size must be 1 to {len(problems)}; got {size}")
    rows = []
    for index, (a, op, b) in enumerate(random.Random(seed).sample(problems, size)):
        function, level = OPERATIONS[op]
        row = {"unique_id": f"arithmetic/{index}", "problem": f"What is {a} {op} {b}?", "answer": str(function(a, b))}
        rows.append(row | {"level": level})
    return rows


@click.command(help=__doc__)
@click.option("--output", required=True, type=click.Path(dir_okay=False, path_type=Path), help="File to write.")
@click.option("--size", default=DEFAULT_SIZE, show_default=True, help="Number of problems.")
@click.option("--seed", default=DEFAULT_SEED, show_default=True, help="Which problems, and in which order.")
def main(output: Path, size: int, seed: int) -> None:
    with one_line_errors():
        rows = arithmetic_rows(size, seed)
    with atomic_path(output) as temporary:
        temporary.write_text("".join(dumps(row) + "\n" for row in rows), encoding="utf-8")
    click.echo(f"wrote {len(rows)} problems to {output}")


if __name__ == "__main__":
    main()
