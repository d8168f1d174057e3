"""The detection report in a few lines: six scores of all that the report has, and what must be known of them."""

import textwrap
from collections.abc import Sequence

from bayesian_transformer.bootstrap import LEVEL

from .decision import decision_lines
from .detection_report import Report, table_rows

WIDTH = 100
NOTES, NOTE_LINES = 5, 2  # at most so many notes of so many lines each
# The baseline that a sum must beat, the published scores of the method, EU without the response's length in it, and
# two baselines that need no weight samples: the published one, and the one that is the hardest to beat.
ROWS = ("length", "tu_sum", "eu_sum", "eu_mean", "ll_mean", "confidence_mean")
_WIDE = 10  # points of AUROC; an interval so wide does not tell two good scores apart
_HEAD = ("score", "AUROC", "interval", "AUPRC", "ACC*", "equal length", "gain over length")


def brief_text(report: Report) -> str:
    """Title, table and notes, at most WIDTH columns wide unless a name is longer."""
    runs = report.evaluation.runs
    right = dict.fromkeys(f"{int(run.right.sum())} of {len(run.ids)}" for run in runs)  # once if all seeds agree
    about = f"right answers: {', '.join(right)}; metrics in percent, larger is better; intervals at {LEVEL}%"
    title = f"{report.title}, seed {', '.join(str(run.seed) for run in runs)}"
    head = [title, *textwrap.wrap(about, WIDTH)]
    return "\n".join([*head, "", *_table(report), "", *_decision(report), *_notes(report.notes)])


def _decision(report: Report) -> list[str]:
    """How good P(correct) is, and how little so few problems show."""
    lines = textwrap.wrap(decision_lines(report.comparison)[0], WIDTH)
    problems = max(len(run.ids) for run in report.evaluation.runs)
    ranks = report.evaluation.summary["auc_ll_mean"]
    width = 100 * (ranks.high - ranks.low)
    return (
        lines if width < _WIDE else [*lines, f"{problems} problems show little: intervals are {width:.0f} points wide"]
    )


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
