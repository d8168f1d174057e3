"""Scoring a given response compared with S full passes of the model over it, and with generating as many tokens with
uncertainties, in one run.

    python benchmarks/bench_score.py
    python benchmarks/bench_score.py --model-path TFB-MODEL --samples 10 --dtype bfloat16 --json result.json

A round times the three one after the other, so that a busy machine slows all of them; figures are medians over the
rounds, and ratios are medians of the ratios within a round. The full passes are the plain model's, one after the other,
with the logits of all response tokens and nothing else: no noise, no statistics. Generation is transformers'.
"""

import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import click
import torch
from tqdm import tqdm

from bayesian_transformer.embedded import tfb_model
from bayesian_transformer.encoding import CHUNK_ROWS
from bayesian_transformer.files import dumps, write_json
from bayesian_transformer.hf.limits import max_length
from bayesian_transformer.hf.loading import load_model
from bayesian_transformer.scoring import score
from benchmarks.utils.printed_table import machine_facts, versions

SCHEMA_VERSION = 1
WAYS = ("scoring", "full_passes", "generation")


class Bench:
    """A random response of `tokens` tokens after a random prompt, and three ways to run the model over it."""

    def __init__(self, model: Any, prompt: int, tokens: int, chunk_rows: int) -> None:
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(0, model.config.vocab_size, (1, prompt + tokens), generator=generator)
        self.model, self.ids, self.prompt = model, ids.to(model.device), prompt
        self.tokens, self.chunk_rows = tokens, chunk_rows

    def scoring(self) -> None:
        prompt, response = self.ids[0, : self.prompt].tolist(), self.ids[0, self.prompt :].tolist()
        score(self.model, prompt, response, seed=1, chunk_rows=self.chunk_rows)

    @torch.no_grad()
    def full_passes(self) -> None:
        for _ in range(self.model.num_samples):
            self.model(self.ids, use_cache=False, logits_to_keep=self.tokens + 1)

    def generation(self) -> None:
        options = {"min_new_tokens": self.tokens, "max_new_tokens": self.tokens, "do_sample": False}
        prompt = self.ids[:, : self.prompt]
        mask = torch.ones_like(prompt)
        self.model.generate(prompt, attention_mask=mask, output_uncertainties=True, noise_seed=1, **options)

    def round(self) -> dict[str, float]:
        """Seconds of each way."""
        return {way: self._seconds(way) for way in WAYS}

    def _seconds(self, way: str) -> float:
        start = time.perf_counter()
        getattr(self, way)()
        if self.ids.is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - start


def summary(rounds: Sequence[Mapping[str, float]], tokens: int) -> dict[str, Any]:
    """Median tokens/s of each way, and the median and range of the time of the others over that of scoring."""
    speed = {way: statistics.median(tokens / seconds[way] for seconds in rounds) for way in WAYS}
    ratios = {way: [seconds[way] / seconds["scoring"] for seconds in rounds] for way in WAYS[1:]}
    return {
        "tokens_per_second": speed,
        "times_faster_than": {
            way: {"median": statistics.median(values), "min": min(values), "max": max(values)}
            for way, values in ratios.items()
        },
        "rounds": list(rounds),
    }


def table(result: Mapping[str, Any]) -> str:
    """The medians for people."""
    lines = [
        f"{result['model']}, {result['dtype']}, {result['device']}, {result['threads']} threads: "
        f"{result['tokens']} tokens after {result['prompt']}, S = {result['num_samples']}",
        f"{'way':<12} {'tokens/s':>9}  time over that of scoring [min max]",
    ]
    for way, speed in result["tokens_per_second"].items():
        ratio = result["times_faster_than"].get(way)
        spread = f"  {ratio['median']:.2f} [{ratio['min']:.2f} {ratio['max']:.2f}]" if ratio else ""
        lines.append(f"{way.replace('_', ' '):<12} {speed:>9.1f}{spread}")
    return "\n".join(lines)


@click.command(help=__doc__)
@click.option(
    "--model-path",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="TFB model.  [default: the embedded one]",
)
@click.option("--samples", "num_samples", type=click.IntRange(1), default=5, show_default=True, help="S.")
@click.option("--prompt", type=click.IntRange(1), default=32, show_default=True, help="Tokens of the prompt.")
@click.option("--tokens", type=click.IntRange(1), default=1000, show_default=True, help="Tokens of the response.")
@click.option("--chunk-rows", type=click.IntRange(1), default=CHUNK_ROWS, show_default=True, help="As in scoring.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--threads", type=click.IntRange(1), help="CPU threads.  [default: torch's]")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16", "float16"]), default="float32", show_default=True)
@click.option("--device", default="cuda" if torch.cuda.is_available() else "cpu", show_default=True)
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the result here too.")
def main(
    model_path: Path | None,
    num_samples: int,
    rounds: int,
    threads: int | None,
    dtype: str,
    device: str,
    json_file: Path | None,
    **sizes: int,
) -> None:
    if threads:
        torch.set_num_threads(threads)
    path = model_path or tfb_model()
    model: Any = load_model(str(path), dtype, device)
    model.config.num_samples = num_samples
    limit = max_length(model.config)
    if limit and sizes["prompt"] + sizes["tokens"] > limit:
        raise click.UsageError(f"--prompt and --tokens make more than the {limit} tokens of {path}")
    bench = Bench(model, **sizes)
    bench.scoring()  # warm-up
    measured = [bench.round() for _ in tqdm(range(rounds), unit="round")]
    result = {
        "schema_version": SCHEMA_VERSION,
        "model": path.resolve().name,
        "dtype": dtype,
        "device": torch.cuda.get_device_name(model.device) if bench.ids.is_cuda else model.device.type,
        "threads": torch.get_num_threads(),
        "num_samples": model.noise.effective_samples,
        **sizes,
        "machine": machine_facts(),
        "versions": versions(),
        **summary(measured, bench.tokens),
    }
    click.echo(table(result))
    if json_file:
        write_json(json_file, result)
    click.echo(dumps(result))


if __name__ == "__main__":
    main()
