"""The shell scripts for real: greedy answers, detection and scaling with the embedded model on the CPU."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.bash_scripts import EVAL, PARA, ROOT, SCALING, SCRIPTS, SINGLE, environment


class Experiments:
    """The scripts with the embedded model on the CPU, 2 weight samples and short answers."""

    def __init__(self, data: Path, model: Path) -> None:
        self.folder = data.parent
        self.results = self.folder / "results"
        engine = {"max_model_len": 256, "gpu_memory_utilization": 0.1, "kv_cache_memory_bytes": 1 << 28}
        engine["enforce_eager"] = True
        small = {"NUM_SAMPLES": "2", "MAX_TOKENS": "24", "BATCH_SIZE": "8", "ENGINE_ARGS": json.dumps(engine)}
        # One thread each and no fixed cores: threads of two engines that wait for each other on one core hardly move.
        threads = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1"}
        self.env = environment(data, MODEL=str(model), NUM_GPUS="0", **small, **threads)

    def run(self, script: str, *arguments: str, status: int = 0, **changes: str) -> tuple[str, str]:
        """Standard output and error of a script that must end with `status`."""
        command = ["bash", str(SCRIPTS / script), *arguments]
        env = self.env | changes
        result = subprocess.run(
            command, env=env, cwd=self.folder, capture_output=True, text=True, timeout=400, check=False
        )
        logs = [log.read_text()[-2000:] for log in self.results.glob("logs/*.log")]
        assert result.returncode == status, f"{result.stdout}\n{result.stderr}\n{logs}"
        return result.stdout, result.stderr


@pytest.fixture
def experiments(data_sets: Path, smollm2_tfb_path: Path) -> Experiments:
    return Experiments(data_sets, smollm2_tfb_path)


@pytest.mark.engine
def test_uneven_parts_of_which_one_fails(experiments: Experiments, data_sets: Path, smollm2_tfb_path: Path) -> None:
    """Two processes for 4 and 5 problems, one of which is too long for the model: all others are answered."""
    rows = [json.loads(line) for line in (data_sets / "ten.jsonl").read_text().splitlines() if line]
    rows[4]["problem"] = "What is " + "1 + " * 300 + "1?"
    (data_sets / "long.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    _, errors = experiments.run(SINGLE, "--dataset", "long", "--start", "1", NUM_GPUS="2", status=1)
    assert "problems 1 to 4: FAILED with status 1" in errors
    assert "1 problems have no result: 4" in errors

    name = smollm2_tfb_path.name
    folder = experiments.results / f"{name}_results_vllm_pg/long/seed96/greedy_unc"
    found = {path.name: len(path.read_text().splitlines()) for path in folder.glob("batch_results_*.jsonl")}
    assert found == {"batch_results_1_5.jsonl": 3, "batch_results_5_10.jsonl": 5}
    _, notes = experiments.run(EVAL, "long", str(smollm2_tfb_path), "96")
    assert "seed 96: only 8 of the 10 problems of the data set have a response" in notes


@pytest.mark.engine
def test_the_experiments_from_start_to_end(experiments: Experiments, smollm2_tfb_path: Path) -> None:
    """Greedy answers, detection, sampled responses and scaling, on a few small problems."""
    name = smollm2_tfb_path.name
    experiments.run(PARA, "--datasets", "ten", "--seeds", "96")
    folder = experiments.results / f"{name}_results_vllm_pg/ten/seed96/greedy_unc"
    records = [json.loads(line) for line in (folder / "batch_results_0_10.jsonl").read_text().splitlines()]
    assert {record["unique_id"] for record in records} == {str(i) for i in range(10)}
    table, _ = experiments.run(EVAL, "ten", str(smollm2_tfb_path), "96")
    assert "AUROC" in table
    table, notes = experiments.run(
        SCALING, "--generate", "--dataset", "ten", "--seed", "96", "--n-particles", "16", DATASET_END="4"
    )
    assert "pass_expected" in table
    assert "6 of 10 problems have no usable results: 4, 5, 6, 7, 8, 9" in notes
    stem = experiments.results / f"eval/{name}_ten_seed96_p0.1_all_scaling"
    assert Path(f"{stem}_plot.png").exists()
    with Path(f"{stem}_summary.csv").open(newline="") as file:
        assert {row["n"] for row in csv.DictReader(file)} == {"1", "2", "4", "8", "16"}


@pytest.fixture
def environment_that_is_set_up(tmp_path: Path) -> str:
    """A folder that setup.sh leaves alone and whose activation gives the interpreter of this test.

    Nothing can be installed in it: its own python does nothing, and setup.sh finds the stamp that it would write.
    """
    folder = tmp_path / "venv"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin/activate").write_text(f'PATH="{Path(sys.executable).parent}:$PATH"\n')
    for name in ("python", "nvidia-smi"):
        (folder / "bin" / name).write_text('#!/bin/sh\n[ "$1 $2" = "-c " ]\n')
        (folder / "bin" / name).chmod(0o755)
    found = re.search(r"^fingerprint\(\) \{.*?^\}", (SCRIPTS / "setup.sh").read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None
    script = f"BUILD=cpu\n{found[0]}\nPYTHON= fingerprint"
    stamp = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (folder / "tokur-setup").write_text(stamp)
    return str(folder)


@pytest.mark.engine
def test_the_quickstart_prints_a_table(experiments: Experiments, environment_that_is_set_up: str) -> None:
    """With relative paths, which are those of the folder that it is started in."""
    (experiments.folder / "brief.txt").write_text("Answer with a number.")
    search = f"{environment_that_is_set_up}/bin:{experiments.env['PATH']}"  # no GPU, for setup.sh
    experiments.env |= {"MODEL": "", "DATASET_END": "4", "RESULTS_DIR": "answers", "SYSTEM_PROMPT_FILE": "brief.txt"}
    table, _ = experiments.run("quickstart.sh", VENV=environment_that_is_set_up, PATH=search)
    assert "AUROC" in table
    (page,) = (experiments.folder / "answers/eval").glob("*/report.html")
    assert f"Report: {page}" in table
    (answers,) = (experiments.folder / "answers").glob("*_results_vllm_pg/arithmetic/seed96/greedy_unc/batch*")
    records = [json.loads(line) for line in answers.read_text().splitlines()]
    assert len(records) == 4
    assert all("Answer with a number." in record["formatted_prompt"] for record in records)


@pytest.mark.engine
def test_the_quickstart_evaluates_what_could_be_answered(
    experiments: Experiments, tiny_llama_tfb_path: Path, environment_that_is_set_up: str
) -> None:
    """A data set with a row that cannot be asked, under a name that is also a short one; every seed runs."""
    rows = [{"unique_id": str(i), "problem": f"{i} + 1?", "answer": str(i + 1)} for i in range(3)]
    rows.append({"unique_id": "bad", "problem": "What?"})
    (experiments.folder / "gsm8k.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    search = f"{environment_that_is_set_up}/bin:{experiments.env['PATH']}"
    arguments = ["--model", str(tiny_llama_tfb_path), "--dataset", "gsm8k.jsonl"]
    table, errors = experiments.run(
        "quickstart.sh", *arguments, status=1, VENV=environment_that_is_set_up, PATH=search, SEEDS="96 89"
    )
    assert errors.count("1 problems have no result: bad") == 2
    assert f"Detection: {tiny_llama_tfb_path.name} on gsm8k_test, seed 89, 96" in table
    assert "AUROC" in table
