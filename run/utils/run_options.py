"""Command line of the run scripts."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from bayesian_transformer.command_line import PROJECTIONS_HELP, Projections

from .config import MAX_TOKENS

_OWN_OPTIONS = {"model": "--model-path", "seed": "--seed"}  # recorded with the results, so given in one way only


class JsonObject(click.ParamType):
    """A JSON object on the command line."""

    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, Any]:
        if isinstance(value, dict):
            return value
        try:
            parsed = json.loads(value)
        except json.JSONDecodeError as error:
            self.fail(f"not valid JSON ({error}): {value}", param, ctx)
        if not isinstance(parsed, dict):
            self.fail(f'must be a JSON object like {{"dtype": "float32"}}, got {value}', param, ctx)
        for key in _OWN_OPTIONS.keys() & parsed.keys():
            self.fail(f"must not hold {key!r}; use {_OWN_OPTIONS[key]}", param, ctx)
        return parsed


@dataclass(frozen=True)
class RunOptions:
    """What both run scripts are asked to do."""

    dataset_path: Path
    dataset_start: int
    dataset_end: int | None
    model_path: str
    output_dir: Path
    seed: int
    batch_size: int
    num_samples: int | None
    bayes_sigma: float | None
    max_tokens: int
    system_prompt_file: Path | None
    engine_args: dict[str, Any]
    log_file: Path | None = None
    bayes_projections: tuple[str, ...] | None = None

    @property
    def hf_overrides(self) -> dict[str, Any]:
        """Config keys to replace: those of --engine-args, then those that have options of their own."""
        overrides = self.engine_args.get("hf_overrides", {})
        if not isinstance(overrides, dict):
            raise ValueError(f"--engine-args: hf_overrides must be a JSON object, got {overrides!r}")
        given = {
            "num_samples": self.num_samples,
            "bayes_sigma": self.bayes_sigma,
            "bayes_projections": self.bayes_projections and [*self.bayes_projections],
        }
        return overrides | {key: value for key, value in given.items() if value is not None}

    def system_prompt(self) -> str | None:
        """The text of --system-prompt-file; None leaves the model family's."""
        if self.system_prompt_file is None:
            return None
        try:
            return self.system_prompt_file.read_text(encoding="utf-8-sig").strip()  # some editors begin with a mark
        except UnicodeDecodeError as error:
            raise ValueError(f"{self.system_prompt_file}: is not UTF-8 text ({error}); save it as UTF-8") from error


def run_options(batch_size: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorator that adds the options of RunOptions to a click command."""
    file = click.Path(exists=True, dir_okay=False, path_type=Path)
    options = [
        click.option("--dataset-path", type=file, required=True, help="JSON Lines file of problems."),
        click.option("--dataset-start", type=click.IntRange(0), default=0, show_default=True, help="First problem."),
        click.option("--dataset-end", type=click.IntRange(1), help="One past the last problem.  [default: all]"),
        click.option("--model-path", required=True, help="TFB model: folder, hub name, llama1b, llama8b or qwen3b."),
        click.option(
            "--output-dir",
            type=click.Path(file_okay=False, path_type=Path),
            default=Path("results"),
            show_default=True,
            help="Root of the results; model, data set and seed become folders below it. Or the whole folder itself.",
        ),
        click.option(
            "--seed",
            type=click.IntRange(0, 2**32 - 1),
            default=96,
            show_default=True,
            help="Seed of noise and sampling.",
        ),
        click.option(
            "--batch-size",
            type=click.IntRange(1),
            default=batch_size,
            show_default=True,
            help="Responses that vLLM decodes at once.",
        ),
        click.option("--num-samples", type=click.IntRange(1), help="Weight samples.  [default: the model's]"),
        click.option("--bayes-sigma", type=click.FloatRange(0), help="Noise scale.  [default: the model's]"),
        click.option("--bayes-projections", type=Projections(), help=f"{PROJECTIONS_HELP}  [default: the model's]"),
        click.option("--max-tokens", type=click.IntRange(1), default=MAX_TOKENS, show_default=True),
        click.option("--system-prompt-file", type=file, help="Text to use as system prompt; an empty file sends none."),
        click.option(
            "--engine-args", type=JsonObject(), default="{}", help="JSON object of further vllm.LLM arguments."
        ),
        click.option(
            "--log-file",
            type=click.Path(dir_okay=False, path_type=Path),
            help="Append what vLLM prints to this file; progress and errors stay on the terminal.",
        ),
    ]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate
