"""Fetch the problem sets of the experiments as JSON Lines: math500, gsm8k_test, deepscaler and leg-counting.

    python datasets/download_data.py
    HF_ENDPOINT=https://my-mirror.example python datasets/download_data.py --only math500 --output-dir data

Each set comes from the published copy on the hub, else from the original public data set or, for leg-counting, from
the generator that made it. The field `source` of every row says which. Row count and fields are checked before a file
appears; a file that is there and passes the same checks is left alone.
"""

import json
import random
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
from huggingface_hub import constants

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bayesian_transformer.command_line import say
from bayesian_transformer.files import atomic_path, dumps, read_jsonl
from bayesian_transformer.printable import one_line

Row = dict[str, Any]
PROBE_SECONDS = 10
SUBSET_SEED = 96
KEPT_FIELDS = ("level", "subject", "solution", "source_row")


@dataclass(frozen=True)
class HubSource:
    """A data set on the hub, or a directory with one."""

    location: str
    config: str | None = None
    split: str | None = None  # None: the only split with an allowed number of rows
    subset: int | None = None  # draw that many of the usable rows, always the same ones

    @property
    def label(self) -> str:
        if self.subset is None:
            return self.location
        return f"{self.location} ({self.subset} rows drawn with seed {SUBSET_SEED}; not the published subset)"

    def rows(self, counts: range) -> list[Row]:
        """The raw rows, as many as `counts` allows; `_first_delivery` knows the errors that say why there are none."""
        from datasets import load_dataset

        splits = load_dataset(self.location, self.config)
        name = self.split or _fitting_split({name: len(split) for name, split in splits.items()}, counts)
        if name not in splits:
            raise ValueError(f"no split {name!r}, only {', '.join(splits)}")
        found = list(splits[name])
        return found if self.subset is None else draw(found, self.subset)


@dataclass(frozen=True)
class LegCountingGenerator:
    """The generator of the leg-counting set, in the version that is installed."""

    size: int = 100
    seed: int = 42

    @property
    def label(self) -> str:
        return f"generated with reasoning-gym {version('reasoning-gym')} (size {self.size}, seed {self.seed})"

    def rows(self, counts: range) -> list[Row]:
        from reasoning_gym import create_dataset

        return list(create_dataset("leg_counting", size=self.size, seed=self.seed))


@dataclass(frozen=True)
class ProblemSet:
    """One problem set: its file name, how many rows it has, and where to look for it, best place first."""

    name: str
    counts: range
    sources: tuple[HubSource | LegCountingGenerator, ...]
    id_prefix: str = ""  # of the ids that rows without one get

    def convert(self, row: Mapping[str, Any], index: int) -> Row:
        """A raw row in the fields that the scripts read."""
        if self.name == "leg-counting":
            return leg_counting_row(row, index)
        return problem_row(row, f"{self.id_prefix}/{row.get('source_row', index)}")


DEEPSCALER = HubSource("agentica-org/DeepScaleR-Preview-Dataset", split="train", subset=5000)
MATH500 = HubSource("HuggingFaceH4/MATH-500", split="test")
GSM8K = HubSource("openai/gsm8k", config="main", split="test")
PROBLEM_SETS = (
    ProblemSet("math500", range(500, 501), (HubSource("Tyrion279/math500"), MATH500), "math500"),
    ProblemSet("gsm8k_test", range(1300, 1320), (HubSource("Tyrion279/gsm8k"), GSM8K), "gsm8k/test"),
    ProblemSet("deepscaler", range(5000, 5001), (HubSource("Tyrion279/deepscaler"), DEEPSCALER), "deepscaler"),
    ProblemSet("leg-counting", range(100, 101), (HubSource("Tyrion279/leg-counting"), LegCountingGenerator())),
)


def _fitting_split(sizes: Mapping[str, int], counts: range) -> str:
    fitting = [name for name, size in sizes.items() if size in counts]
    if len(fitting) != 1:
        found = ", ".join(f"{name} has {size}" for name, size in sizes.items())
        raise ValueError(f"expected one split with {describe(counts)} rows, but {found}")
    return fitting[0]


def draw(rows: list[Row], size: int) -> list[Row]:
    """`size` random rows that have a problem and an answer, in their order, each with its `source_row`."""
    numbered = [{**row, "source_row": index} for index, row in enumerate(rows)]
    usable = [row for row in numbered if _text(row, "problem").strip() and _text(row, "answer").strip()]
    if len(usable) < size:
        raise ValueError(f"{len(usable)} usable rows, {size} needed")
    picked = random.Random(SUBSET_SEED).sample(range(len(usable)), size)
    return [usable[i] for i in sorted(picked)]


def problem_row(row: Mapping[str, Any], default_id: str) -> Row:
    """unique_id, problem, answer and what else is known of a mathematical problem.

    GSM8K's own format keeps the answer behind "####" at the end of the solution; its thousands commas go.
    """
    answer, solution = _text(row, "answer"), _text(row, "solution")
    reasoning, marker, final = answer.rpartition("####")
    if marker:
        solution = solution or f"{reasoning}{marker}{final}"
        answer = re.sub(r"(?<=\d),(?=\d{3})", "", final.strip())
    converted = {
        "unique_id": _text(row, "unique_id") or default_id,
        "problem": _text(row, "problem") or _text(row, "question"),
        "answer": answer.strip(),
    }
    extra = {**row, "solution": solution}
    return converted | {key: extra[key] for key in KEPT_FIELDS if extra.get(key) not in (None, "")}


def leg_counting_row(row: Mapping[str, Any], index: int) -> Row:
    """question, answer and metadata with its source_index; the loader's filler for absent animals is left out."""
    metadata = row.get("metadata") or {}
    if isinstance(metadata, str):
        metadata = json.loads(metadata)
    if not isinstance(metadata, Mapping):
        raise ValueError(f"row {index}: metadata must be a JSON object, got {type(metadata).__name__}")
    return {
        "question": _text(row, "question") or _text(row, "problem"),
        "answer": _text(row, "answer"),
        "metadata": _without_none({"source_index": index} | dict(metadata)),
    }


def check(rows: list[Row], problem_set: ProblemSet) -> None:
    """Raise ValueError if the number of rows, a field or an id is not as it must be."""
    if len(rows) not in problem_set.counts:
        raise ValueError(f"{len(rows)} rows, expected {describe(problem_set.counts)}")
    leg_counting = problem_set.name == "leg-counting"
    seen = set()
    for number, row in enumerate(rows, start=1):
        for key in ("question" if leg_counting else "problem", "answer"):
            if not isinstance(row.get(key), str) or not row[key].strip():
                raise ValueError(f"row {number}: {key!r} must be a text that is not empty")
        identity = (row.get("metadata") or {}).get("source_index") if leg_counting else row.get("unique_id")
        if identity is None or identity in seen:
            raise ValueError(f"row {number}: id {identity!r} is missing or repeated")
        seen.add(identity)


def obtain(problem_set: ProblemSet, output_dir: Path) -> str:
    """Make sure that the set's file is there and right; return one line that says how.

    A file that fails the checks is kept under a name ending in .bak. ValueError tells why no source delivered.
    """
    path = output_dir / f"{problem_set.name}.jsonl"
    stale = None
    if path.exists():
        stale = _defect(path, problem_set)
        if stale is None:
            rows = read_jsonl(path)
            return f"{path}: present, {len(rows)} rows, from {rows[0].get('source', 'an unknown source')}"
    rows = _first_delivery(problem_set)
    if stale is not None:
        path.replace(path.with_name(f"{path.name}.bak"))
    with atomic_path(path) as temporary:
        temporary.write_text("".join(f"{dumps(row)}\n" for row in rows), encoding="utf-8")
    moved = f"; the old file ({stale}) is now {path.name}.bak" if stale else ""
    return f"{path}: {len(rows)} rows from {rows[0]['source']}{moved}"


def _defect(path: Path, problem_set: ProblemSet) -> str | None:
    """What is wrong with the file, None if nothing."""
    try:
        check(read_jsonl(path), problem_set)
    except (ValueError, TypeError, AttributeError) as error:
        return str(error)
    return None


def _first_delivery(problem_set: ProblemSet) -> list[Row]:
    """Checked rows of the first source that delivers."""
    go_offline_if_unreachable()
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HTTPError  # of whichever library the hub's client uses; no OSError

    reasons = []
    for source in problem_set.sources:
        try:
            raw = source.rows(problem_set.counts)
            rows = [problem_set.convert(row, i) | {"source": source.label} for i, row in enumerate(raw)]
            check(rows, problem_set)
        except (OSError, ValueError, DatasetsError, HTTPError) as error:
            reasons.append(f"{source.label}: {one_line(error)}")
        else:
            return rows
    raise ValueError("; ".join(reasons))


def unreachable_reason(endpoint: str) -> str | None:
    """Why the hub does not answer, None if it does. The loader itself retries each file for half a minute."""
    try:
        request = urllib.request.Request(endpoint, method="HEAD", headers={"User-Agent": "download_data"})
        with urllib.request.urlopen(request, timeout=PROBE_SECONDS):
            return None
    except urllib.error.HTTPError as error:
        return str(error) if error.code >= 500 else None  # anything else is an answer, if an unkind one
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error))


@cache
def go_offline_if_unreachable() -> None:
    """Tell the loader, before it is imported, to use only its cache if there is no hub to talk to."""
    if constants.HF_HUB_OFFLINE:
        return
    reason = unreachable_reason(constants.ENDPOINT)
    if reason is not None:
        constants.HF_HUB_OFFLINE = True  # the environment variable of this name was read when the hub was imported
        click.echo(
            f"Cannot reach {constants.ENDPOINT} ({reason}); using what is cached. HF_ENDPOINT=<url> chooses a mirror.",
            err=True,
        )


def describe(counts: range) -> str:
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


def _text(row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    return "" if value is None else str(value)


def _without_none(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return value


def fetch(problem_sets: Iterable[ProblemSet], output_dir: Path) -> list[str]:
    """Obtain each set and report it; return the names of those that failed."""
    failed = []
    for problem_set in problem_sets:
        try:
            click.echo(f"{problem_set.name}: {obtain(problem_set, output_dir)}")
        except (OSError, ValueError) as error:
            failed.append(problem_set.name)
            say(f"{problem_set.name}: FAILED: {error}", err=True)
    return failed


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--only", multiple=True, type=click.Choice([s.name for s in PROBLEM_SETS]), help="Only this set; repeatable."
)
@click.option(
    "--output-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(__file__).resolve().parent,
    help="Where the JSONL files go.  [default: the folder of this script]",
)
def main(only: tuple[str, ...], output_dir: Path) -> None:
    """Fetch the problem sets of the experiments as JSON Lines."""
    failed = fetch([s for s in PROBLEM_SETS if not only or s.name in only], output_dir)
    if failed:
        raise click.ClickException(f"no data for {', '.join(failed)}; the lines above say why.")


if __name__ == "__main__":
    main()
