"""The shell scripts: their options, the split over GPUs, failing and interrupted processes, and one run for real."""

import csv
import importlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ROOT / "bash_scripts"
SINGLE, PARA, EVAL, SCALING = (
    "unc_greedy_single_para_batch.sh",
    "unc_greedy_para.sh",
    "eval_detect.sh",
    "run_scaling_multi_gpu.sh",
)
NAMES = (SINGLE, PARA, EVAL, SCALING)
OWN_VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "NUM_GPUS",
    "MODEL",
    "DATASET",
    "DATA_DIR",
    "SEEDS",
    "PYTHON",
    "MODEL_BASE_DIR",
)

# Stands in for the interpreter where only the handling of processes is tested: one JSON line per call, and the part
# that starts at FAIL_AT fails.
FAKE_PYTHON = f"""#!{sys.executable}
import json, os, sys
arguments = sys.argv[1:]
start = arguments[arguments.index("--dataset-start") + 1]
with open(os.environ["CALLS"], "a") as file:
    file.write(json.dumps({{"gpu": os.environ.get("CUDA_VISIBLE_DEVICES"), "arguments": arguments}}) + "\\n")
if start == os.environ.get("FAIL_AT"):
    sys.exit("out of memory")
"""
SLEEPER = """#!/usr/bin/env bash
sleep 300 &
echo $! $$ >> "$CALLS"
trap '' INT
wait
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with the data sets ten (10 problems, a blank line, no newline at the end) and small_test (3)."""
    folder = tmp_path / "data"
    folder.mkdir()
    rows = [json.dumps({"unique_id": str(i), "problem": f"What is {i} + 1?", "answer": str(i + 1)}) for i in range(10)]
    (folder / "ten.jsonl").write_text("\n".join([*rows[:5], "", *rows[5:]]))
    (folder / "small_test.jsonl").write_text("\n".join(rows[:3]) + "\n")
    return folder


def environment(data: Path, **changes: str) -> dict[str, str]:
    inherited = {key: value for key, value in os.environ.items() if key not in OWN_VARIABLES}
    return {**inherited, "DATA_DIR": str(data), "RESULTS_DIR": str(data.parent / "results"), **changes}


def run(script: str, *arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(SCRIPTS / script), *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)


def commands(output: str) -> list[tuple[str | None, list[str]]]:
    """The GPUs and arguments of each command that a dry run printed."""
    found = []
    for line in output.splitlines():
        words = shlex.split(line.partition(" >> ")[0])
        gpus = None
        if words[0] == "env":
            gpus = words[1].removeprefix("CUDA_VISIBLE_DEVICES=")
            words = words[2:]
        found.append((gpus, words[1:]))
    return found


def option(arguments: list[str], name: str) -> str:
    return arguments[arguments.index(name) + 1]


def parts(found: list[tuple[str | None, list[str]]]) -> list[tuple[int, int]]:
    return [(int(option(words, "--dataset-start")), int(option(words, "--dataset-end"))) for _, words in found]


def accepted(arguments: list[str]) -> click.Context:
    """Parse the arguments with the real command of the Python script; a click error if it refuses them."""
    path = Path(arguments[0]).relative_to(ROOT).with_suffix("")
    command: click.Command = importlib.import_module(".".join(path.parts)).main
    return command.make_context(arguments[0], arguments[1:])


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
@pytest.mark.parametrize("path", sorted(SCRIPTS.glob("*.sh")), ids=lambda path: path.name)
def test_shellcheck_finds_nothing(path: Path) -> None:
    result = subprocess.run(["shellcheck", "-x", str(path)], capture_output=True, text=True)
    assert result.stdout == ""
    assert result.returncode == 0


@pytest.mark.parametrize("script", NAMES)
def test_help_and_strictness(script: str) -> None:
    result = run(script, "--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith(f"Usage: {script}")
    assert "set -euo pipefail" in (SCRIPTS / script).read_text()
    assert os.access(SCRIPTS / script, os.X_OK)


@pytest.mark.parametrize(
    ("script", "arguments", "reason"),
    [
        *((script, ["--nonsense"], "unknown option '--nonsense'") for script in NAMES),
        (SINGLE, ["--dataset"], "--dataset needs a value"),
        (SINGLE, ["--dataset", "ten", "--seed", "x"], "seed must be an integer >= 0, got 'x'"),
        (SINGLE, ["--dataset", "eleven"], "no data set 'eleven'"),
        (SINGLE, ["--dataset", "ten", "--start", "4", "--end", "11"], "is no part of 10 problems"),
        (PARA, ["--datasets", "ten eleven"], "no data set 'eleven'"),
        (EVAL, ["math500"], "give a data set and a model"),
        (EVAL, ["math500", "llama1b", "96", "x"], "seed must be an integer >= 0, got 'x'"),
        (SCALING, ["--seed", "-1"], "seed must be an integer >= 0, got '-1'"),
    ],
)
def test_bad_input_is_one_line(script: str, arguments: list[str], reason: str, data: Path) -> None:
    result = run(script, *arguments, env=environment(data, PYTHON="/nowhere"))
    assert result.returncode == 2
    assert result.stdout == ""
    assert reason in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("gpus", "expected"),
    [
        (0, [(0, 10)]),
        (1, [(0, 10)]),
        (2, [(0, 5), (5, 10)]),
        (3, [(0, 3), (3, 6), (6, 10)]),
        (4, [(0, 2), (2, 5), (5, 7), (7, 10)]),
        (16, [(i, i + 1) for i in range(10)]),
    ],
)
def test_problems_are_split_over_the_gpus(gpus: int, expected: list[tuple[int, int]], data: Path) -> None:
    result = run(SINGLE, "--dry-run", "--dataset", "ten", env=environment(data, NUM_GPUS=str(gpus)))
    assert result.returncode == 0, result.stderr
    found = commands(result.stdout)
    assert parts(found) == expected
    assert [gpu for gpu, _ in found] == ([None] if gpus == 0 else [str(i) for i in range(len(expected))])
    assert not (data.parent / "results").exists()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"CUDA_VISIBLE_DEVICES": "4,6"}, ["4", "6"]),
        ({"CUDA_VISIBLE_DEVICES": "GPU-aa, GPU-bb", "NUM_GPUS": "1"}, ["GPU-aa"]),
        ({"CUDA_VISIBLE_DEVICES": ""}, [None]),
        ({"NUM_GPUS": "5", "GPUS_PER_PROCESS": "2"}, ["0,1", "2,3"]),
    ],
)
def test_which_gpus_are_used(changes: dict[str, str], expected: list[str | None], data: Path) -> None:
    result = run(SINGLE, "--dry-run", "--dataset", "ten", env=environment(data, **changes))
    assert [gpu for gpu, _ in commands(result.stdout)] == expected


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"CUDA_VISIBLE_DEVICES": "4", "NUM_GPUS": "2"}, "NUM_GPUS=2"),
        ({"NUM_GPUS": "1", "GPUS_PER_PROCESS": "2"}, "there are 1 GPUs"),
        ({"NUM_GPUS": "all"}, "NUM_GPUS must be an integer"),
    ],
)
def test_gpus_that_do_not_add_up(changes: dict[str, str], reason: str, data: Path) -> None:
    result = run(SINGLE, "--dry-run", "--dataset", "ten", env=environment(data, **changes))
    assert (result.returncode, result.stdout) == (2, "")
    assert reason in result.stderr


def test_the_python_scripts_accept_every_option(data: Path) -> None:
    """Every variable of the environment set, parsed by the real commands."""
    (data / "system.txt").write_text("Think.")
    values = {
        "BATCH_SIZE": "8",
        "NUM_SAMPLES": "3",
        "BAYES_SIGMA": "0.05",
        "MAX_TOKENS": "64",
        "SYSTEM_PROMPT_FILE": str(data / "system.txt"),
        "ENGINE_ARGS": '{"tensor_parallel_size": 2}',
    }
    further = {"TEMPERATURE": "0.7", "EVAL_DIR": str(data / "eval"), "WORKERS": "1", "BOOTSTRAP": "9"}
    env = environment(data, NUM_GPUS="1", **values, **further)
    greedy = run(SINGLE, "--dry-run", "--dataset", "small", "--model", "m/n", "--seed", "7", env=env)
    sampled = run(SCALING, "--dry-run", "--generate", "--dataset", "small", "--n-particles", "4", env=env)
    evaluated = run(EVAL, "--dry-run", "small", "m", env=env)

    ((_, first),) = commands(greedy.stdout)
    (_, second), (_, third) = commands(sampled.stdout)
    ((_, fourth),) = commands(evaluated.stdout)
    for arguments in (first, second):
        parameters = accepted(arguments).params
        assert {name: parameters[name.lower()] for name in values} == {
            "BATCH_SIZE": 8,
            "NUM_SAMPLES": 3,
            "BAYES_SIGMA": 0.05,
            "MAX_TOKENS": 64,
            "SYSTEM_PROMPT_FILE": data / "system.txt",
            "ENGINE_ARGS": {"tensor_parallel_size": 2},
        }
        assert parameters["dataset_path"] == data / "small_test.jsonl"
    assert accepted(first).params["seed"] == 7
    assert accepted(second).params["temperature"] == 0.7
    assert accepted(second).params["n_particles"] == accepted(third).params["n_particles"] == 4
    assert accepted(third).params["p_val"] == 0.1
    assert accepted(third).params["output_dir"] == data / "eval"
    assert accepted(fourth).params["seeds"] == (96, 89, 64)
    assert accepted(fourth).params["bootstrap"] == 9


def test_models_and_further_options(data: Path) -> None:
    (data / "models/My-Model").mkdir(parents=True)
    env = environment(data, NUM_GPUS="0", MODEL_BASE_DIR=str(data / "models"), MODEL="My-Model")
    ((_, words),) = commands(run(SINGLE, "--dry-run", "--dataset", "ten", "--", "--max-tokens", "5", env=env).stdout)
    assert option(words, "--model-path") == str(data / "models/My-Model")
    assert words[-2:] == ["--max-tokens", "5"]
    ((_, words),) = commands(run(SINGLE, "--dry-run", "--dataset", "ten", "--model", "qwen3b", env=env).stdout)
    assert option(words, "--model-path") == "qwen3b"


def test_the_published_commands(data: Path) -> None:
    ((_, words),) = commands(
        run(EVAL, "--dry-run", "math500", "llama1b", "96", "89", "64", env=environment(data)).stdout
    )
    assert accepted(words).params["seeds"] == (96, 89, 64)
    result = run(
        SCALING, "--dry-run", "--model", "llama1b", "--dataset", "math500", "--seed", "96", env=environment(data)
    )
    ((_, words),) = commands(result.stdout)
    assert {"model": "llama1b", "dataset": "math500", "seed": 96, "p_val": 0.1}.items() <= accepted(
        words
    ).params.items()


def fake(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def calls(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_failing_process_is_reported_and_stops_no_other(data: Path, tmp_path: Path) -> None:
    env = environment(data, NUM_GPUS="3", PYTHON=fake(tmp_path / "python", FAKE_PYTHON), CALLS=str(tmp_path / "calls"))
    result = run(SINGLE, "--dataset", "ten", "--model", "m", env={**env, "FAIL_AT": "3"})
    assert result.returncode == 1
    assert sorted(str(call["gpu"]) for call in calls(tmp_path / "calls")) == ["0", "1", "2"]
    assert "problems 3 to 5: FAILED with status 1" in result.stderr
    assert "out of memory" in result.stderr
    assert result.stdout.count(": done") == 2
    logs = sorted((tmp_path / "results/logs").iterdir())
    assert [log.read_text() for log in logs] == ["", "out of memory\n", ""]
    assert str(logs[1]) in result.stderr

    (tmp_path / "calls").unlink()
    assert run(SINGLE, "--dataset", "ten", "--model", "m", env=env).returncode == 0


def test_several_data_sets_and_seeds(data: Path, tmp_path: Path) -> None:
    env = environment(data, NUM_GPUS="2", PYTHON=fake(tmp_path / "python", FAKE_PYTHON), CALLS=str(tmp_path / "calls"))
    result = run(PARA, "--datasets", "ten small", "--seeds", "5 6", env={**env, "FAIL_AT": "1"})  # half of small's 3
    assert result.returncode == 1
    assert result.stderr.splitlines()[-2:] == [
        f"{PARA}: incomplete: small seed 5",
        f"{PARA}: incomplete: small seed 6",
    ]
    assert len(calls(tmp_path / "calls")) == 8
    assert run(PARA, "--datasets", "ten", "--seeds", "5", env={**env, "FAIL_AT": "1"}).returncode == 0


def test_scaling_is_not_evaluated_after_a_failed_generation(data: Path, tmp_path: Path) -> None:
    env = environment(data, NUM_GPUS="1", PYTHON=fake(tmp_path / "python", FAKE_PYTHON), CALLS=str(tmp_path / "calls"))
    result = run(SCALING, "--generate", "--dataset", "ten", env={**env, "FAIL_AT": "0"})
    assert result.returncode == 1
    assert len(calls(tmp_path / "calls")) == 1


def alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "State:\tZ" not in status.read_text()


@pytest.mark.parametrize("script", [SINGLE, PARA])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_ends_the_processes_and_their_children(
    script: str, number: signal.Signals, status: int, data: Path, tmp_path: Path
) -> None:
    noted = tmp_path / "calls"
    env = environment(data, NUM_GPUS="2", PYTHON=fake(tmp_path / "python", SLEEPER), CALLS=str(noted))
    arguments = ["--dataset", "ten"] if script == SINGLE else ["--datasets", "ten", "--seeds", "1 2"]
    process = subprocess.Popen(
        ["bash", str(SCRIPTS / script), *arguments], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and not (noted.exists() and noted.read_text().count("\n") == 2):
        time.sleep(0.05)
    started = [int(word) for word in noted.read_text().split()]
    assert len(started) == 4
    assert all(alive(pid) for pid in started)
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == status
    assert not any(alive(pid) for pid in started)


class Experiments:
    """The scripts with the embedded model on the CPU, 2 weight samples and short answers."""

    def __init__(self, data: Path, model: Path) -> None:
        self.results = data.parent / "results"
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
        result = subprocess.run(command, env=env, capture_output=True, text=True, timeout=400, check=False)
        logs = [log.read_text()[-2000:] for log in self.results.glob("logs/*.log")]
        assert result.returncode == status, f"{result.stdout}\n{result.stderr}\n{logs}"
        return result.stdout, result.stderr


@pytest.fixture
def experiments(data: Path, smollm2_tfb_path: Path) -> Experiments:
    return Experiments(data, smollm2_tfb_path)


@pytest.mark.engine
def test_uneven_parts_of_which_one_fails(experiments: Experiments, data: Path, smollm2_tfb_path: Path) -> None:
    """Two processes for 4 and 5 problems, one of which is too long for the model: all others are answered."""
    rows = [json.loads(line) for line in (data / "ten.jsonl").read_text().splitlines() if line]
    rows[4]["problem"] = "What is " + "1 + " * 300 + "1?"
    (data / "long.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
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
