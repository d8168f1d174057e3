"""Greedy answers with per-token uncertainties, one JSON line per problem.

    python run/greedy_unc_single_batch_refine.py --model-path TFB_MODEL --dataset-path problems.jsonl

Results go to OUTPUT_DIR/{model}_results_vllm_pg/{dataset}/seed{seed}/greedy_unc/batch_results_{start}_{end}.jsonl.
An OUTPUT_DIR that already ends in *_results_vllm_pg/DATASET/seedN/NAME is itself the folder of the batch_results.
A killed run continues where it stopped when it is started again.
"""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import click

from bayesian_transformer.command_line import one_line_errors
from bayesian_transformer.files import append_jsonl, drop_torn_line
from bayesian_transformer.problems import question_id
from bayesian_transformer.results import PARTS, check_same, folder_to_write, greedy_part, greedy_records
from bayesian_transformer.stored_records import greedy_record
from run.utils.config import GREEDY_BATCH
from run.utils.locks import one_setting, sole_writer
from run.utils.run import Run
from run.utils.run_options import RunOptions, run_options

TEMPERATURE = 0.0


@click.command(help=__doc__)
@run_options(GREEDY_BATCH)
def main(**options: Any) -> None:
    with one_line_errors():
        run = Run.prepare(RunOptions(**options))
        folder = folder_to_write(run.options.output_dir, run.model.name, run.dataset, run.options.seed)
        path, settings = greedy_part(folder, run.start, run.end), run.settings(TEMPERATURE)
        with sole_writer(path):
            drop_torn_line(path)
            notes = {"dataset_problems": run.dataset_problems}
            with one_setting(folder, settings, folder.glob(PARTS), notes), run.engine_output():
                finished = resume(run, path)
                generate(run, path, finished)
        run.finish(folder)


def resume(run: Run, path: Path) -> set[str]:
    """Ids of the problems that the folder of `path` holds, however they were cut into parts when they were answered.

    ValueError if one of them answers another prompt or was made with other settings.
    """
    settings = run.settings(TEMPERATURE)
    finished = set()
    for part in sorted(path.parent.glob(PARTS)):
        for record in greedy_records(part):
            name = question_id(record)
            job = run.jobs.get(name)
            if job is not None:
                wanted = {key: settings[key] for key in settings.keys() & record.keys()}
                check_same(f"{part}: {name}", record, {"formatted_prompt": job.prompt, "answer": job.answer, **wanted})
                finished.add(name)
            elif part == path:
                raise ValueError(f"{part}: holds {name}, which is not among the problems asked; move the file away")
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
