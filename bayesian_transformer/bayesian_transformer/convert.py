"""The command `tokur convert`, which `convert_to_tfb.py` is too."""

from pathlib import Path
from typing import Any

import click

from .architectures import ARCHITECTURES
from .command_line import PROJECTIONS_HELP, Projections, one_line_errors
from .noise_config import DEFAULT_RANK, NOISE_KINDS, PROJECTIONS

AUTO = "auto"


@click.command(help="Convert a base model to a TFB model: its weights plus the basis vectors that carry the noise.")
@click.option("--model-path", required=True, type=click.Path(path_type=Path), help="Folder of the base model.")
@click.option(
    "--output-path",
    required=True,
    type=click.Path(path_type=Path),
    help="What is written: the folder of the TFB model, or a file.",
)
@click.option(
    "--architecture",
    default=AUTO,
    show_default=True,
    type=click.Choice([AUTO, *ARCHITECTURES]),
    help=f"{AUTO}: what config.json says.",
)
@click.option("--rank", default=DEFAULT_RANK, show_default=True, help="Singular directions that carry noise.")
@click.option("--bayes-noise", default="right", show_default=True, type=click.Choice(NOISE_KINDS))
@click.option("--overwrite", is_flag=True, help="Replace what is there already.")
@click.option(
    "--bases-only", is_flag=True, help="Write the basis vectors alone, to a file, for quantised siblings of the model."
)
@click.option(
    "--bayes-projections",
    default=",".join(PROJECTIONS),
    show_default=True,
    type=Projections(),
    help=PROJECTIONS_HELP,
)
def main(model_path: Path, output_path: Path, architecture: str, bases_only: bool, **options: Any) -> None:
    from .conversion import convert_bases, convert_checkpoint  # seconds, which --help does without

    with one_line_errors():
        family = None if architecture == AUTO else architecture
        convert = convert_bases if bases_only else convert_checkpoint
        convert(model_path, output_path, family, **options)
    click.echo(f"wrote {output_path}")
