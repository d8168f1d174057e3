"""The commands that the published README types, word by word, with the embedded model under the published names.

They are typed into a shell in a folder that looks like a clone. One of them starts a real engine; for the others only
the engine is replaced, by FakeEngine, and all of the scripts around it runs.
"""

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bayesian_transformer.results import SETTINGS_FILE, read_greedy
from tests.helpers.bash_scripts import OWN_VARIABLES, ROOT
from tests.helpers.run_scripts import write_rows

LONG, BASE = "TFB-Llama3.2-1B-Instruct", "Llama-3.2-1B-Instruct"
SEEDS = (96, 89, 64)
# The data set's path and the model are what the published commands leave to whoever types them.
CONVERSION = f"""python convert_to_tfb.py --model-path $MODEL_BASE_DIR/{BASE} --output-path $MODEL_BASE_DIR/{LONG} \
    --architecture llama --rank 8 --bayes-noise right"""
GREEDY = """python run/greedy_unc_single_batch_refine.py --dataset-path ./datasets/math500.jsonl --model-path llama1b \
    --seed {seed} --max-tokens 24 --num-samples 2 \
    --output-dir ./results/llama1b_results_vllm_pg/math500/seed{seed}/greedy_unc"""
DETECTION = """python eval/eval_detect_multi_seed.py \
    --dataset "math500" --model "llama1b" --results_subdir "greedy_unc" --seeds 96 89 64"""
RESPONSES = """python run/greedy_responses_unc.py --dataset-path ./datasets/math500.jsonl --model-path llama1b \
    --seed 96 --n-particles 16 \
    --output-dir ./results/inference_scaling/llama1b_results_vllm_pg/math500/seed96/p16/single_greedy_unc"""
SCALING = """python eval/eval_scaling_test_multi_gpu.py --dataset "math500" --model "llama1b" \
    --seed 96 --p_val 0.1 --n-particles 16"""
REAL_ENGINE = {"enforce_eager": True, "max_model_len": 256, "kv_cache_memory_bytes": 1 << 28}

# `python` for commands whose engine is replaced: all else, arguments and files included, is as with python itself.
PYTHON = f"""#!{sys.executable}
import runpy, sys
sys.argv = sys.argv[1:]
if sys.argv[0].rpartition("run/")[1]:
    sys.path.insert(0, {str(ROOT)!r})
    import run.utils.run
    from tests.helpers.run_scripts import FakeEngine
    run.utils.run.start_engine = lambda *args: FakeEngine()
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class Clone:
    """A folder in which the published commands can be typed; results go to results/ in it."""

    def __init__(self, folder: Path, models: Path) -> None:
        self.folder = folder
        (folder / "datasets").mkdir(parents=True)
        for name in ("run", "eval", "bash_scripts", "convert_to_tfb.py"):
            (folder / name).symlink_to(ROOT / name)
        rows = [{"unique_id": f"test/sum/{i}", "problem": f"What is {i} + 0?", "answer": str(i)} for i in range(5)]
        write_rows(folder / "datasets/math500.jsonl", rows)
        (folder / "bin").mkdir()
        (folder / "bin/python").write_text(PYTHON)
        (folder / "bin/python").chmod(0o755)
        kept = {key: value for key, value in os.environ.items() if key not in OWN_VARIABLES}
        quiet = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
        self.env = kept | quiet | {"MODEL_BASE_DIR": str(models), "NUM_GPUS": "0"}

    def type(self, line: str, real: bool = False, **variables: str) -> str:
        """Standard output of a command line, which must succeed; with `real`, python is python and vLLM vLLM."""
        programs = Path(sys.executable).parent if real else self.folder / "bin"
        variables |= {"PATH": f"{programs}:{self.env['PATH']}", "PYTHON": str(programs / "python")}
        result = subprocess.run(
            ["bash", "-c", line], env=self.env | variables, cwd=self.folder, capture_output=True, text=True, timeout=400
        )
        logs = [log.read_text()[-2000:] for log in self.folder.glob("results/logs/*.log")]
        assert result.returncode == 0, f"{line}\n{result.stdout}\n{result.stderr[-4000:]}\n{logs}"
        return result.stdout

    def folders(self, holding: str) -> set[str]:
        """Folders below results/ that hold files of a pattern."""
        found = (path.parent for path in (self.folder / "results").rglob(holding))
        return {str(path.relative_to(self.folder / "results")) for path in found}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, smollm2_path: Path) -> Iterator[Path]:
    """MODEL_BASE_DIR with what the published conversion makes of the embedded model."""
    folder = tmp_path_factory.mktemp("models")
    (folder / BASE).symlink_to(smollm2_path)
    Clone(tmp_path_factory.mktemp("conversion") / "clone", folder).type(CONVERSION, real=True)
    yield folder
    shutil.rmtree(folder)  # a quarter of a gigabyte, which pytest would keep


@pytest.fixture
def clone(tmp_path: Path, models: Path) -> Clone:
    pytest.importorskip("vllm")
    return Clone(tmp_path / "clone", models)


def test_the_published_conversion(models: Path) -> None:
    config = json.loads((models / LONG / "config.json").read_text())
    assert (config["model_type"], config["architectures"]) == ("tfb_llama", ["VllmTFBLLamaForCausalLM"])
    assert (config["basis_idx"], config["bayes_noise"]) == (list(range(8)), "right")


@pytest.mark.engine
def test_the_published_python_commands(clone: Clone) -> None:
    """Greedy answers of seed 96 come from a real engine, those of the other seeds and the samples do not."""
    clone.type(f"{GREEDY.format(seed=96)} --engine-args '{json.dumps(REAL_ENGINE)}'", real=True)
    for seed in SEEDS[1:]:
        # Of the engine arguments only the model's length counts for the numbers, and seeds must agree in it.
        clone.type(f"{GREEDY.format(seed=seed)} --engine-args '{json.dumps({'max_model_len': 256})}'")
    folders = {f"llama1b_results_vllm_pg/math500/seed{seed}/greedy_unc" for seed in SEEDS}
    assert clone.folders("batch_results_0_5.jsonl") == clone.folders(SETTINGS_FILE) == folders
    records = read_greedy(clone.folder / "results/llama1b_results_vllm_pg/math500/seed96/greedy_unc")
    assert len(records) == 5
    assert {record["model"] for record in records} == {LONG}
    assert all(len(record["epistemic"]) > 1 and max(record["epistemic"]) > 1e-4 for record in records)

    output = clone.type(DETECTION, real=True)
    assert f"Detection: {LONG} on math500, seed 64, 89, 96" in output
    (report,) = (clone.folder / "results/eval").iterdir()
    assert report.name.startswith(f"{LONG}_math500_")
    with (report / "detailed_results.csv").open(newline="") as file:
        assert {row["seed"]: row["total_samples"] for row in csv.DictReader(file)} == {"64": "5", "89": "5", "96": "5"}

    clone.type(RESPONSES)
    folder = clone.folder / "results/inference_scaling/llama1b_results_vllm_pg/math500/seed96/p16"
    assert sorted(path.name for path in (folder / "single_greedy_unc").iterdir()) == [
        f"test_sum_{i}.json" for i in range(5)
    ]
    assert (folder / SETTINGS_FILE).exists()
    assert f"Scaling: {LONG} on math500, 5 problems" in clone.type(SCALING, real=True)
    assert (clone.folder / f"results/eval/{LONG}_math500_seed96_p0.1_all_scaling_summary.csv").exists()


def test_the_published_shell_scripts(clone: Clone) -> None:
    """Each as it stands; seed 96 of the second is what the first has answered."""
    clone.type("bash bash_scripts/unc_greedy_single_para_batch.sh")
    part = clone.folder / f"results/{LONG}_results_vllm_pg/math500/seed96/greedy_unc/batch_results_0_5.jsonl"
    first = part.read_text()
    clone.type("bash bash_scripts/unc_greedy_para.sh", DATASETS="math500")
    assert part.read_text() == first
    assert clone.folders("batch_results_0_5.jsonl") == {
        f"{LONG}_results_vllm_pg/math500/seed{seed}/greedy_unc" for seed in SEEDS
    }
    output = clone.type("bash bash_scripts/eval_detect.sh math500 llama1b 96 89 64")
    assert f"Detection: {LONG} on math500, seed 64, 89, 96" in output
    output = clone.type(
        "bash bash_scripts/run_scaling_multi_gpu.sh --model llama1b --dataset math500 --seed 96 --generate",
        N_PARTICLES="16",
    )
    assert f"Scaling: {LONG} on math500, 5 problems" in output
    assert len(clone.folders("test_sum_*.json")) == 1
