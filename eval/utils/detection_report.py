"""The detection report as files: two CSV tables, a text, a self-contained HTML page and the pictures."""

import base64
import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from bayesian_transformer.files import atomic_path, write_json
from bayesian_transformer.scores import SCORES

from .bootstrap import LEVEL
from .evaluation import COUNTS, Evaluation, Summary
from .notes import missing_values
from .plots import save_plots

KINDS = {
    "length": "Length baseline",
    "sum": "Sums over tokens (mix in response length)",
    "mean": "Means over tokens",
    "group": "Sliding-window groups",
}
DEFINITIONS = (
    ("Positive class", "a right answer. Uncertainties are negated, so larger always means more confident."),
    ("AUROC", "share of right-wrong pairs in which the right answer scores higher; a tie counts half."),
    ("AUPRC", "trapezoid over the points of scikit-learn's precision_recall_curve."),
    ("ACC*", "accuracy of the most confident 50% of the answers (rounded down, at least one; ties by expectation)."),
    ("PRR", "(e - AURC) / (e - AURC of the perfect ranking), e the error rate; no cap on rejection (LM-Polygraph)."),
    (
        "AURC",
        "area under the risk-coverage curve, the mean error rate of the k most confident over all k; lower is better.",
    ),
    (
        "Within strata",
        "AUROC over pairs of one token-count stratum only; the token count's own row shows what length still explains.",
    ),
    ("Residual", "AUROC of what a straight line in the token count leaves of the score."),
    ("Over length", "AUROC of the score minus AUROC of the token count, interval from the same bootstrap draws."),
    ("Undecided", "an answer that the grader could not decide within its limits; it counts as wrong."),
    (
        "±",
        "sample standard deviation over the seeds (ddof = 1). Greedy texts are the same for every seed, so it is then "
        "the spread of the weight samples' noise alone.",
    ),
    ("[low, high]", f"{LEVEL}% percentile interval of the mean over seeds, from a bootstrap over problems."),
)
_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
)


@dataclass(frozen=True)
class Report:
    """What every form of the report starts from."""

    title: str
    evaluation: Evaluation
    notes: list[str]
    metadata: dict[str, Any]


@dataclass(frozen=True)
class Row:
    """One score in the table, as text in percent."""

    name: str
    label: str
    kind: str
    auc: str
    auc_interval: str
    auprc: str
    acc: str
    prr: str
    aurc: str
    strata: str
    strata_interval: str
    residual: str
    residual_interval: str
    gain: str
    gain_interval: str


def table_rows(evaluation: Evaluation) -> list[Row]:
    """The table of the report, one row per score in the order of SCORES."""
    rows = []
    for score in SCORES:
        get = {
            prefix: evaluation.summary[f"{prefix}_{score.name}"]
            for prefix in ("auc", "auprc", "top50", "prr", "aurc", "auc_strata", "auc_residual", "auc_gain")
        }
        rows.append(
            Row(
                score.name, score.label, score.kind,
                spread(get["auc"]), bounds(get["auc"]), spread(get["auprc"]), spread(get["top50"]),
                percent(get["prr"].mean), percent(get["aurc"].mean),
                percent(get["auc_strata"].mean), bounds(get["auc_strata"]),
                percent(get["auc_residual"].mean), bounds(get["auc_residual"]),
                percent(get["auc_gain"].mean), bounds(get["auc_gain"]),
            )
        )  # fmt: skip
    return rows


def percent(value: float) -> str:
    return "NaN" if math.isnan(value) else f"{100 * value:.2f}"


def spread(summary: Summary) -> str:
    """Mean, and standard deviation where there are several seeds."""
    return percent(summary.mean) + ("" if math.isnan(summary.std) else f" ±{percent(summary.std)}")


def bounds(summary: Summary) -> str:
    return "" if math.isnan(summary.low) else f"[{100 * summary.low:.1f}, {100 * summary.high:.1f}]"


def text_table(evaluation: Evaluation) -> str:
    """The table for a terminal: sums, means and length."""
    head = ("score", "", "AUROC", f"{LEVEL}% interval", "AUPRC", "ACC*", "in strata", "residual", "over length")
    body = [
        (
            row.label,
            row.name,
            row.auc,
            row.auc_interval,
            row.auprc,
            row.acc,
            row.strata,
            row.residual,
            row.gain_interval,
        )
        for row in table_rows(evaluation)
    ]
    widths = [max(len(line[column]) for line in (head, *body)) for column in range(len(head))]
    lines = [_line(head, widths), "-" * len(_line(head, widths))]
    kind = ""
    for score, cells in zip(SCORES, body, strict=True):
        if score.kind != kind:
            kind = score.kind
            lines.append(f"{KINDS[kind]}:")
        lines.append(_line(cells, widths))
    return "\n".join(lines)


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
        "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows),
        "All metrics in percent.\n" + text_table(report.evaluation),
        "Notes\n" + "\n".join(f"- {note}" for note in report.notes or ["nothing to report"]),
        "Definitions\n" + "\n".join(f"- {term}: {meaning}" for term, meaning in DEFINITIONS),
    ]
    return "\n\n".join(parts) + "\n"


def write_report(report: Report, folder: Path) -> Path:
    """Write every file of the report into `folder`; returns the path of report.html."""
    evaluation = report.evaluation
    write_json(folder / "metadata.json", report.metadata | {"notes": report.notes, "runs": _run_metadata(evaluation)})
    write_csv(
        folder / "detailed_results.csv",
        [
            {"seed": seed, **columns, **{name: int(columns[name]) for name in COUNTS}}
            for seed, columns in evaluation.per_seed.items()
        ],
    )
    write_csv(
        folder / "summary_statistics.csv",
        [{"metric": name, **asdict(summary)} for name, summary in evaluation.summary.items()],
    )
    write_csv(folder / "response_scores.csv", _response_rows(evaluation))
    with atomic_path(folder / "evaluation_report.txt") as temporary:
        temporary.write_text(report_text(report), encoding="utf-8")
    plots = save_plots(evaluation, folder)
    page = _TEMPLATES.get_template("detection.html.j2").render(
        title=report.title,
        metadata=report.metadata,
        seeds=seed_table(evaluation),
        groups=[(text, [row for row in table_rows(evaluation) if row.kind == kind]) for kind, text in KINDS.items()],
        notes=report.notes,
        plots={title: base64.b64encode(path.read_bytes()).decode() for title, path in plots.items()},
        definitions=DEFINITIONS,
        level=LEVEL,
    )
    with atomic_path(folder / "report.html") as temporary:
        temporary.write_text(page, encoding="utf-8")
    return folder / "report.html"


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows with the columns of the first one, atomically; floats in full precision, NaN as an empty cell."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({key: "" if isinstance(v, float) and math.isnan(v) else v for key, v in row.items()})


def _response_rows(evaluation: Evaluation) -> list[dict[str, Any]]:
    """One row per seed and response: what every number of the report can be recomputed from."""
    return [
        {"seed": run.seed, "question_id": name, "verdict": str(run.verdicts[index]), "tokens": int(run.tokens[index])}
        | {score.name: float(run.scores[score.name][index]) for score in SCORES}
        for run in evaluation.runs
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
