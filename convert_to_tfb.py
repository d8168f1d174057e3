"""Convert a base model to a TFB model: its weights plus the basis vectors that carry the noise.

python convert_to_tfb.py --model-path Qwen2.5-3B-Instruct --output-path TFB-Qwen2.5-3B-Instruct --architecture qwen2
"""

from pathlib import Path

import click

from bayesian_transformer.config import ARCHITECTURES, DEFAULT_RANK
from bayesian_transformer.conversion import convert_checkpoint
from bayesian_transformer.layers import NOISE_KINDS


@click.command(help=__doc__)
@click.option("--model-path", required=True, type=click.Path(path_type=Path), help="Folder of the base model.")
@click.option("--output-path", required=True, type=click.Path(path_type=Path), help="Folder to write the TFB model to.")
@click.option("--architecture", type=click.Choice(list(ARCHITECTURES)), help="Default: what config.json says.")
@click.option("--rank", default=DEFAULT_RANK, show_default=True, help="Singular directions that carry noise.")
@click.option("--bayes-noise", default="right", show_default=True, type=click.Choice(NOISE_KINDS))
@click.option("--overwrite", is_flag=True, help="Replace an existing output folder.")
def main(
    model_path: Path, output_path: Path, architecture: str | None, rank: int, bayes_noise: str, overwrite: bool
) -> None:
    try:
        convert_checkpoint(model_path, output_path, architecture, rank, bayes_noise, overwrite)
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"wrote {output_path}")


if __name__ == "__main__":
    main()
