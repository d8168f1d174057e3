"""Which sigma suits a model and the user's own texts: `tokur sigma`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from .. import __version__
from ..command_line import PROJECTIONS_HELP, FiniteRange, Projections, one_line_errors, say
from ..encoding import CHUNK_ROWS
from ..files import write_json
from ..printable import printable
from ..score import whole_path
from .labelled import Labelled
from .search import Search
from .shown import document, labelled_lines, lines
from .summary import TextSums
from .texts import Text, read_texts

GRID = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4)


@click.command()
@click.option("--model-path", required=True, help="Folder of a TFB model, or of a plain checkpoint.")
@click.option(
    "--texts",
    "sources",
    required=True,
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Prompts with responses, as for `tokur score`, or batch_results_*.jsonl; give it several times.",
)
@click.option(
    "--sigma",
    "sigmas",
    multiple=True,
    type=FiniteRange(0),
    default=GRID,
    show_default=True,
    help="Noise scale; several times.",
)
@click.option("--num-samples", "counts", multiple=True, type=click.IntRange(2), help="Weight samples S; several times.")
@click.option(
    "--flip-rate",
    default=0.01,
    show_default=True,
    type=FiniteRange(0, 1),
    help="Largest share of tokens that may flip. A convention: no theory ties it to detection.",
)
@click.option("--bisect", default=0, show_default=True, type=click.IntRange(0), help="Further sigmas to try.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="JSON file to write.")
@click.option("--seed", default=0, show_default=True, help="Noise seed; each text has its own after it.")
@click.option("--chunk-rows", default=CHUNK_ROWS, show_default=True, type=click.IntRange(1), help="Bounds the memory.")
@click.option("--dtype", default="float32", show_default=True, type=click.Choice(["float32", "bfloat16", "float16"]))
@click.option("--device", help="[default: cuda if there is one, else cpu]")
@click.option("--bayes-projections", type=Projections(), help=f"{PROJECTIONS_HELP}  [default: the model's]")
@click.option("--workers", default=2, show_default=True, type=click.IntRange(1), help="Processes that grade.")
def main(sources: tuple[Path, ...], output: Path | None, bisect: int, workers: int, **options: Any) -> None:
    """Which sigma suits a model on your own texts? No labels are needed.

    \b
        tokur sigma --model-path TFB-MODEL --texts texts.jsonl

    At each sigma the texts are scored, with the same draws. The table says: how many tokens flip, that is, have another
    most likely token under the mean of the weight samples than without noise; how the negative log-likelihood of the
    text changes; EU, its share of TU, and how much of it is chance of the draws. The largest sigma is recommended that
    flips no more than --flip-rate.

    Where lines have a gold `answer`, they are graded, and AUROC per sigma is shown: also of a sigma that is picked on
    one half of the problems and judged on the other. Responses are not generated here.
    """
    if output and any(output.exists() and output.samefile(path) for path in sources):
        raise click.UsageError("--output is one of the --texts; choose another")
    with one_line_errors():
        failures = search_for_sigma(sources, output, bisect, workers, **options)
    if failures:
        raise SystemExit(1)


def search_for_sigma(
    sources: Sequence[Path], output: Path | None, bisect: int, workers: int, sigmas: Sequence[float], **options: Any
) -> int:
    """Measure, print and store; how many lines could not be measured."""
    texts = [*read_texts(sources)]
    good = [text for text in texts if isinstance(text, Text)]
    for text in texts:
        if isinstance(text, ValueError):
            _tell(f"{text}")
    if not good:
        raise ValueError(f"{', '.join(map(str, sources))}: no line has a prompt with a response")
    search, made_with = prepared(good, sigmas, **options)
    search.add(sorted({*sigmas}))
    search.bisect(bisect)
    rows, choices = search.rows(), search.choices()
    for line in lines(search, rows, choices):
        say(line)
    labelled = _detection(search, workers)
    for line in labelled_lines(labelled) if labelled else ():
        say(line)
    failed = len(texts) - len(search.texts)
    if failed:
        say(f"{failed} of {len(texts)} lines could not be measured and are in no figure above")
    if output:
        write_json(
            output,
            {**document(search, rows, choices, labelled), **made_with, "failed": failed, "version": __version__},
        )
        say(f"{output}: written")
    return failed


def prepared(
    texts: list[Text],
    sigmas: Sequence[float],
    *,
    model_path: str,
    counts: Sequence[int],
    flip_rate: float,
    seed: int,
    chunk_rows: int,
    dtype: str,
    device: str | None,
    bayes_projections: Sequence[str] | None,
) -> tuple[Search, dict[str, Any]]:
    """The texts with a model that measures them, and what all of it is made with."""
    import torch  # here, because it takes seconds that --help need not wait

    from ..hf.limits import max_length
    from ..hf.loading import load_model, load_tokenizer
    from ..scoring import noise_settings
    from .measuring import measure_text

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    model = load_model(model_path, dtype, device, bayes_projections)
    tokenizer = load_tokenizer(model_path, "--model-path")
    model.set_sample(True)  # a config that switches the noise off has a sigma to be chosen all the same
    sample_counts = sorted({*counts} or {model.num_samples})
    if sample_counts[0] < 2:
        raise ValueError("the model has one weight sample, so no noise; give --num-samples")
    for sigma in sigmas:
        noise_settings(model, sample_counts[-1], sigma)  # refuses what no text could be measured with
    limit = max_length(model.causal_lm.config)
    vocabulary = model.causal_lm.get_input_embeddings().num_embeddings

    def measure(text: Text, sigmas: Sequence[float]) -> TextSums:
        prompt, response = text.encoded(tokenizer, limit, vocabulary)
        how: dict[str, Any] = {"sigmas": sigmas, "sample_counts": sample_counts, "chunk_rows": chunk_rows}
        try:
            return measure_text(model, prompt, response, seed=seed + text.number, **how)
        except torch.OutOfMemoryError as error:
            raise click.ClickException(f"--device {device}: out of memory; lower --chunk-rows") from error

    def fail(text: Text, error: ValueError) -> None:
        _tell(f"{text.place}: {error}")

    made_with = {"model": whole_path(model_path), "dtype": dtype, "seed": seed, "bayes_noise": model.noise.bayes_noise}
    made_with |= model.noise.later_settings
    return Search(measure, fail, sample_counts, flip_rate, texts), made_with


def _tell(text: str) -> None:
    tqdm.write(printable(text), file=sys.stderr)  # above the progress bar


def _detection(search: Search, workers: int) -> Labelled | None:
    try:
        return search.detection(workers)
    except ValueError as error:  # the table needs no grading
        say(f"note: detection is left out: {error}")
        return None
