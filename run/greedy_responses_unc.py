"""Many sampled responses per problem with their uncertainties, one JSON file per problem.

    python run/greedy_responses_unc.py --model-path TFB_MODEL --dataset-path problems.jsonl --n-particles 512

Results go to OUTPUT_DIR/inference_scaling/{model}_results_vllm_pg/{dataset}/seed{seed}/p{n}/single_greedy_unc/.
An OUTPUT_DIR that already ends in *_results_vllm_pg/DATASET/seedN/pN/NAME is itself the folder of the results.
A killed run continues where it stopped when it is started again.
"""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import click

from bayesian_transformer.command_line import one_line_errors
from bayesian_transformer.files import write_json
from bayesian_transformer.results import RESPONSES, check_same, folder_to_write, read_settings
from bayesian_transformer.stored_records import response_record, scaling_record
from run.utils.config import SCALING_BATCH, SCALING_RESPONSES, SCALING_TEMPERATURE
from run.utils.locks import one_setting
from run.utils.run import Run
from run.utils.run_options import RunOptions, run_options

LONGEST_ID = 255 - len("..json.xxxxxxxx.tmp")  # most file systems take 255 bytes; results get their name last


@click.command(help=__doc__)
@run_options(SCALING_BATCH)
@click.option(
    "--n-particles",
    type=click.IntRange(1, SCALING_RESPONSES),
    default=SCALING_RESPONSES,
    show_default=True,
    help="Responses per problem.",
)
@click.option("--temperature", type=click.FloatRange(0, min_open=True), default=SCALING_TEMPERATURE, show_default=True)
@click.option("--per-token", is_flag=True, help="Also store token ids and the eight per-token arrays.")
def main(n_particles: int, temperature: float, per_token: bool, **options: Any) -> None:
    with one_line_errors():
        run = Run.prepare(RunOptions(**options))
        refuse_unusable_ids(run)
        folder = folder_to_write(run.options.output_dir, run.model.name, run.dataset, run.options.seed, n_particles)
        settings = run.settings(temperature) | {"per_token": per_token}
        # In the folder above, because every *.json next to the results is taken for one. A folder that is given whole
        # may have any name there, so the settings bind those beside it too.
        with one_setting(folder.parent, settings, folder.parent.glob(f"*/{RESPONSES}"), {}), run.engine_output():
            finished = resume(run, folder, settings, n_particles)
            for job, output in run.results(finished, n_particles, temperature):
                try:
                    responses = [response_record(completion, per_token) for completion in output.outputs]
                except ValueError as error:
                    run.fail(job.question_id, error)
                else:
                    record = scaling_record(job.problem, job.prompt, responses, settings)
                    write_json(folder / f"{job.question_id}.json", record)
        run.finish(folder)


def refuse_unusable_ids(run: Run) -> None:
    """Count the problems whose id cannot be a file name as failures."""
    for name in list(run.jobs):
        if len(name.encode()) > LONGEST_ID or "\0" in name:
            run.refuse(name, ValueError(f"the id must make a file name: at most {LONGEST_ID} bytes, no NUL; change it"))


def resume(run: Run, folder: Path, settings: dict[str, Any], n: int) -> set[str]:
    """Ids that have a file with n responses; ValueError if one was made with other settings or is not a result."""
    finished = set()
    for name, job in run.jobs.items():
        path = folder / f"{name}.json"
        if path.exists():
            record = read_settings(path)
            check_same(str(path), record, {"prompt": job.prompt, "answer": job.answer, **settings})
            outputs = record.get("outputs")
            count = len(outputs) if isinstance(outputs, list) else 0
            if count != n:
                raise ValueError(f"{path}: holds {count} responses, not {n}; move it away")
            finished.add(name)
    return finished


if __name__ == "__main__":
    main()
