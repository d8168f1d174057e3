"""Decode speed with uncertainties against plain vLLM, in one run: ours at batch B with S weight samples, plain at B and
at B * S, which is what S weight samples must cost at least (but for K/V reads, which they share).

    python benchmarks/bench_decode.py --quick
    python benchmarks/bench_decode.py --model-shape llama-3.2-1b --batch 1 --batch 16 --samples 5 --json result.json

A named shape runs on random weights: nothing is downloaded. benchmarks/README.md says how the timing is done.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import click

from bayesian_transformer.command_line import one_line_errors
from bayesian_transformer.embedded import tfb_model
from bayesian_transformer.files import dumps, write_json
from benchmarks.utils.baseline import baseline_of, case_name, read_baseline, regressions
from benchmarks.utils.engines import Engine, Paired, paired_rounds, steps_needed, work_folder
from benchmarks.utils.machine import available_bytes, best_of
from benchmarks.utils.printed_table import machine_facts, table, versions
from benchmarks.utils.shapes import DTYPE_BYTES, SHAPES, Shape, write_pair

SCHEMA_VERSION = 2
_TOKEN_BUDGET = 4096  # tokens of one prefill step
_BLOCK = 128  # tokens in a block of the CPU's K/V cache; a GPU's is smaller
_ENGINE_BYTES = 3 << 30  # of one engine, without weights, K/V and logits
_FULL = {"batch": (1, 4, 16, 64), "num_samples": (1, 2, 5, 10), "context": (128, 1024), "rounds": 7, "steps": 4}
_QUICK = {"batch": (1, 4, 16), "num_samples": (5,), "context": (128, 1024), "rounds": 5, "steps": 4}


@dataclass(frozen=True)
class Case:
    """One point of the comparison."""

    batch: int
    num_samples: int
    context: int

    @property
    def rows(self) -> int:
        return self.batch * self.num_samples


@dataclass(frozen=True)
class Options:
    """What a run is asked to do."""

    model: str
    base_path: Path
    tfb_path: Path
    load_format: str
    dtype: str
    enforce_eager: bool
    rounds: int
    steps: int
    memory_bytes: int
    logs: Path

    @property
    def decode_steps(self) -> int:
        """Tokens a case adds to every sequence, at most."""
        return 2 * steps_needed(self.rounds, self.steps) + 2

    def kv_bytes(self, shape: Shape, sequences: int, context: int) -> int:
        """K/V cache for a batch, in whole blocks, one of them vLLM's own."""
        blocks = sequences * -(-(context + self.decode_steps) // _BLOCK) + 1
        return blocks * _BLOCK * shape.kv_token_bytes

    def bytes_needed(self, shape: Shape, case: Case) -> int:
        """Estimate of what both engines of a case take together."""
        kv = self.kv_bytes(shape, case.rows, case.context) + self.kv_bytes(shape, case.batch, case.context)
        logits = 3 * 4 * case.rows * shape.vocab_size
        return 2 * (shape.weight_bytes + _ENGINE_BYTES) + kv + logits


@contextmanager
def engine_pair(options: Options, shape: Shape, cases: list[Case]) -> Iterator[tuple[Engine, Engine]]:
    """A plain engine and ours for cases that agree in `num_samples`."""
    common = {
        "dtype": options.dtype,
        "enforce_eager": options.enforce_eager,
        "load_format": options.load_format,
        "skip_tokenizer_init": True,
        "max_model_len": max(case.context for case in cases) + options.decode_steps + 1,
        "enable_prefix_caching": False,
        "gpu_memory_utilization": 0.45,
        "worker_extension_cls": "benchmarks.utils.machine.MachineProbe",
    }

    def specific(path: Path, sequences: list[int]) -> dict[str, Any]:
        kv = max(options.kv_bytes(shape, n, case.context) for n, case in zip(sequences, cases, strict=True))
        budget = _TOKEN_BUDGET + max(sequences)
        return {
            "model": str(path),
            "max_num_seqs": max(sequences),
            "max_num_batched_tokens": budget,
            "kv_cache_memory_bytes": kv,
        }

    num_samples = cases[0].num_samples
    plain = common | specific(options.base_path, [case.rows for case in cases])
    ours = common | specific(options.tfb_path, [case.batch for case in cases])
    ours["hf_overrides"] = {"num_samples": num_samples}
    with (
        Engine.running("plain", options.logs / f"plain-{num_samples}.log", **plain) as plain_engine,
        Engine.running("uncertainty", options.logs / f"uncertainty-{num_samples}.log", **ours) as our_engine,
    ):
        yield plain_engine, our_engine


def measure(case: Case, plain: Engine, ours: Engine, shape: Shape, options: Options) -> dict[str, Paired]:
    """Time ours against plain vLLM at B * S, then, with the rest of its batch aborted, against plain vLLM at B."""
    plain.call("fill", sequences=case.rows, context=case.context, vocab_size=shape.vocab_size)
    ours.call("fill", sequences=case.batch, context=case.context, vocab_size=shape.vocab_size)
    limit = paired_rounds(ours, plain, options.rounds, options.steps)
    if case.num_samples > 1:
        plain.call("keep", sequences=case.batch)
        at_batch = paired_rounds(ours, plain, options.rounds, options.steps)
    else:
        at_batch = limit
    plain.call("keep", sequences=0)
    ours.call("keep", sequences=0)
    return {"limit": limit["core"], "plain": at_batch["core"], "plain_with_front_end": at_batch["total"]}


def case_record(case: Case, timings: dict[str, Paired], shape: Shape, machine: dict[str, Any]) -> dict[str, Any]:
    """What the result says of one case."""
    record = asdict(case) | {name: paired.summary() for name, paired in timings.items()}
    ours = record["plain"]["ours_seconds"]
    floors = {
        "ours": (shape.step_cost(case.batch, case.context, case.num_samples), record["limit"]["ours_seconds"]),
        "limit": (shape.step_cost(case.rows, case.context), record["limit"]["seconds"]),
        "plain": (shape.step_cost(case.batch, case.context), record["plain"]["seconds"]),
    }
    return record | {
        "tokens_per_second": {"ours": case.batch / ours, "plain": case.batch / record["plain"]["seconds"]},
        "roofline": {
            name: asdict(cost) | {"share": cost.seconds(machine) / seconds} for name, (cost, seconds) in floors.items()
        },
    }


def run(options: Options, cases: list[Case]) -> dict[str, Any]:
    """Measure all cases that fit into memory; the result, as written to --json."""
    start = time.monotonic()
    shape = Shape.from_path(options.base_path, options.dtype)
    skipped = {case: options.bytes_needed(shape, case) for case in cases}
    skipped = {case: needed for case, needed in skipped.items() if needed > options.memory_bytes}
    for case, needed in skipped.items():
        click.echo(f"skipped {case_name(asdict(case))}: needs about {needed / 1e9:.0f} GB", err=True)
    fitting = [case for case in cases if case not in skipped]
    if not fitting:
        raise ValueError("no case fits into memory; take a smaller --model-shape, --batch, --samples or --context")
    machine: dict[str, Any] = {}
    facts: dict[str, Any] = {}
    timings: dict[Case, dict[str, Paired]] = {}
    failed: list[str] = []
    for num_samples in dict.fromkeys(case.num_samples for case in fitting):
        group = [case for case in fitting if case.num_samples == num_samples]
        try:
            with engine_pair(options, shape, group) as (plain, ours):
                facts = {"plain": plain.facts, "ours": ours.facts}
                machine = best_of(machine, plain.call("machine", dtype=options.dtype))
                for case in group:
                    timings[case] = measure(case, plain, ours, shape, options)
                    click.echo(f"{case_name(asdict(case))}: done after {time.monotonic() - start:.0f} s", err=True)
                machine = best_of(machine, plain.call("machine", dtype=options.dtype))
        except ValueError as error:  # an engine died; what others measured is kept
            failed += [f"{case_name(asdict(case))}: {error}" for case in group if case not in timings]
    if not timings:
        raise ValueError(failed[0])
    return {
        "schema_version": SCHEMA_VERSION,
        "model": options.model,
        "dtype": options.dtype,
        "device": machine["device"],
        "enforce_eager": options.enforce_eager,
        "rounds": options.rounds,
        "steps": options.steps,
        "shape": asdict(shape),
        "machine": machine | machine_facts(),
        "versions": versions(),
        "engines": facts,
        "cases": [case_record(case, timings[case], shape, machine) for case in timings],
        "skipped": [asdict(case) | {"bytes": needed} for case, needed in skipped.items()],
        "failed": failed,
        "seconds": time.monotonic() - start,
    }


def check_baseline(path: Path, result: dict[str, Any], tolerance: float) -> None:
    """Say that no ratio got worse, or end with exit status 1 and a line for each that did."""
    worse = regressions(path, result, tolerance)
    if worse:
        raise click.ClickException("\n".join([f"slower than {path}:", *worse]))
    click.echo(f"no ratio is more than {tolerance:.0%} above {path}", err=True)


@click.command(help="Time decoding with uncertainties against plain vLLM, at the same batch and at S times the batch.")
@click.option("--model-shape", type=click.Choice(list(SHAPES)), help="Published shape, random weights.")
@click.option(
    "--layers", type=click.IntRange(1), help="Cut the shape to so many layers, for a machine of little memory."
)
@click.option(
    "--model-path",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Base checkpoint; its TFB model is made in the cache folder.",
)
@click.option("--batch", type=click.IntRange(1), multiple=True, help="B; may be repeated.")
@click.option("--samples", "num_samples", type=click.IntRange(1), multiple=True, help="S; may be repeated.")
@click.option(
    "--context", type=click.IntRange(16), multiple=True, help="Tokens in the cache of every sequence; may be repeated."
)
@click.option("--rounds", type=click.IntRange(1), help="Paired bursts.")
@click.option("--steps", type=click.IntRange(1), help="Decode steps of a burst.")
@click.option("--dtype", type=click.Choice(list(DTYPE_BYTES)), default="bfloat16", show_default=True)
@click.option("--enforce-eager", is_flag=True, help="Neither compilation nor CUDA graphs.  [default: as vLLM's]")
@click.option(
    "--memory-gb",
    type=click.FloatRange(0, min_open=True),
    help="Leave out cases that need more.  [default: what is free]",
)
@click.option("--quick", is_flag=True, help="Few cases of the smallest shape, under 15 minutes on two cores.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the result here too.")
@click.option(
    "--baseline",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Fail if a ratio got worse than in this file.",
)
@click.option(
    "--tolerance", type=click.FloatRange(0), default=0.15, show_default=True, help="How much worse --baseline allows."
)
@click.option("--write-baseline", type=click.Path(dir_okay=False, path_type=Path), help="Store this run's ratios.")
def main(
    model_shape: str | None,
    layers: int | None,
    model_path: Path | None,
    quick: bool,
    json_file: Path | None,
    baseline: Path | None,
    tolerance: float,
    write_baseline: Path | None,
    memory_gb: float | None,
    dtype: str,
    enforce_eager: bool,
    **sizes: Any,
) -> None:
    if model_path and (model_shape or layers):
        raise click.UsageError("give --model-shape, with or without --layers, or --model-path, not both")
    if baseline:
        with one_line_errors():
            read_baseline(baseline)  # before the minutes of measuring
    sizes = {name: given or (_QUICK if quick else _FULL)[name] for name, given in sizes.items()}
    cases = [Case(b, s, c) for s in sizes["num_samples"] for c in sizes["context"] for b in sizes["batch"]]
    shape_name = model_shape or ("smollm2-135m" if quick else "llama-3.2-1b")
    with one_line_errors(), work_folder() as folder:
        base, tfb = (model_path, tfb_model(model_path)) if model_path else write_pair(shape_name, folder, layers)
        if model_path == tfb:
            raise ValueError(f"{model_path}: is a TFB model; give the base model it was made from")
        options = Options(
            model=model_path.resolve().name if model_path else shape_name + (f", {layers} layers" if layers else ""),
            base_path=base.resolve(),
            tfb_path=tfb.resolve(),
            load_format="auto" if model_path else "dummy",
            dtype=dtype,
            enforce_eager=enforce_eager,
            rounds=sizes["rounds"],
            steps=sizes["steps"],
            memory_bytes=int(memory_gb * 1e9) if memory_gb else available_bytes(),
            logs=folder,
        )
        result = run(options, cases)
        click.echo(table(result))
        if json_file:
            write_json(json_file, result)
        if write_baseline:
            write_json(write_baseline, baseline_of(result))
        click.echo(dumps(result))
        if result["failed"]:
            raise ValueError(f"not all cases were measured: {'; '.join(result['failed'])}")
    if baseline:
        with one_line_errors():
            check_baseline(baseline, result, tolerance)


if __name__ == "__main__":
    main()
