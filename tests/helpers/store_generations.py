"""Trim results of the run scripts to the size of test data; tests/data/README.md says what is kept of which run.

    python tests/store_generations.py RESULTS_DIR tests/data/generations --greedy 80 --scaling 22

The files keep their schema and vLLM's numbers, to four significant digits. Of the greedy records the formatted prompt
goes.
"""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bayesian_transformer.files import atomic_path, read_jsonl
from bayesian_transformer.problems import question_id

DIGITS = 4


def rounded(value: Any) -> Any:
    """`value` with every float in it to DIGITS significant digits."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list) else value


def place(record: dict[str, Any]) -> int:
    """The place of a problem in its data set: the last part of arithmetic/17."""
    return int(question_id(record).rpartition("_")[2])


def write(path: Path, records: Iterable[dict[str, Any]]) -> None:
    with atomic_path(path) as temporary:
        lines = [json.dumps(rounded(record), separators=(",", ":")) + "\n" for record in records]
        temporary.write_text("".join(lines), encoding="utf-8")


@click.command(help=__doc__)
@click.argument("source", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("target", type=click.Path(file_okay=False, path_type=Path))
@click.option("--greedy", required=True, type=click.IntRange(1), help="Problems to keep of the greedy results.")
@click.option("--scaling", required=True, type=click.IntRange(1), help="Problems to keep of the sampled responses.")
def main(source: Path, target: Path, greedy: int, scaling: int) -> None:
    for path in source.glob("*_results_vllm_pg/arithmetic/seed*/greedy_unc/batch_results_*.jsonl"):
        records = sorted(read_jsonl(path), key=place)[:greedy]
        name = path.relative_to(source).with_name(f"batch_results_0_{greedy}.jsonl")
        write(target / name, [{k: v for k, v in r.items() if k != "formatted_prompt"} for r in records])
    for path in source.glob("inference_scaling/*/arithmetic/seed*/p*/single_greedy_unc/*.json"):
        record = json.loads(path.read_text(encoding="utf-8"))
        if place(record) < scaling:
            write(target / path.relative_to(source), [record])


if __name__ == "__main__":
    main()
