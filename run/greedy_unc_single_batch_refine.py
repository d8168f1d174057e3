"""Greedy answers with per-token uncertainties, one JSON line per problem.

    python run/greedy_unc_single_batch_refine.py --model-path TFB_MODEL --dataset-path problems.jsonl

Results go to OUTPUT_DIR/{model}_results_vllm_pg/{dataset}/seed{seed}/greedy_unc/batch_results_{start}_{end}.jsonl.
A killed run continues where it stopped when it is started again.
"""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import click

from bayesian_transformer.files import append_jsonl, drop_torn_line, write_json
from run.utils.config import GREEDY_BATCH
from run.utils.options import Run, RunOptions, one_line_errors, run_options
from run.utils.results import (
    check_same,
    greedy_path,
    greedy_record,
    question_id,
    read_greedy_file,
    read_settings,
    sole_writer,
)

TEMPERATURE = 0.0


@click.command(help=__doc__)
@run_options(GREEDY_BATCH)
def main(**options: Any) -> None:
    with one_line_errors():
        run = Run.prepare(RunOptions(**options))
        path = greedy_path(run.options.output_dir, run.model.name, run.dataset, run.options.seed, run.start, run.end)
        with sole_writer(path):
            finished = resume(run, path)
            generate(run, path, finished)
        run.finish(path)


def resume(run: Run, path: Path) -> set[str]:
    """Ids that `path` already holds; ValueError if it or another part of its folder was made with other settings."""
    settings = run.settings(TEMPERATURE)
    settings_path = path.with_name("settings.json")
    drop_torn_line(path)
    if settings_path.exists() and any(part.stat().st_size for part in path.parent.glob("batch_results_*.jsonl")):
        check_same(str(settings_path), read_settings(settings_path), settings)
    write_json(settings_path, settings | {"dataset_problems": run.dataset_problems})
    finished = set()
    for record in read_greedy_file(path) if path.exists() else []:
        name = question_id(record)
        job = run.jobs.get(name)
        if job is None:
            raise ValueError(f"{path}: holds {name}, which is not among the problems asked; move the file away")
        wanted = {key: settings[key] for key in settings.keys() & record.keys()}
        check_same(f"{path}: {name}", record, {"formatted_prompt": job.prompt, "answer": job.answer, **wanted})
        finished.add(name)
    return finished


def generate(run: Run, path: Path, finished: set[str]) -> None:
    """Append the result of each problem that is not finished, as soon as vLLM has it."""
    settings = run.settings(TEMPERATURE)
    for job, output in run.results(finished, n=1, temperature=TEMPERATURE):
        try:
            record = greedy_record(job.problem, job.prompt, output.outputs[0], settings)
        except ValueError as error:
            run.fail(job.question_id, error)
        else:
            append_jsonl(path, record)


if __name__ == "__main__":
    main()
