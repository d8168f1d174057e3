"""How likely is an answer right? Learned from graded results, and applied to new ones: `tokur calibrate`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from . import __version__
from .bootstrap import bootstrap_weights, interval, problem_places
from .calibration import (
    DECLARED,
    MANY,
    Calibrator,
    CrossFit,
    cross_fit,
    declared_scores,
    fit,
    rarer_class,
    threshold_for,
)
from .calibration.calibrator import METHODS, SOURCE
from .command_line import SHARE, one_line_errors, say
from .files import atomic_path, dumps, write_json
from .graded import GradedFolder, read_graded, read_graded_samples, record_scores, stored_settings
from .grading import Grader, Verdict
from .metrics import stratified_auroc
from .results import PARTS, RESPONSES, SETTINGS_FILE, completed, greedy_records
from .sampled import read_outputs, scores_of
from .scores import SCORE_BY_NAME, SCORES

Demand = Callable[[Mapping[str, Any]], None]
_OF_RECORD = ("model", "num_samples", "bayes_sigma")


@dataclass(frozen=True)
class Graded:
    """Scored and graded answers of some folders; arrays are [n]."""

    table: dict[str, NDArray[np.float64]]
    right: NDArray[np.bool_]
    problems: list[str]
    undecided: int  # they count as wrong
    source: dict[str, Any]  # what all of them were made with


def made_with(settings: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    """What of SOURCE is known: the settings of a run, and what the record itself says, also without them."""
    stored = {key: value for key, value in completed(settings).items() if key in SOURCE}
    return {**stored, **{key: record[key] for key in _OF_RECORD if key in record}}


def graded_results(folders: Sequence[Path], grader: Grader) -> Graded:
    """Read, grade and score folders of greedy results or of sampled responses, such as several seeds of one model.

    ValueError, in one line, if one comes twice, or if two of them, or two responses, were made in different ways.
    """
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise ValueError(f"{', '.join(map(str, folders))}: a folder is given twice; give each once")
    parts = []
    source: dict[str, Any] = {}
    for folder in folders:
        part = _read(folder, grader)
        _demand_one_making(folder, part)
        found = made_with(part.settings, part.records[0])
        for key in source.keys() & found.keys():
            if source[key] != found[key]:
                raise ValueError(
                    f"{folder}: made with {key} {found[key]!r}, {folders[0]} with {source[key]!r}; "
                    "calibrate one model, data set and setting at a time"
                )
        source |= found
        parts.append(part)
    verdicts = [verdict for part in parts for verdict in part.verdicts]
    return Graded(
        table={name: np.concatenate([part.scores[name] for part in parts]) for name in SCORE_BY_NAME},
        right=np.array([verdict is Verdict.RIGHT for verdict in verdicts]),
        problems=[problem for part in parts for problem in part.problems],
        undecided=verdicts.count(Verdict.UNDECIDED),
        source=source,
    )


def _read(folder: Path, grader: Grader) -> GradedFolder:
    """Greedy results have the settings of their run beside them, which is a *.json as well; so they come first."""
    found = [] if any(folder.glob(PARTS)) else [path.name for path in folder.glob(RESPONSES)]
    if found == [SETTINGS_FILE]:
        raise ValueError(f"{folder}: holds {SETTINGS_FILE} and no responses; give the folder of results in it")
    return read_graded_samples(folder, grader) if found else read_graded(folder, grader)


def _demand_one_making(folder: Path, part: GradedFolder) -> None:
    """ValueError, naming the response, unless all records of a folder say the same of how they were made."""
    first = part.records[0]
    for problem, record in zip(part.problems, part.records, strict=True):
        for key in _OF_RECORD:
            if record.get(key) != first.get(key):
                raise ValueError(
                    f"{folder}: response {problem}: made with {key} {record.get(key)!r}, {part.problems[0]} with "
                    f"{first.get(key)!r}; calibrate one model and setting at a time"
                )


def calibrated(
    graded: Graded, features: Sequence[str], method: str, alpha: float, delta: float
) -> tuple[Calibrator, CrossFit]:
    """The calibrator with its threshold, and what cross-fitting found. The threshold sees one answer per problem.

    Without `features` the number of labels decides which scores are used.
    """
    features = features or declared_scores(rarer_class(graded.right, graded.problems)[0])
    crossed = cross_fit(graded.table, graded.right, graded.problems, features, method)
    calibrator = fit(graded.table, graded.right, graded.problems, features, method, graded.source)
    if crossed.brier >= crossed.base_brier:
        note = "cross-fitted, it is no better than the base rate: do not decide by it"
        calibrator = replace(calibrator, notes=(*calibrator.notes, note))
    first = sorted({problem: row for row, problem in reversed([*enumerate(graded.problems)])}.values())
    return calibrator.accepting(threshold_for(crossed.p_correct[first], graded.right[first], alpha, delta)), crossed


def report_on(calibrator: Calibrator, crossed: CrossFit, graded: Graded) -> list[str]:
    """The lines that the command prints."""
    counts, undecided = calibrator.counts, f" ({graded.undecided} undecided)" if graded.undecided else ""
    return [
        f"{counts['responses']} answers to {counts['groups']} problems: {counts['right']} right, "
        f"{counts['wrong']} wrong{undecided}",
        f"On problems not seen (cross-fitted): AUROC {100 * crossed.auroc:.1f}, "
        f"Brier score {crossed.brier:.4f}, of the base rate {crossed.base_brier:.4f} (smaller is better)",
        *_choice_among_answers(crossed, graded),
        *(f"note: {note}" for note in calibrator.notes),
        f"threshold: {calibrator.acceptance}",
    ]


def _choice_among_answers(crossed: CrossFit, graded: Graded) -> list[str]:
    """How well P(correct) picks from several answers to one problem; empty if no problem has right and wrong ones."""
    count, (problems,) = problem_places([graded.problems])
    known = np.isfinite(crossed.p_correct) & np.isfinite(graded.table["ll_mean"])
    weights = bootstrap_weights(count)[:, problems[known]]
    within, alone = (
        stratified_auroc(values[known], graded.right[known], problems[known], weights)
        for values in (crossed.p_correct, graded.table["ll_mean"])
    )
    if np.isnan(within[0]):
        return []
    low, high = interval(100 * (within - alone)[1:])
    return [
        f"Among answers to one problem: AUROC {100 * within[0]:.1f}, of the mean log-likelihood alone "
        f"{100 * alone[0]:.1f}; difference {100 * (within - alone)[0]:+.1f} [{low:+.1f}, {high:+.1f}]"
    ]


def with_p_correct(calibrator: Calibrator, record: Mapping[str, Any], scores: Mapping[str, float]) -> dict[str, Any]:
    """The record with `p_correct`, null with `p_correct_reason` where a score has no value, and `accepted` if the
    calibrator has been asked for a threshold; false where that was not reachable.
    """
    table = {name: np.array([value]) for name, value in scores.items()}
    (p,), (reason,) = calibrator.predict(table), calibrator.reasons(table)
    added: dict[str, Any] = {"p_correct": None, "p_correct_reason": reason} if reason else {"p_correct": float(p)}
    if calibrator.acceptance is not None:
        line = calibrator.acceptance.threshold
        added["accepted"] = line is not None and bool(p >= line)
    return {**record, **added}


def apply_to(path: Path, calibrator: Calibrator, output: Path, anyway: bool) -> str:
    """Write a copy of a results file with P(correct); what was done, in a line. ValueError if it does not fit."""

    def demand(settings: Mapping[str, Any]) -> None:
        problem = calibrator.check(**settings)
        if problem and not anyway:
            raise ValueError(f"{path}: {problem}, or add --anyway")

    rows = _sampled_rows if path.suffix == ".json" else _greedy_rows
    answers, accepted = rows(path, calibrator, output, demand)
    return f"{output}: {answers} answers with p_correct" + (f", {accepted} accepted" if calibrator.acceptance else "")


def _greedy_rows(path: Path, calibrator: Calibrator, output: Path, demand: Demand) -> tuple[int, int]:
    answers = accepted = 0
    settings = stored_settings(path.parent)
    with atomic_path(output) as temporary, temporary.open("w", encoding="utf-8") as file:
        for record in greedy_records(path):
            demand(made_with(settings, record))
            try:
                scores = record_scores(record)
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from error
            row = with_p_correct(calibrator, record, scores)
            file.write(dumps(row) + "\n")
            answers, accepted = answers + 1, accepted + row.get("accepted", 0)
        if not answers:
            raise ValueError(f"{path}: holds no finished response")
    return answers, accepted


def _sampled_rows(path: Path, calibrator: Calibrator, output: Path, demand: Demand) -> tuple[int, int]:
    document, outputs = read_outputs(path)
    demand(made_with(document, {}))
    names = [score.name for score in SCORES]
    each = [dict(zip(names, values, strict=True)) for values in scores_of(path, outputs, SCORES).T.tolist()]
    rows = [with_p_correct(calibrator, row, scores) for row, scores in zip(outputs, each, strict=True)]
    write_json(output, document | {"outputs": rows})
    return len(rows), sum(row.get("accepted", 0) for row in rows)


@click.command()
@click.argument("inputs", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--output", required=True, type=click.Path(dir_okay=False, path_type=Path), help="JSON file to write.")
@click.option(
    "--apply",
    "calibrator",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Calibrator to use on new results; nothing is fitted then.",
)
@click.option("--anyway", is_flag=True, help="With --apply: also where the calibrator was fitted on something else.")
@click.option(
    "--alpha", default=0.1, show_default=True, type=SHARE, help="Largest share of wrong answers among the accepted."
)
@click.option(
    "--delta", default=0.1, show_default=True, type=SHARE, help="Chance that the share is larger all the same."
)
@click.option("--method", type=click.Choice([*METHODS]), default="logistic", show_default=True)
@click.option(
    "--feature",
    "features",
    multiple=True,
    help=f"Score; give it several times. Default: {len(DECLARED)} scores, or {len(MANY)} if there are labels enough.",
)
@click.option("--workers", default=2, show_default=True, type=click.IntRange(1), help="Processes that grade.")
def main(
    inputs: tuple[Path, ...], output: Path, calibrator: Path | None, anyway: bool, workers: int, **how: Any
) -> None:
    """How likely is an answer right, and from where on may it be trusted?

    Learn it from folders with results of the run scripts (several seeds of one model and data set). They hold greedy
    answers, or several sampled ones per problem:

    \b
        tokur calibrate results/MODEL_results_vllm_pg/DATASET/seed96/greedy_unc --output calibrator.json

    This grades the answers, fits P(correct) and says how good it is on problems that it has not seen. Then add
    p_correct, and accepted, to a copy of new results of the same model and data set:

    \b
        tokur calibrate --apply calibrator.json NEW/batch_results_0_100.jsonl --output with_p.jsonl

    Lines of `tokur score` will do for --apply as well, if each has a unique_id.
    """
    if output.exists() and any(output.samefile(path) for path in (*inputs, *([calibrator] if calibrator else []))):
        raise click.UsageError("--output is one of the inputs; choose another")
    with one_line_errors():
        if calibrator is not None:
            if len(inputs) > 1 or inputs[0].is_dir():
                raise ValueError("--apply takes one results file, such as batch_results_0_100.jsonl")
            loaded = Calibrator.load(calibrator)
            fitted_with = loaded.versions.get("bayesian_transformer", __version__)
            if fitted_with != __version__:
                say(f"note: {calibrator}: fitted with version {fitted_with}, this is {__version__}", err=True)
            say(apply_to(inputs[0], loaded, output, anyway))
            return
        for path in inputs:
            if not path.is_dir():
                raise ValueError(f"{path}: not a folder; give the folder of the results, such as .../greedy_unc")
        with Grader(workers=workers) as grader:
            graded = graded_results(inputs, grader)
        fitted, crossed = calibrated(graded, **how)
        fitted.save(output)
    for line in report_on(fitted, crossed, graded):
        say(line)
    say(f"{output}: {fitted.method} on {', '.join(fitted.features)}")
