"""The detection report in a few lines: six scores of all that the report has, and what must be known of them."""

import textwrap
from collections.abc import Sequence

from .bootstrap import LEVEL
from .detection_report import Report, table_rows

WIDTH = 100
NOTES, NOTE_LINES = 5, 2  # at most so many notes of so many lines each
# The baseline that a sum must beat, the published scores of the method, EU without the response's length in it, and
# two baselines that need no weight samples: the published one, and the one that is the hardest to beat.
ROWS = ("length", "tu_sum", "eu_sum", "eu_mean", "ll_mean", "confidence_mean")
_HEAD = ("score", "AUROC", "interval", "AUPRC", "ACC*", "equal length", "gain over length")


def brief_text(report: Report) -> str:
    """Title, table and notes, at most WIDTH columns wide unless a name is longer."""
    runs = report.evaluation.runs
    right = dict.fromkeys(f"{int(run.right.sum())} of {len(run.ids)}" for run in runs)  # once if all seeds agree
    about = f"right answers: {', '.join(right)}; metrics in percent, larger is better; intervals at {LEVEL}%"
    title = f"{report.title}, seed {', '.join(str(run.seed) for run in runs)}"
    return "\n".join([title, *textwrap.wrap(about, WIDTH), "", *_table(report), "", *_notes(report.notes)])


def _table(report: Report) -> list[str]:
    rows = {row.score.name: row for row in table_rows(report.evaluation)}
    body = []
    for name in ROWS:
        cells = rows[name].cells
        numbers = (cells[metric].mean for metric in ("auprc", "top50", "auc_strata"))
        gain = "" if name == "length" else cells["auc_gain"].interval
        body.append((rows[name].score.label, cells["auc"].spread, cells["auc"].interval, *numbers, gain))
    widths = [max(map(len, column)) for column in zip(_HEAD, *body, strict=True)]
    lines = [_line(row, widths) for row in (_HEAD, *body)]
    return [lines[0], "-" * len(lines[0]), *lines[1:]]


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    numbers = [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
    return "  ".join([cells[0].ljust(widths[0]), *numbers]).rstrip()


def _notes(notes: Sequence[str]) -> list[str]:
    lines = []
    for note in notes[:NOTES]:
        lines += textwrap.wrap(
            f"note: {note}",
            WIDTH,
            subsequent_indent="      ",
            max_lines=NOTE_LINES,
            placeholder=" ... (see the report)",
        )
    if len(notes) > NOTES:
        lines.append(f"note: {len(notes) - NOTES} more in the report")
    return lines
