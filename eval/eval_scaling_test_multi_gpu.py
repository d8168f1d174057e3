"""Accuracy against the number of responses: majority vote, weighted vote, best of N and pass@N by every score.

    python eval/eval_scaling_test_multi_gpu.py --dataset math500 --model llama1b --seed 96 --p_val 0.1

Reads RESULTS_DIR/inference_scaling/{model}_results_vllm_pg/{dataset}/seed{seed}/p{n}/single_greedy_unc/*.json, where
model and data set may have their long or their short names, and writes
{model}_{dataset}_seed{seed}_p{p}_{mode}_scaling_{summary.csv,metadata.json,plot.png} to OUTPUT_DIR. The name of this
script is the published one; it grades each response once and then only counts, so it needs no GPU. Exits with 1 if a
file could not be used.
"""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import click
from tqdm import tqdm

import bayesian_transformer
from bayesian_transformer.command_line import one_line_errors, say
from bayesian_transformer.files import write_json
from bayesian_transformer.grading import Grader
from bayesian_transformer.problems import answer_text, load_problems, question_id
from bayesian_transformer.results import RESPONSES, SCALING_RESPONSES, dataset_name, folders_to_read, model_name
from eval.utils.csv_tables import write_csv
from eval.utils.eval_options import DATASET, MODEL, OUTPUT_DIR, RESULTS_DIR, WORKERS
from eval.utils.notes import name_some
from eval.utils.plots import save_figure
from eval.utils.responses import Problem, read_problems
from eval.utils.scaling import MODES, scaling_figure, scaling_notes, scaling_rows, scaling_table, settings_found

DEFAULT_P_VAL = 0.9
DEFAULT_REPEATS = 10


@click.command(help=__doc__)
@DATASET
@MODEL
@click.option("--seed", type=click.IntRange(0), default=96, show_default=True)
@click.option(
    "--p_val",
    "--p-val",
    type=click.FloatRange(0, 1, min_open=True),
    default=DEFAULT_P_VAL,
    show_default=True,
    help="Share of the responses, best first by each score, that may vote.",
)
@click.option(
    "--n-particles",
    type=click.IntRange(1),
    default=SCALING_RESPONSES,
    show_default=True,
    help="Responses per problem that were generated: the n of the folder p{n}.",
)
@click.option("--mode", type=click.Choice(MODES), default="all", show_default=True, help="Ways to choose an answer.")
@click.option(
    "--repeats",
    type=click.IntRange(1),
    default=DEFAULT_REPEATS,
    show_default=True,
    help="Random subsets of each size below all.",
)
@click.option(
    "--dataset-path",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="JSON Lines file with the gold answers, for results without them (those of the published code).",
)
@RESULTS_DIR
@OUTPUT_DIR
@WORKERS
def main(dataset: str, model: str, results_dir: Path, output_dir: Path | None, **options: Any) -> None:
    dataset, model = dataset_name(dataset), model_name(model)
    seed, n = options["seed"], options["n_particles"]
    with one_line_errors():
        folder = folders_to_read(results_dir, model, dataset, [seed], n)[seed]
        gold, unusable = gold_answers(options["dataset_path"]) if options["dataset_path"] else ({}, [])
        problems, failures = load(folder, gold, options["workers"])
        choice = {key: options[key] for key in ("seed", "p_val", "repeats", "mode")}
        rows = scaling_rows(problems, **choice, progress=lambda sizes: tqdm(sizes, desc="voting", unit="N"))
        absent = sorted(set(gold) - {problem.question_id for problem in problems})
        notes = scaling_notes(problems)
        if absent:
            notes.append(f"{len(absent)} of {len(gold)} problems have no usable results: {name_some(absent)}")
        if unusable:
            notes.append(
                f"{len(unusable)} rows of {options['dataset_path']} give no gold answer: {name_some(unusable)}"
            )
        origin = {"model": model, "dataset": dataset, **choice, "results": str(folder)}
        found = {"failures": failures, "without_results": absent, "unusable_rows": unusable, "notes": notes}
        name = f"{model}_{dataset}_seed{options['seed']}_p{share_text(options['p_val'])}_{options['mode']}_scaling"
        stem = str((output_dir or results_dir / "eval") / name)
        write_csv(Path(f"{stem}_summary.csv"), [asdict(row) for row in rows])
        title = f"{model} on {dataset}, the best {100 * options['p_val']:g}% vote"
        save_figure(scaling_figure(rows, title), Path(f"{stem}_plot.png"))
        write_json(Path(f"{stem}_metadata.json"), origin | counts(problems) | found)
    for note in [*failures, *notes]:
        say(f"note: {note}", err=True)
    say(f"\nScaling: {model} on {dataset}, {len(problems)} problems; accuracy in percent\n")
    say(scaling_table(rows))
    say(f"\nSummary: {stem}_summary.csv\nPlot: {stem}_plot.png")
    if failures:
        raise click.ClickException(f"{len(failures)} of {len(failures) + len(problems)} files could not be used")


def counts(problems: Sequence[Problem]) -> dict[str, Any]:
    """How much was evaluated, for the metadata."""
    return {
        "problems": len(problems),
        "responses": sum(problem.answers.size for problem in problems),
        "undecided": {problem.question_id: problem.undecided for problem in problems if problem.undecided},
        "made_with": settings_found(problems),
        "bayesian_transformer": bayesian_transformer.__version__,
    }


def load(folder: Path, gold: dict[str, str], workers: int) -> tuple[list[Problem], list[str]]:
    """The problems of `folder`, and what is wrong with the files that could not be used; ValueError if none could."""
    paths = sorted(folder.glob(RESPONSES))
    if not paths:
        there = sorted(other.name for other in folder.parent.parent.glob("p*"))
        raise ValueError(
            f"{folder}: no results here; check --model, --dataset, --seed, --results-dir and --n-particles "
            f"(found: {', '.join(there) or 'none'}) or run greedy_responses_unc.py first"
        )
    problems, failures = [], []
    with Grader(workers=workers) as grader:
        for item in tqdm(read_problems(paths, gold, grader), desc="grading", unit="problem", total=len(paths)):
            if isinstance(item, Problem):
                problems.append(item)
            else:
                failures.append(str(item))
    if not problems:
        raise ValueError(f"none of {len(paths)} files could be used; the first: {failures[0]}")
    return problems, failures


def gold_answers(path: Path) -> tuple[dict[str, str], list[str]]:
    """Gold answers of a data set by question id, and which rows (the first is 0) have no id or answer, and why."""
    gold, unusable = {}, []
    for index, problem in enumerate(load_problems(path)):
        label = f"problem {index}"
        try:
            label = question_id(problem)
            gold[label] = answer_text(problem)
        except ValueError as error:
            unusable.append(f"{label}: {error}")
    return gold, unusable


def share_text(p_val: float) -> str:
    """One decimal as in the published names, more only where one would make two shares the same file."""
    short = f"{p_val:.1f}"
    return short if float(short) == p_val else f"{p_val:g}"


if __name__ == "__main__":
    main()
