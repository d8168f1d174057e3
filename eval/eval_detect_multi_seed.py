"""How well do the scores tell right from wrong answers? One table over several seeds, with a report.

    python eval/eval_detect_multi_seed.py --dataset math500 --model llama1b --seeds 96 89 64

Reads RESULTS_DIR/{model}_results_vllm_pg/{dataset}/seed{seed}/{results_subdir}/, where model and data set may have
their long or their short names, and writes OUTPUT_DIR/{model}_{dataset}_{timestamp}/. Needs no GPU. Exits with 1 if a
seed is missing.
"""

import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import click
from tqdm import tqdm

import bayesian_transformer
from bayesian_transformer.aggregations import DEFAULT_WINDOW
from bayesian_transformer.bootstrap import DEFAULT_DRAWS
from bayesian_transformer.command_line import SHARE, one_line_errors, say
from bayesian_transformer.grading import Grader
from bayesian_transformer.results import GREEDY_SUBDIR, PARTS, dataset_name, folders_to_read, model_name
from eval.utils.brief import brief_text
from eval.utils.comparison import compare
from eval.utils.decision import decision_lines
from eval.utils.detection import SeedRun, load_run
from eval.utils.detection_report import Report, text_table, write_detection_report
from eval.utils.eval_options import DATASET, MODEL, OUTPUT_DIR, RESULTS_DIR, WORKERS, SeveralValues, seeds_in_range
from eval.utils.evaluation import evaluate
from eval.utils.length import DEFAULT_STRATA
from eval.utils.notes import evaluation_notes, setting_values


@click.command(cls=SeveralValues, help=__doc__)
@DATASET
@MODEL
@click.option("--results_subdir", "--results-subdir", default=GREEDY_SUBDIR, show_default=True)
@click.option("--seeds", type=click.IntRange(0), multiple=True, help="One or more seeds: --seeds 96 89 64.")
@click.option(
    "--seeds_range",
    "--seeds-range",
    type=(int, int),
    callback=seeds_in_range,
    help="All seeds from the first to the second, both included.",
)
@RESULTS_DIR
@OUTPUT_DIR
@click.option("--bootstrap", type=click.IntRange(1), default=DEFAULT_DRAWS, show_default=True, help="Bootstrap draws.")
@click.option("--length-strata", type=click.IntRange(1), default=DEFAULT_STRATA, show_default=True)
@click.option(
    "--window", type=click.IntRange(1), default=DEFAULT_WINDOW, show_default=True, help="Tokens of a DeepConf group."
)
@click.option(
    "--alpha",
    type=SHARE,
    default=0.1,
    show_default=True,
    help="Largest share of wrong answers among those that P(correct) accepts.",
)
@click.option(
    "--delta",
    type=SHARE,
    default=0.1,
    show_default=True,
    help="Chance that the share is larger all the same.",
)
@WORKERS
@click.option("--brief", is_flag=True, help="Print six rows of the table; the report has all.")
def main(dataset: str, model: str, results_dir: Path, output_dir: Path | None, **options: Any) -> None:
    dataset, model = dataset_name(dataset), model_name(model)
    seeds = asked_seeds(options)
    with one_line_errors():
        folders = folders_to_read(results_dir, model, dataset, seeds, subdir=options["results_subdir"])
        runs, missing = load_runs(folders, options["workers"], options["window"])
        evaluation = evaluate(runs, options["bootstrap"], options["length_strata"])
        compared = compare(runs, options["bootstrap"], options["alpha"], options["delta"], options["length_strata"])
        report = Report(
            title=f"Detection: {model} on {dataset}",
            evaluation=evaluation,
            comparison=compared,
            notes=evaluation_notes(evaluation, missing, options["window"]),
            metadata={
                "model": model,
                "dataset": dataset,
                "seeds": [run.seed for run in runs],
                "missing_seeds": sorted(missing),
                "num_samples": setting_values(runs, "num_samples"),
                "bayes_sigma": setting_values(runs, "bayes_sigma"),
                "results": [str(folders[run.seed]) for run in runs],
                "bootstrap_draws": options["bootstrap"],
                "length_strata": options["length_strata"],
                "deepconf_window": options["window"],
                "alpha": options["alpha"],
                "delta": options["delta"],
                "p_correct": None if isinstance(compared, str) else list(compared.features),
                "bayesian_transformer": bayesian_transformer.__version__,
            },
        )
        page = write_detection_report(report, report_folder(output_dir or results_dir / "eval", f"{model}_{dataset}"))
    if options["brief"]:
        say(f"\n{brief_text(report)}\n\nReport: {page}")
    else:
        print_report(report, page)
    if missing:
        sys.exit(1)


def print_report(report: Report, page: Path) -> None:
    """Notes on stderr; the table and the path of the report on stdout."""
    for note in report.notes:
        say(f"note: {note}", err=True)
    seeds = ", ".join(str(run.seed) for run in report.evaluation.runs)
    say(f"\n{report.title}, seed {seeds}; metrics in percent\n")
    say(text_table(report.evaluation) + "\n")
    for line in decision_lines(report.comparison):
        say(line)
    say(f"\nReport: {page}")


def asked_seeds(options: dict[str, Any]) -> Sequence[int]:
    """The seeds of --seeds or --seeds_range, of which one must be given."""
    if bool(options["seeds"]) == bool(options["seeds_range"]):
        raise click.UsageError("give either --seeds or --seeds_range")
    return options["seeds"] or range(options["seeds_range"][0], options["seeds_range"][1] + 1)


def load_runs(folders: dict[int, Path], workers: int, window: int) -> tuple[list[SeedRun], dict[int, Path]]:
    """The runs that are there, and the folders of the missing ones; ValueError if there is none at all."""
    missing = {seed: folder for seed, folder in folders.items() if not any(folder.glob(PARTS))}
    if len(missing) == len(folders):
        raise ValueError(
            f"no {PARTS} in {', '.join(map(str, missing.values()))}; check --model, --dataset, --seeds "
            "and --results-dir, or run greedy_unc_single_batch_refine.py first"
        )
    with Grader(workers=workers) as grader:
        found = tqdm([seed for seed in folders if seed not in missing], desc="grading", unit="seed")
        return [load_run(seed, folders[seed], grader, window) for seed in found], missing


def report_folder(root: Path, name: str) -> Path:
    """A new folder {name}_{timestamp} under `root`; a number is added if another run just took it."""
    stamp = datetime.now().strftime("%Y%m%d_%H%M%S")
    for attempt in range(1, 1000):
        folder = root / (f"{name}_{stamp}" + (f"_{attempt}" if attempt > 1 else ""))
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise ValueError(f"{root}: 1,000 reports with the time {stamp}; remove some")


if __name__ == "__main__":
    main()
