"""The shell scripts: their options, the split over GPUs, and what the Python scripts are given."""

import importlib
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import click
import pytest

from run.utils.config import dataset_name
from tests.helpers.bash_scripts import EVAL, NAMES, PARA, ROOT, SCALING, SCRIPTS, SINGLE, environment, run


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
        (SINGLE, ["--dataset", "ten", "--start", "4", "--end", "11"], "is not a range of 10 problems"),
        (PARA, ["--datasets", "ten eleven"], "no data set 'eleven'"),
        (EVAL, ["math500"], "give a data set and a model"),
        (EVAL, ["math500", "llama1b", "96", "x"], "seed must be an integer >= 0, got 'x'"),
        (SCALING, ["--seed", "-1"], "seed must be an integer >= 0, got '-1'"),
    ],
)
def test_bad_input_is_one_line(script: str, arguments: list[str], reason: str, data_sets: Path) -> None:
    result = run(script, *arguments, env=environment(data_sets, PYTHON="/nowhere"))
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
def test_problems_are_split_over_the_gpus(gpus: int, expected: list[tuple[int, int]], data_sets: Path) -> None:
    result = run(SINGLE, "--dry-run", "--dataset", "ten", env=environment(data_sets, NUM_GPUS=str(gpus)))
    assert result.returncode == 0, result.stderr
    found = commands(result.stdout)
    assert parts(found) == expected
    assert [gpu for gpu, _ in found] == ([""] if gpus == 0 else [str(i) for i in range(len(expected))])
    assert not (data_sets.parent / "results").exists()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"CUDA_VISIBLE_DEVICES": "4,6"}, ["4", "6"]),
        ({"CUDA_VISIBLE_DEVICES": "GPU-aa, GPU-bb", "NUM_GPUS": "1"}, ["GPU-aa"]),
        ({"CUDA_VISIBLE_DEVICES": ""}, [None]),
        ({"CUDA_VISIBLE_DEVICES": "0,1", "NUM_GPUS": "0"}, [""]),
        ({"NUM_GPUS": "5", "GPUS_PER_PROCESS": "2"}, ["0,1", "2,3"]),
        ({"NUM_GPUS": "08", "GPUS_PER_PROCESS": "04"}, ["0,1,2,3", "4,5,6,7"]),
    ],
)
def test_which_gpus_are_used(changes: dict[str, str], expected: list[str | None], data_sets: Path) -> None:
    result = run(SINGLE, "--dry-run", "--dataset", "ten", env=environment(data_sets, **changes))
    assert [gpu for gpu, _ in commands(result.stdout)] == expected


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"CUDA_VISIBLE_DEVICES": "4", "NUM_GPUS": "2"}, "NUM_GPUS=2"),
        ({"NUM_GPUS": "1", "GPUS_PER_PROCESS": "2"}, "there are 1 GPUs"),
        ({"NUM_GPUS": "all"}, "NUM_GPUS must be an integer"),
    ],
)
def test_gpus_that_do_not_add_up(changes: dict[str, str], reason: str, data_sets: Path) -> None:
    result = run(SINGLE, "--dry-run", "--dataset", "ten", env=environment(data_sets, **changes))
    assert (result.returncode, result.stdout) == (2, "")
    assert reason in result.stderr


def test_numbers_with_leading_zeros_are_decimal(data_sets: Path) -> None:
    env = environment(data_sets, NUM_GPUS="0", DATASET_START="08", DATASET_END="010")
    assert parts(commands(run(SINGLE, "--dry-run", "--dataset", "ten", env=env).stdout)) == [(8, 10)]


@pytest.mark.parametrize(
    ("script", "arguments", "changes"),
    [
        (SINGLE, ["--dataset", "ten"], {"DRY_RUN": "yes"}),
        (PARA, ["--datasets", "ten"], {"DRY_RUN": "true"}),
        (EVAL, ["ten", "m"], {"DRY_RUN": ""}),
        (SCALING, ["--dataset", "ten"], {"GENERATE": "true"}),
    ],
)
def test_a_flag_is_0_or_1(script: str, arguments: list[str], changes: dict[str, str], data_sets: Path) -> None:
    result = run(script, *arguments, env=environment(data_sets, PYTHON="/nowhere", NUM_GPUS="0", **changes))
    ((name, value),) = changes.items()
    if value:
        assert (result.returncode, result.stdout) == (2, "")
        assert result.stderr == f"{script}: {name} must be 0 or 1, got '{value}'\n"
    else:  # empty is not set
        assert "/nowhere" in result.stderr


@pytest.mark.parametrize("given", ["small", "small_test", "PATH"])
def test_generation_and_evaluation_mean_the_same_data_set(given: str, data_sets: Path) -> None:
    given = str(data_sets / "small_test.jsonl") if given == "PATH" else given
    env = environment(data_sets, NUM_GPUS="0")
    lines = run(SCALING, "--dry-run", "--generate", "--dataset", given, env=env).stdout
    lines += run(EVAL, "--dry-run", given, "m", env=env).stdout
    generated, sampled, detected = (accepted(words).params for _, words in commands(lines))
    assert dataset_name(str(generated["dataset_path"])) == "small_test"
    assert dataset_name(sampled["dataset"]) == dataset_name(detected["dataset"]) == "small_test"


def test_the_python_scripts_accept_every_option(data_sets: Path) -> None:
    """Every variable of the environment set, parsed by the real commands."""
    (data_sets / "system.txt").write_text("Think.")
    values = {
        "BATCH_SIZE": "8",
        "NUM_SAMPLES": "3",
        "BAYES_SIGMA": "0.05",
        "MAX_TOKENS": "64",
        "SYSTEM_PROMPT_FILE": str(data_sets / "system.txt"),
        "ENGINE_ARGS": '{"tensor_parallel_size": 2}',
    }
    further = {"TEMPERATURE": "0.7", "EVAL_DIR": str(data_sets / "eval"), "WORKERS": "1", "BOOTSTRAP": "9"}
    env = environment(data_sets, NUM_GPUS="1", **values, **further)
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
            "SYSTEM_PROMPT_FILE": data_sets / "system.txt",
            "ENGINE_ARGS": {"tensor_parallel_size": 2},
        }
        assert parameters["dataset_path"] == data_sets / "small_test.jsonl"
    assert accepted(first).params["seed"] == 7
    assert accepted(second).params["temperature"] == 0.7
    assert accepted(second).params["n_particles"] == accepted(third).params["n_particles"] == 4
    assert accepted(third).params["p_val"] == 0.1
    assert accepted(third).params["output_dir"] == data_sets / "eval"
    assert accepted(fourth).params["seeds"] == (96, 89, 64)
    assert accepted(fourth).params["bootstrap"] == 9


def test_models_and_further_options(data_sets: Path) -> None:
    (data_sets / "models/My-Model").mkdir(parents=True)
    env = environment(data_sets, NUM_GPUS="0", MODEL_BASE_DIR=str(data_sets / "models"), MODEL="My-Model")
    ((_, words),) = commands(run(SINGLE, "--dry-run", "--dataset", "ten", "--", "--max-tokens", "5", env=env).stdout)
    assert option(words, "--model-path") == str(data_sets / "models/My-Model")
    assert words[-2:] == ["--max-tokens", "5"]
    ((_, words),) = commands(run(SINGLE, "--dry-run", "--dataset", "ten", "--model", "qwen3b", env=env).stdout)
    assert option(words, "--model-path") == "qwen3b"


def test_the_published_commands(data_sets: Path) -> None:
    ((_, words),) = commands(
        run(EVAL, "--dry-run", "math500", "llama1b", "96", "89", "64", env=environment(data_sets)).stdout
    )
    assert accepted(words).params["seeds"] == (96, 89, 64)
    assert accepted(words).params["dataset"] == "math500"  # its file need not be there
    result = run(
        SCALING, "--dry-run", "--model", "llama1b", "--dataset", "math500", "--seed", "96", env=environment(data_sets)
    )
    ((_, words),) = commands(result.stdout)
    assert {"model": "llama1b", "dataset": "math500", "seed": 96, "p_val": 0.1}.items() <= accepted(
        words
    ).params.items()
