"""Score the responses of a JSON Lines file with a TFB model.

    python -m bayesian_transformer.score --model-path TFB-MODEL --input texts.jsonl --output scores.jsonl

Each input line is an object with `response` and either `prompt` (raw text) or `messages` (for the chat template), and
optionally `seed`. Each output line repeats its input and adds `line` (the input line's number), `token_ids`, `tokens`,
one array per quantity, and how it was computed. A run that was cut short resumes where it stopped. Lines that cannot
be scored are reported by number; all others are scored, and the exit status is 1.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import torch
from tqdm import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer

from .checkpoint import tensor_files
from .config import NoiseConfig
from .files import append_jsonl, drop_torn_line, dumps, read_jsonl
from .model import NoisyModelMixin
from .scoring import CHUNK_ROWS, ScoredText, ScoringRequest, noise_settings, score_texts
from .uncertainty import FIELDS

SCHEMA_VERSION = 1


class BadLine(ValueError):
    """An input line that cannot be scored; the message says why."""


def parse_line(line: bytes, seed: int) -> tuple[dict[str, Any], ScoringRequest]:
    """The object on an input line and the request it makes. BadLine says what is wrong with it."""
    try:
        record = json.loads(line.decode("utf-8"))
        dumps(record).encode("utf-8")  # the output line repeats it
    except UnicodeError as error:
        raise BadLine(f"not valid UTF-8 ({error})") from error
    except (ValueError, RecursionError) as error:
        raise BadLine(f"not valid JSON ({error})") from error
    if not isinstance(record, dict):
        raise BadLine(f"expected a JSON object, got {type(record).__name__}")
    if not isinstance(record.get("response"), str):
        raise BadLine("needs the field response, a string")
    if ("prompt" in record) == ("messages" in record):
        raise BadLine("needs one of the fields prompt and messages")
    prompt: Any = record.get("prompt", record.get("messages"))
    if "prompt" in record and not isinstance(prompt, str):
        raise BadLine("prompt must be a string")
    if "messages" in record and not _are_messages(prompt):
        raise BadLine("messages must be a list of objects with the strings role and content")
    seed = record.get("seed", seed)
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise BadLine(f"seed must be an integer, got {seed!r}")
    return record, ScoringRequest(prompt, record["response"], seed)


def _are_messages(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(m, dict) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str) for m in value
    )


class Scoring:
    """One run over a file: what is done already, what failed, and the settings that every output line records."""

    def __init__(self, output: Path, noise: NoiseConfig, seed: int, **settings: str) -> None:
        self.output, self.seed, self.failures = output, seed, 0
        self.settings = {"num_samples": noise.effective_samples, "bayes_sigma": noise.bayes_sigma, **settings}
        drop_torn_line(output)
        self.done = {row.get("line"): row for row in read_jsonl(output)} if output.exists() else {}
        for number, row in self.done.items():
            changed = {key: row.get(key) for key, value in self.settings.items() if row.get(key) != value}
            if changed:
                raise ValueError(f"{output}: line {number} was scored with {changed}; choose another --output")

    def requests(self, lines: list[bytes], source: Path) -> Iterator[tuple[int, dict[str, Any], ScoringRequest]]:
        """The lines still to score; bad ones are reported and counted."""
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                record, request = parse_line(line, self.seed)
            except BadLine as error:
                self.fail(source, number, error)
                continue
            if number not in self.done:
                yield number, record, request
            elif not self._same(self.done[number], record, request):
                raise ValueError(f"{self.output}: line {number} is not that of {source}; choose another --output")

    def fail(self, source: Path, number: int, error: ValueError) -> None:
        self.failures += 1
        tqdm.write(f"{source}:{number}: {error}", file=sys.stderr)  # above the progress bar

    def write(self, number: int, record: dict[str, Any], request: ScoringRequest, scored: ScoredText) -> None:
        arrays = {name: getattr(scored.uncertainties, name).tolist() for name in FIELDS}
        result = {"token_ids": scored.token_ids, "tokens": scored.tokens, **arrays}
        origin = {**self.settings, "seed": request.seed, "schema_version": SCHEMA_VERSION}
        append_jsonl(self.output, {**record, "line": number, **result, **origin})

    @staticmethod
    def _same(row: dict[str, Any], record: dict[str, Any], request: ScoringRequest) -> bool:
        keys = ("prompt", "messages", "response")
        return all(row.get(key) == record.get(key) for key in keys) and row.get("seed") == request.seed


def load_model(path: str, dtype: str, device: str) -> NoisyModelMixin:
    """A model with noisy projections, in evaluation mode. ClickException if `path` holds something else."""
    try:
        if Path(path).is_dir():
            tensor_files(Path(path))  # a damaged file gets a clearer message here than from transformers
        model = AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, dtype))
    except (OSError, ValueError) as error:
        known = Path(path).is_dir()
        reason = str(error).splitlines()[0] if known else "no such folder, nor a model that was downloaded"
        raise click.ClickException(f"--model-path {path}: {reason}") from error
    if not isinstance(model, NoisyModelMixin):
        raise click.ClickException(f"--model-path {path}: is no TFB model; convert it with convert_to_tfb.py")
    try:
        return model.to(device).eval()  # type: ignore[attr-defined]
    except (AssertionError, RuntimeError) as error:  # a torch without CUDA raises the former
        raise click.ClickException(f"--device {device}: {str(error).splitlines()[0]}") from error


@click.command()
@click.option("--model-path", required=True, help="Folder of a TFB model.")
@click.option("--input", "source", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--output", required=True, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--num-samples", type=int, help="Weight samples S; default: the model's.")
@click.option("--sigma", type=float, help="Noise scale; default: the model's.")
@click.option("--seed", default=0, show_default=True, help="Noise seed of lines without a seed of their own.")
@click.option("--batch-size", default=4, show_default=True, type=click.IntRange(1), help="Texts scored together.")
@click.option("--chunk-rows", default=CHUNK_ROWS, show_default=True, type=click.IntRange(1), help="Bounds the memory.")
@click.option("--dtype", default="float32", show_default=True, type=click.Choice(["float32", "bfloat16", "float16"]))
@click.option("--device", default="cuda" if torch.cuda.is_available() else "cpu", show_default=True)
def main(source: Path, output: Path, model_path: str, dtype: str, device: str, seed: int, **settings: Any) -> None:
    """Score the responses of a JSON Lines file; `python -m pydoc bayesian_transformer.score` describes the format."""
    if output.exists() and output.samefile(source):
        raise click.UsageError("--output is the --input file; choose another")
    model = load_model(model_path, dtype, device)
    try:
        tokenizer = AutoTokenizer.from_pretrained(model_path)
        noise = noise_settings(model, settings["num_samples"], settings["sigma"])
        scoring = Scoring(output, noise, seed, model=model_path, dtype=dtype)
        todo = list(scoring.requests(source.read_bytes().split(b"\n"), source))
        results = score_texts(model, tokenizer, [request for *_, request in todo], **settings)
        for (number, record, request), scored in zip(tqdm(todo, unit="text"), results, strict=True):
            if isinstance(scored, ScoredText):
                scoring.write(number, record, request, scored)
            else:
                scoring.fail(source, number, scored)
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{output}: {len(scoring.done)} texts were there, {len(todo)} more attempted, {scoring.failures} failed")
    if scoring.failures:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
