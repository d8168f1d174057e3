"""Token heat map of scored or generated responses, as one HTML file that needs no network.

    tokur heatmap scores.jsonl --output heat_map.html

An input is a file of `tokur score`, a batch_results_*.jsonl of run/greedy_unc_single_batch_refine.py, or a
{question_id}.json of run/greedy_responses_unc.py --per-token. The results of the run scripts hold token ids without
their texts: give the model's folder as --tokenizer. Responses that cannot be shown are reported by line; all others
are, and the exit status is 1. --most and --least choose the responses at the two ends of a score:

    tokur heatmap scores.jsonl --output heat_map.html --most 5 --least 5 --by eu_mean

--spans outlines parts of the responses and lists them, the least certain first; it can be given several times:

    tokur heatmap scores.jsonl --output heat_map.html --spans answer --spans steps
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..command_line import one_line_errors, say
from ..printable import one_line
from ..scores import SCORE_BY_NAME
from ..spans import SPAN_KINDS
from .extremes import DEFAULT_SCORE, extremes
from .page import Response, write_report
from .records import BadRecord, TokenizerMissing, read_records, response_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def collect(paths: tuple[Path, ...], tokenizer: "PreTrainedTokenizerBase | None") -> tuple[list[Response], int]:
    """All responses of the files, and how many could not be read, each of which is reported."""
    responses, failures = [], 0
    for path in paths:
        for where, record in read_records(path):
            try:
                if isinstance(record, BadRecord):
                    raise record
                responses.append(response_of(record, tokenizer))
            except TokenizerMissing as error:
                raise click.ClickException(one_line(f"{where}: {error}")) from error
            except BadRecord as error:
                failures += 1
                say(f"{where}: {error}", err=True)
    return responses, failures


@click.command()
@click.argument("inputs", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--output", required=True, type=click.Path(dir_okay=False, path_type=Path), help="HTML file to write.")
@click.option(
    "--tokenizer",
    "tokenizer_path",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of the model, for results without the texts of their tokens.",
)
@click.option(
    "--limit", default=100, show_default=True, type=click.IntRange(1), help="Show the first so many responses."
)
@click.option("--most", type=click.IntRange(0), help="Show so many of the most certain responses, not the first.")
@click.option("--least", type=click.IntRange(0), help="Show so many of the least certain responses, not the first.")
@click.option(
    "--by",
    type=click.Choice(list(SCORE_BY_NAME)),
    default=DEFAULT_SCORE,
    show_default=True,
    help="Score of a response that --most and --least choose by.",
)
@click.option(
    "--spans",
    "kinds",
    multiple=True,
    type=click.Choice(list(SPAN_KINDS)),
    help="Outline these parts of the responses and list them, the least certain first. Can be given several times.",
)
@click.option("--title", default="Token uncertainties", show_default=True)
def main(
    inputs: tuple[Path, ...],
    output: Path,
    tokenizer_path: Path | None,
    kinds: tuple[str, ...],
    title: str,
    **choice: Any,
) -> None:
    """Token heat map of responses; `python -m pydoc bayesian_transformer.heat_map.command` describes the formats."""
    if output.exists() and any(output.samefile(path) for path in inputs):
        raise click.UsageError("--output is one of the inputs; choose another")
    tokenizer = None
    if tokenizer_path is not None:
        from ..hf.loading import load_tokenizer  # seconds, which most pages do without

        tokenizer = load_tokenizer(str(tokenizer_path), "--tokenizer")
    with one_line_errors():
        responses, failures = collect(inputs, tokenizer)
        shown, note = choose(responses, **choice)
        unplaced = 0
        if kinds:
            shown, unplaced = with_spans(shown, kinds)
        write_report(output, shown, title=title, note=note)
    say(f"{output}: {len(shown)} of {len(responses)} responses shown, {failures} failed")
    if failures or unplaced:
        raise SystemExit(1)


def with_spans(responses: list[Response], kinds: tuple[str, ...]) -> tuple[list[Response], int]:
    """The responses with their spans, and how many are shown without, each of which is reported."""
    shown, failures = [], 0
    for response in responses:
        try:
            shown.append(response.with_spans(kinds))
        except ValueError as error:
            failures += 1
            shown.append(response)
            say(f"{error}; it is shown without spans", err=True)
    return shown, failures


def choose(
    responses: list[Response], limit: int, most: int | None, least: int | None, by: str
) -> tuple[list[Response], str]:
    """The responses to show, and what the page says of the choice."""
    if most or least:
        return extremes(responses, most or 0, least or 0, by)
    return responses[:limit], f"The first {limit} of {len(responses)} responses." if len(responses) > limit else ""
