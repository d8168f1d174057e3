"""Score the responses of a JSON Lines file with a TFB model.

    tokur score --model-path TFB-MODEL --input texts.jsonl --output scores.jsonl

Each input line is an object with `response` and either `prompt` (raw text) or `messages` (for the chat template), and
optionally `seed`. A space between prompt and response belongs to the response; after `messages` it may be left out
where the tokenizer adds one by itself. Each output line repeats its input and adds `line` (the input line's number),
`token_ids`, `tokens`, one array per quantity, and how it was computed; its input must have none of these fields but
`seed`. A run that was cut short resumes where it stopped. Lines that cannot be scored are reported by number; all
others are scored, and the exit status is 1. A response of which not one value is finite, in any token and quantity,
counts among the former and gets no output line; a dtype that overflows makes such.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from tqdm import tqdm

from .command_line import PROJECTIONS_HELP, Projections, one_line_errors, say
from .encoding import CHUNK_ROWS, ScoringRequest
from .files import append_jsonl, drop_torn_line, dumps, naming, numbered_lines, parse_object, shortened
from .noise_config import PROJECTIONS, NoiseConfig
from .printable import printable
from .quantities import FIELDS, without_value

if TYPE_CHECKING:
    from .scoring import ScoredText

SCHEMA_VERSION = 1


# What an output line adds to its input, which may bring only its seed.
_ADDED = frozenset(
    ("line", "token_ids", "tokens", *FIELDS, "num_samples", "bayes_sigma", "model", "dtype", "schema_version")
) | {"bayes_projections"}  # where they are not the default


class BadLine(ValueError):
    """An input line that cannot be scored; the message says why."""


def parse_line(line: bytes, seed: int) -> tuple[dict[str, Any], ScoringRequest]:
    """The object on an input line and the request it makes. BadLine says what is wrong with it."""
    try:
        record = parse_object(line)
        dumps(record).encode("utf-8")  # the output line repeats it
    except UnicodeError as error:
        raise BadLine(f"not valid UTF-8 ({error})") from error
    except (ValueError, RecursionError) as error:
        raise BadLine(str(error)) from error
    if taken := sorted(_ADDED & record.keys()):
        raise BadLine(f"has the field {taken[0]}, which the output line adds; rename it")
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
        raise BadLine(f"seed must be an integer, got {shortened(seed)}")
    return record, ScoringRequest(prompt, record["response"], seed)


def _are_messages(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(m, dict) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str) for m in value
    )


def read_lines(source: Path) -> list[tuple[int, bytes]]:
    """The lines of an input file that are not blank, with their numbers."""
    with source.open("rb") as file:
        return list(numbered_lines(file))


def read_scores(output: Path, lines: list[tuple[int, bytes]]) -> dict[int, dict[str, Any]]:
    """The rows of an output file by the number of their input line. ValueError if another program wrote it.

    Nothing is changed. A torn last line is left out; where it is the only one, it must begin as one of `lines` does.
    """
    *whole, torn = output.read_bytes().split(b"\n")
    rows = {}
    for number, line in enumerate(whole, start=1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict) or row.get("schema_version") != SCHEMA_VERSION or type(row.get("line")) is not int:
            raise ValueError(f"{output}:{number}: not a line of scores; choose another --output")
        rows[row["line"]] = row
    if torn and not rows and not any(_begins_alike(torn, line) for _, line in lines):
        raise ValueError(f"{output}: does not hold scores; choose another --output")
    return rows


def _begins_alike(torn: bytes, line: bytes) -> bool:
    """Whether a cut output line may be that of an input line, which it repeats first."""
    try:
        record, _ = parse_line(line, 0)
    except BadLine:
        return False
    start = dumps(record).encode()[:-1]
    return torn.startswith(start) or start.startswith(torn)


def whole_path(path: object) -> object:
    """What an output line says of the model: the whole path of a folder, however it was spelt."""
    try:
        return str(Path(path).resolve()) if isinstance(path, str) and Path(path).is_dir() else path
    except OSError:  # too long for the name of a folder
        return path


class Scoring:
    """One run over a file: what is done already, what failed, and the settings that every output line records."""

    def __init__(
        self, lines: list[tuple[int, bytes]], output: Path, noise: NoiseConfig, seed: int, *, model: str, dtype: str
    ) -> None:
        self.lines, self.output, self.seed, self.failures = lines, output, seed, 0
        self.settings = {
            "num_samples": noise.effective_samples,
            "bayes_sigma": noise.bayes_sigma,
            "model": whole_path(model),
            "dtype": dtype,
            **noise.later_settings,
        }
        wanted = {**self.settings, "bayes_projections": [*noise.bayes_projections]}
        self.done = read_scores(output, lines) if output.exists() else {}
        for number, row in self.done.items():
            known = {"bayes_projections": [*PROJECTIONS], **row, "model": whole_path(row.get("model"))}
            changed = {key: known.get(key) for key, value in wanted.items() if known.get(key) != value}
            if changed:
                raise ValueError(
                    f"{output}: line {number} was scored with {shortened(changed)}; choose another --output"
                )
        drop_torn_line(output)
        output.parent.mkdir(parents=True, exist_ok=True)
        with naming(output):
            output.touch()  # an input without texts has an output too

    def requests(self, source: Path) -> Iterator[tuple[int, dict[str, Any], ScoringRequest]]:
        """The lines still to score; bad ones are reported and counted. ValueError if one that was scored is gone."""
        gone = set(self.done)
        for number, line in self.lines:
            try:
                record, request = parse_line(line, self.seed)
            except BadLine as error:
                self.fail(source, number, error)
                continue
            if number not in self.done:
                yield number, record, request
            elif self._same(self.done[number], record, request):
                gone.remove(number)
                if without_value([self.done[number].get(name) for name in FIELDS]):  # from before they were refused
                    self.fail(source, number, self._no_value())
        for number in sorted(gone):
            raise ValueError(f"{self.output}: line {number} is not that of {source}; choose another --output")

    def fail(self, source: Path, number: int, error: ValueError) -> None:
        self.failures += 1
        tqdm.write(printable(f"{source}:{number}: {error}"), file=sys.stderr)  # above the progress bar

    def write(self, number: int, record: dict[str, Any], request: ScoringRequest, scored: "ScoredText") -> None:
        """Store the line of a text. BadLine, and no line, if not one of its values is finite."""
        arrays = {name: getattr(scored.uncertainties, name).tolist() for name in FIELDS}
        if without_value(arrays.values()):
            raise self._no_value()
        result = {"token_ids": scored.token_ids, "tokens": scored.tokens, **arrays}
        origin = {**self.settings, "seed": request.seed, "schema_version": SCHEMA_VERSION}
        append_jsonl(self.output, {**record, "line": number, **result, **origin})

    def _no_value(self) -> BadLine:
        dtype = self.settings["dtype"]
        return BadLine(f"not one value is finite: the model overflows in {dtype}; use another --dtype and --output")

    @staticmethod
    def _same(row: dict[str, Any], record: dict[str, Any], request: ScoringRequest) -> bool:
        keys = ("prompt", "messages", "response")
        return all(row.get(key) == record.get(key) for key in keys) and row.get("seed") == request.seed


@click.command()
@click.option("--model-path", required=True, help="Folder of a TFB model.")
@click.option("--input", "source", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--output", required=True, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--num-samples", type=int, help="Weight samples S; default: the model's.")
@click.option("--sigma", type=float, help="Noise scale; default: the model's.")
@click.option("--bayes-projections", type=Projections(), help=f"{PROJECTIONS_HELP}  [default: the model's]")
@click.option("--seed", default=0, show_default=True, help="Noise seed of lines without a seed of their own.")
@click.option("--batch-size", default=4, show_default=True, type=click.IntRange(1), help="Texts scored together.")
@click.option("--chunk-rows", default=CHUNK_ROWS, show_default=True, type=click.IntRange(1), help="Bounds the memory.")
@click.option("--dtype", default="float32", show_default=True, type=click.Choice(["float32", "bfloat16", "float16"]))
@click.option("--device", help="[default: cuda if there is one, else cpu]")
def main(source: Path, output: Path, **options: Any) -> None:
    """Score the responses of a JSON Lines file; `python -m pydoc bayesian_transformer.score` describes the format."""
    if output.exists() and output.samefile(source):
        raise click.UsageError("--output is the --input file; choose another")
    with one_line_errors():
        scoring = score_file(source, output, **options)
    if scoring.failures:
        raise SystemExit(1)


def score_file(
    source: Path,
    output: Path,
    model_path: str,
    dtype: str,
    device: str | None,
    seed: int,
    bayes_projections: Sequence[str] | None = None,
    **settings: Any,
) -> Scoring:
    """Score what is not scored yet; `settings` are those of `score_texts`."""
    import torch  # here, because it takes seconds that --help need not wait

    from .hf.loading import load_model, load_tokenizer
    from .scoring import noise_settings, score_texts

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    model = load_model(model_path, dtype, device, bayes_projections)
    tokenizer = load_tokenizer(model_path, "--model-path")
    try:
        noise = noise_settings(model, settings["num_samples"], settings["sigma"])
        scoring = Scoring(read_lines(source), output, noise, seed, model=model_path, dtype=dtype)
        todo = list(scoring.requests(source))
        results = score_texts(model, tokenizer, [request for *_, request in todo], **settings)
        for (number, record, request), scored in zip(tqdm(todo, unit="text"), results, strict=True):
            try:
                if isinstance(scored, ValueError):
                    raise scored
                scoring.write(number, record, request, scored)
            except ValueError as error:
                scoring.fail(source, number, error)
    except torch.OutOfMemoryError as error:
        message = f"--device {device}: out of memory; lower --chunk-rows or --batch-size and run the command again"
        raise click.ClickException(message) from error
    say(f"{output}: {len(scoring.done)} texts were there, {len(todo)} more attempted, {scoring.failures} failed")
    return scoring


if __name__ == "__main__":
    main()
