"""What stays light: the help of every command and the modules that need no model; and every module stands alone.

torch and transformers take seconds and half a gigabyte. Looked at in processes of their own; scripts and workers are in
test_started_processes.py.
"""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from bayesian_transformer import command_line
from tests.helpers.probed_processes import HEAVY, ROOT, Seen, probed, probed_code

PACKAGE = ROOT / "bayesian_transformer/bayesian_transformer"
TOKUR = [sys.executable, "-P", "-c", "from bayesian_transformer.command_line import main; main(prog_name='tokur')"]
COMMANDS = command_line.main.list_commands(None)  # type: ignore[arg-type]
LIGHT = (
    "architectures",
    "calibration",
    "command_line",
    "extras",
    "files",
    "grading",
    "heat_map",
    "hf_overrides",
    "noise_config",
    "problems",
    "quantities",
    "results",
    "scores",
    "sigma",
    "spans",
    "transformers_hook",
)
NEED_VLLM = ("vllm_models", "vllm_plugin")
MODULE_PROGRAMS = ("embedded", "score", "report", "heat_map")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("probe")


def light(seen: Seen) -> Seen:
    assert seen.imported(*HEAVY) == set()
    return seen


def test_the_help_comes_in_under_a_second() -> None:
    """The best of three, as other tests may run at the same time."""
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([*TOKUR, "--help"], check=True, capture_output=True, timeout=60)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 1


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_the_help_of_a_command_is_light(folder: Path, command: str) -> None:
    seen = light(probed(folder, [*TOKUR, *command.split(), "--help"]))
    assert seen.stdout.startswith(f"Usage: tokur {command}".rstrip())


@pytest.mark.parametrize("name", MODULE_PROGRAMS)
def test_the_help_of_a_module_is_light(folder: Path, name: str) -> None:
    seen = light(probed(folder, [sys.executable, "-m", f"bayesian_transformer.{name}", "--help"]))
    assert "Usage: " in seen.stdout


def test_light_modules_are_light(folder: Path) -> None:
    """All of them in one process."""
    code = "".join(f"import bayesian_transformer.{name}\n" for name in LIGHT)
    seen = light(probed_code(folder, f"import bayesian_transformer\n{code}"))
    assert {f"bayesian_transformer.{name}" for name in LIGHT} <= seen.modules


def modules() -> list[str]:
    """Every module of the package by its full name, without those that run a program when they are imported."""
    names = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        if parts[-1] != "__main__":
            names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return names


def first_failures(names: list[str], before: str = "") -> str:
    """What goes wrong when each module is the first of the package that a process imports.

    One process imports what the package builds on, and forks for each module: Python and torch start only once.
    """
    code = f"""
import os, sys, traceback
{before}
for name in {names!r}:
    child = os.fork()
    if not child:
        try:
            assert not any(key.partition(".")[0] == "bayesian_transformer" for key in sys.modules)
            __import__(name)
        except BaseException:
            print(name, traceback.format_exc(), flush=True)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        print(name, "ended its process", flush=True)
"""
    run = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=500, check=True)
    return run.stdout


def test_a_module_that_cannot_be_imported_is_noticed() -> None:
    assert "ModuleNotFoundError" in first_failures(["bayesian_transformer.no_such_module"])
    blocked = first_failures(
        ["bayesian_transformer.vllm_plugin.worker"], before="import sys; sys.modules['vllm'] = None"
    )
    assert "No module named 'vllm" in blocked


def test_every_module_can_be_the_first_and_only_one() -> None:
    vllm = [name for name in modules() if name.split(".")[1:2] and name.split(".")[1] in NEED_VLLM]
    others = [name for name in modules() if name not in vllm]
    assert len(others) > 30
    # What transformers imports of others, but not transformers, which must be able to come after us.
    blocked = "import torch._dynamo, huggingface_hub, accelerate, sklearn.metrics\nsys.modules['vllm'] = None"
    assert first_failures(others, before=blocked) == ""


def test_every_module_of_the_plugin_can_be_the_first_one() -> None:
    pytest.importorskip("vllm")
    pytest.importorskip("triton")
    runner = "vllm.v1.worker.gpu_model_runner"
    names = [name for name in modules() if name.split(".")[1:2] and name.split(".")[1] in NEED_VLLM]
    assert len(names) > 15
    assert first_failures(names, before=f"import transformers, vllm.model_executor.models.qwen2, {runner}") == ""
