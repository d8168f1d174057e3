"""CSV tables, and the published names in them."""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO, TypeVar

from bayesian_transformer.files import HALF_PAIRS, atomic_path
from bayesian_transformer.scores import SCORES

_PUBLISHED_METRICS = ("auc", "auprc", "top10", "top25", "top50", "top75")

Column = TypeVar("Column")

# Published column -> the column that says what it is: auc_ll -> auc_ll_mean, auc_tu -> auc_tu_sum.
PUBLISHED_COLUMNS = {
    f"{metric}_{score.aliases.detection}": f"{metric}_{score.name}"
    for metric in _PUBLISHED_METRICS
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


class _LineFeeds:
    """Ends the rows that csv writes with a line feed. If csv did, it would not quote a carriage return in a cell."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, row: str) -> int:
        return self._file.write(row.removesuffix("\r\n") + "\n")


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows with the columns of the first one, atomically; floats in full precision, see `cell`."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8", errors=HALF_PAIRS) as file:
        writer = csv.DictWriter(_LineFeeds(file), fieldnames=list(rows[0]))
        writer.writeheader()
        for row in rows:
            writer.writerow({key: cell(value) for key, value in row.items()})
