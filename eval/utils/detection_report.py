"""The detection report as files: CSV tables, a text, a self-contained HTML page and the pictures."""

import base64
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from bayesian_transformer.bootstrap import LEVEL
from bayesian_transformer.files import HALF_PAIRS, atomic_path, write_json
from bayesian_transformer.printable import printable
from bayesian_transformer.scores import EXPLORED, LISTED, PRIMARY, SCORES, Score

from .comparison import Comparison
from .csv_tables import with_published, write_csv
from .decision import HEAD, compared_rows, decision_lines
from .decision_plots import decision_figure
from .definitions import DEFINITIONS
from .evaluation import COUNTS, Evaluation, Summary
from .notes import missing_values
from .plots import save_figure, save_plots

# Of the HTML table; the terminal has no room for all of them.
_METRICS = ("auc", "auprc", "top50", "prr", "aurc", "auc_strata", "auc_residual", "auc_level", "auc_gain")
# Head of a column in a terminal -> its metric, and which field of the Cell.
_TEXT_COLUMNS = {
    "AUROC": ("auc", "spread"),
    f"{LEVEL}% interval": ("auc", "interval"),
    "AUPRC": ("auprc", "spread"),
    "ACC*": ("top50", "spread"),
    "in strata": ("auc_strata", "mean"),
    "residual": ("auc_residual", "mean"),
    "over length": ("auc_gain", "interval"),
}
_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
)


@dataclass(frozen=True)
class Report:
    """What every form of the report starts from."""

    title: str
    evaluation: Evaluation
    comparison: Comparison | str  # or why there is none
    notes: list[str]
    metadata: dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """One metric of one score, as text in percent."""

    mean: str  # over the seeds
    spread: str  # the mean, and the standard deviation where there are several seeds
    interval: str  # empty where there is none


@dataclass(frozen=True)
class Row:
    """One score in the table."""

    score: Score
    cells: dict[str, Cell]  # by metric, the prefix of its columns


def table_rows(evaluation: Evaluation, scores: Iterable[Score] = LISTED) -> list[Row]:
    """One row per score: the token count, the primary scores, then the others."""
    order = sorted(scores, key=lambda score: (score.quantity is not None, score.name not in PRIMARY))
    return [
        Row(score, {metric: _cell(evaluation.summary[f"{metric}_{score.name}"]) for metric in _METRICS})
        for score in order
    ]


def _cell(summary: Summary) -> Cell:
    mean = percent(summary.mean)
    deviation = "" if math.isnan(summary.std) else f" ±{percent(summary.std)}"
    interval = "" if math.isnan(summary.low) else f"[{100 * summary.low:.1f}, {100 * summary.high:.1f}]"
    return Cell(mean, mean + deviation, interval)


def percent(value: float) -> str:
    return "NaN" if math.isnan(value) else f"{100 * value:.2f}"


def grouped(rows: Iterable[Row]) -> list[tuple[str, list[Row]]]:
    """The rows under their headings, in their order."""
    return [(heading, list(group)) for heading, group in groupby(rows, lambda row: row.score.heading)]


def text_table(evaluation: Evaluation) -> str:
    """The table for a terminal: length, primary scores, and what else a reader is shown first."""
    groups = grouped(table_rows(evaluation))
    head = ("score", "", *_TEXT_COLUMNS)
    body = {row.score.name: _text_cells(row) for _, rows in groups for row in rows}
    widths = [max(map(len, column)) for column in zip(head, *body.values(), strict=True)]
    lines = [_line(head, widths), "-" * len(_line(head, widths))]
    for heading, rows in groups:
        lines += [f"{heading}:", *(_line(body[row.score.name], widths) for row in rows)]
    return "\n".join(lines)


def _text_cells(row: Row) -> tuple[str, ...]:
    numbers = (getattr(row.cells[metric], form) for metric, form in _TEXT_COLUMNS.values())
    return (row.score.label, row.score.name, *numbers)


def seed_table(evaluation: Evaluation) -> list[tuple[str, ...]]:
    """Per seed: seed, responses, right, undecided, accuracy in percent, mean tokens, stopped at the limit."""
    return [
        (
            str(run.seed), str(len(run.ids)), str(int(run.right.sum())), str(len(run.undecided)),
            percent(evaluation.per_seed[run.seed]["overall_accuracy"]),
            f"{run.tokens.mean():.1f}", str(int(run.truncated.sum())),
        )
        for run in evaluation.runs
    ]  # fmt: skip


def report_text(report: Report) -> str:
    """evaluation_report.txt."""
    head = ("seed", "responses", "right", "undecided", "accuracy", "tokens", "at limit")
    rows = [head, *seed_table(report.evaluation)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    parts = [
        report.title,
        "\n".join(decision_lines(report.comparison)),
        "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows),
        "All metrics in percent.\n" + text_table(report.evaluation),
        *([] if isinstance(report.comparison, str) else [comparison_text(report.comparison)]),
        "Notes\n" + "\n".join(f"- {note}" for note in report.notes or ["nothing to report"]),
        "Definitions\n" + "\n".join(f"- {term}: {meaning}" for term, meaning in DEFINITIONS),
    ]
    return "\n\n".join(parts) + "\n"


def comparison_text(comparison: Comparison) -> str:
    """The comparison as text; AUROC in percent, with intervals."""
    lines = []
    for heading, rows in compared_rows(comparison):
        lines.append(f"{heading}:")
        for row in rows:
            found = zip(HEAD, row.cells, strict=True)
            cells = ", ".join(f"{name} {value} {interval}".rstrip() for name, (value, interval) in found if value)
            lines.append(f"  {row.label}: {cells}")
    return "\n".join(lines)


def write_detection_report(report: Report, folder: Path) -> Path:
    """Write every file of the report into `folder`; returns the path of report.html."""
    evaluation = report.evaluation
    write_json(folder / "metadata.json", report.metadata | {"notes": report.notes, "runs": _run_metadata(evaluation)})
    write_csv(
        folder / "detailed_results.csv",
        [
            {"seed": seed, **with_published(columns), **{name: int(columns[name]) for name in COUNTS}}
            for seed, columns in evaluation.per_seed.items()
        ],
    )
    write_csv(
        folder / "summary_statistics.csv",
        [{"metric": name, **asdict(summary)} for name, summary in with_published(evaluation.summary).items()],
    )
    write_csv(folder / "response_scores.csv", _response_rows(report))
    decision = _write_comparison(report, folder)
    with atomic_path(folder / "evaluation_report.txt") as temporary:
        temporary.write_text(printable(report_text(report)), encoding="utf-8", errors=HALF_PAIRS)
    plots = save_plots(evaluation, folder)
    page = _TEMPLATES.get_template("detection.html.j2").render(
        title=report.title,
        metadata=report.metadata,
        seeds=seed_table(evaluation),
        groups=grouped(table_rows(evaluation)),
        explored=grouped(table_rows(evaluation, EXPLORED)),
        decision=decision_lines(report.comparison),
        decision_plot=_embedded(decision) if decision else "",
        compared=[] if isinstance(report.comparison, str) else compared_rows(report.comparison),
        compared_head=HEAD,
        notes=report.notes,
        plots={title: _embedded(path) for title, path in plots.items()},
        definitions=DEFINITIONS,
        level=LEVEL,
    )
    with atomic_path(folder / "report.html") as temporary:
        temporary.write_text(page, encoding="utf-8", errors=HALF_PAIRS)
    return folder / "report.html"


def _embedded(path: Path) -> str:
    """A file in base64, to stand in a page."""
    return base64.b64encode(path.read_bytes()).decode()


def _write_comparison(report: Report, folder: Path) -> Path | None:
    """Write the table and the picture of P(correct), where there is one; the picture's path."""
    if isinstance(report.comparison, str):
        return None
    columns = report.comparison.columns.items()
    write_csv(folder / "p_correct_statistics.csv", [{"metric": name, **asdict(summary)} for name, summary in columns])
    path = folder / "decision.png"
    save_figure(decision_figure(report.evaluation.runs, report.comparison), path)
    return path


def _response_rows(report: Report) -> list[dict[str, Any]]:
    """One row per seed and response: what every number of the report can be recomputed from."""
    found = {} if isinstance(report.comparison, str) else report.comparison.p_correct
    return [
        {"seed": run.seed, "question_id": name, "verdict": str(run.verdicts[index]), "tokens": int(run.tokens[index])}
        | ({"p_correct": float(found[run.seed][index])} if run.seed in found else {})
        | {score.name: float(run.scores[score.name][index]) for score in SCORES}
        for run in report.evaluation.runs
        for index, name in enumerate(run.ids)
    ]


def _run_metadata(evaluation: Evaluation) -> list[dict[str, Any]]:
    return [
        {
            "seed": run.seed,
            "responses": len(run.ids),
            "right": int(run.right.sum()),
            "undecided": run.undecided,
            "truncated": [name for name, cut in zip(run.ids, run.truncated, strict=True) if cut],
            "missing_values": missing_values(run),
        }
        for run in evaluation.runs
    ]


def _line(cells: Iterable[str], widths: Sequence[int]) -> str:
    label, name, *rest = cells
    numbers = [cell.rjust(width) for cell, width in zip(rest, widths[2:], strict=True)]
    return "  ".join([label.ljust(widths[0]), name.ljust(widths[1]), *numbers]).rstrip()
