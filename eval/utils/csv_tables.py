"""CSV tables, and the published names in them."""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from bayesian_transformer.files import atomic_path
from bayesian_transformer.scores import SCORES

from .metrics import TOP_PERCENTS

Column = TypeVar("Column")

# Published column -> the column that says what it is: auc_ll -> auc_ll_mean, auc_tu -> auc_tu_sum.
PUBLISHED_COLUMNS = {
    f"{metric}_{score.aliases.detection}": f"{metric}_{score.name}"
    for metric in ("auc", "auprc", *(f"top{percent}" for percent in TOP_PERCENTS))
    for score in SCORES
    if score.aliases.detection
}


def with_published(columns: Mapping[str, Column]) -> dict[str, Column]:
    """The columns of a detection table, and after them those that have a published name once more under it."""
    return {**columns, **{alias: columns[name] for alias, name in PUBLISHED_COLUMNS.items()}}


# A spreadsheet runs a cell that begins so, also after a tab, a line break or in the wide form.
_RUN = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def cell(value: Any) -> Any:
    """A value as a cell that no spreadsheet runs: a text that it would take for a formula is quoted with an apostrophe.

    Numbers stay numbers, also negative ones. NaN is an empty cell.
    """
    if isinstance(value, str):
        return f"'{value}" if value.lstrip(" ").startswith(_RUN) else value
    return "" if isinstance(value, float) and math.isnan(value) else value


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows with the columns of the first one, atomically; floats in full precision, see `cell`."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({key: cell(value) for key, value in row.items()})
