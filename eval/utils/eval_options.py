"""Command-line parts that the evaluation scripts share."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

DATASET = click.option("--dataset", required=True, help="Data set: the stem of its file.")
MODEL = click.option("--model", required=True, help="Name of the model's folder, or llama1b, llama8b, qwen3b.")
RESULTS_DIR = click.option(
    "--results-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("results"),
    show_default=True,
    help="Root of the results, the --output-dir of the run scripts.",
)
OUTPUT_DIR = click.option(
    "--output-dir", type=click.Path(file_okay=False, path_type=Path), help="[default: RESULTS_DIR/eval]"
)
WORKERS = click.option(
    "--workers", type=click.IntRange(1), default=2, show_default=True, help="Processes that grade answers."
)


class SeveralValues(click.Command):
    """A command whose options with `multiple=True` also take several values at once: --seeds 96 89 64."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        several = [name for p in self.params if getattr(p, "multiple", False) for name in p.opts]
        return super().parse_args(ctx, repeat_option(args, several))


def repeat_option(args: Sequence[str], names: Sequence[str]) -> list[str]:
    """`--seeds 96 89` as `--seeds 96 --seeds 89`, for the options in `names`."""
    result: list[str] = []
    current, has_value = "", False
    for arg in args:
        if arg.startswith("-"):
            current, has_value = (arg if arg in names else ""), False
        elif current and has_value:
            result.append(current)
        elif current:
            has_value = True
        result.append(arg)
    return result


def seeds_in_range(_: click.Context, parameter: click.Parameter, value: tuple[int, int] | None) -> Any:
    """Callback: the two ends in ascending order."""
    if value is not None and value[0] > value[1]:
        raise click.BadParameter(f"the first seed must not be larger than the second; got {value[0]} {value[1]}")
    return value
