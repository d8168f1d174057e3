"""Running eval_detect_multi_seed.py in tests, reading its tables and changing what it evaluates."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from bayesian_transformer.files import append_jsonl, read_jsonl
from eval.eval_detect_multi_seed import main
from tests.helpers.eval_results import DATASET, MODEL


def run(root: Path, *args: Any) -> Result:
    common = ["--dataset", DATASET, "--model", MODEL, "--results-dir", str(root), "--bootstrap", "50", "--workers", "1"]
    return CliRunner().invoke(main, [*common, *map(str, args)])


def report_folder(root: Path) -> Path:
    (folder,) = (root / "eval").iterdir()
    return folder


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def rewrite(path: Path, change: Callable[[int, dict[str, Any]], object]) -> None:
    """Apply `change(index, record)` to every stored record."""
    records = read_jsonl(path)
    path.unlink()
    for index, record in enumerate(records):
        change(index, record)
        append_jsonl(path, record)
