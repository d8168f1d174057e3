"""The built wheel in an environment without the repository: every command line runs there, from another folder.

torch, vLLM and the like are not downloaded again: the new environment sees those of the one that runs this test, behind
its own packages. So this test shows that the wheel is whole, and not that pip resolves its requirements. Those are
compared with what is installed instead.
"""

import json
import os
import subprocess
import sys
import sysconfig
import time
import venv
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pytest

import bayesian_transformer
from bayesian_transformer import command_line
from bayesian_transformer.doctor.checks import CHECKS, GPU
from bayesian_transformer.quantities import FIELDS
from tests.conftest import MakeTFB
from tests.helpers.requirement_files import ROOT, base, extra
from tests.helpers.stored_generations import DATASET, MODEL
from tests.helpers.stored_generations import ROOT as STORED

COMMANDS = command_line.main.list_commands(None)  # type: ignore[arg-type]
MODULES = ("embedded", "score", "report", "heat_map")


@dataclass(frozen=True)
class Installed:
    """An environment with the wheel, and a folder to start its programs in."""

    environment: Path
    folder: Path

    def run(self, program: str, *arguments: object, seconds: float = 300) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment; AssertionError with what it printed unless it succeeds."""
        kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
        command = [str(self.environment / "bin" / program), *map(str, arguments)]
        done = subprocess.run(
            command, cwd=self.folder, env=kept, capture_output=True, text=True, timeout=seconds, check=False
        )
        assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}"
        return done


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("outside")
    environment = folder / "venv"
    venv.create(environment, with_pip=False, symlinks=True)
    (wheel,) = built.glob("*.whl")
    pip = [sys.executable, "-m", "pip", "--python", str(environment / "bin/python")]
    subprocess.run([*pip, "install", "-q", "--no-deps", "--no-index", str(wheel)], check=True, timeout=300)
    (own,) = environment.glob("lib/python*/site-packages")
    # A path line: that folder comes last, and its own .pth files, such as an editable install's, have no effect.
    (own / "heavy_packages.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return Installed(environment, folder)


def test_the_package_is_that_of_the_wheel(installed: Installed) -> None:
    script = (
        "import bayesian_transformer as package, importlib.metadata as metadata, sys\n"
        "place = metadata.distribution('bayesian_transformer').locate_file('')\n"
        "(plugin,) = metadata.entry_points(group='vllm.general_plugins', name='bayesian_transformer')\n"
        "print(package.__file__, place, plugin.load(), sys.path, sep='\\n')"
    )
    file, place, plugin, path = installed.run("python", "-P", "-c", script).stdout.splitlines()
    assert Path(file).is_relative_to(installed.environment)
    assert Path(place).is_relative_to(installed.environment)
    assert plugin.startswith("<function register at ")
    assert str(ROOT / "bayesian_transformer") not in path


def test_what_is_installed_here_is_what_the_wheel_asks_for() -> None:
    required = {**base(), **extra("grading"), **extra("embedded"), **extra("calibration")}
    for name, requirement in required.items():
        assert requirement.specifier.contains(version(name), prereleases=True), requirement


def test_the_console_script_answers_at_once(installed: Installed) -> None:
    """Under a second; the best of three, as other tests may run at the same time."""
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        text = installed.run("tokur", "--help").stdout
        seconds.append(time.perf_counter() - start)
    assert all(command in text for command in COMMANDS)
    assert min(seconds) < 1
    assert installed.run("tokur", "--version").stdout == f"tokur, version {bayesian_transformer.__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(installed: Installed, command: str) -> None:
    assert f"Usage: tokur {command} " in installed.run("tokur", command, "--help").stdout


@pytest.mark.parametrize("module", MODULES)
def test_every_module_that_is_a_program_has_help(installed: Installed, module: str) -> None:
    assert "Usage: " in installed.run("python", "-m", f"bayesian_transformer.{module}", "--help").stdout


def convert(installed: Installed, base: Path, tfb: Path) -> None:
    output = installed.folder / "TFB-converted"
    installed.run("tokur", "convert", "--model-path", base, "--output-path", output)
    assert json.loads((output / "config.json").read_text())["model_type"] == "tfb_llama"


def score(installed: Installed, base: Path, tfb: Path) -> None:
    source, output = installed.folder / "texts.jsonl", installed.folder / "scores.jsonl"
    source.write_text('{"prompt": "2 + 2 =", "response": " 4."}\n')
    installed.run("tokur", "score", "--model-path", tfb, "--input", source, "--output", output, "--num-samples", 2)
    (record,) = map(json.loads, output.read_text().splitlines())
    assert len(record["total"]) == len(record["token_ids"]) > 0


def heatmap(installed: Installed, base: Path, tfb: Path) -> None:
    output = installed.folder / "heat_map.html"
    source = installed.folder / "scored.jsonl"
    record = {"response": "a b", "token_ids": [1, 2], "tokens": ["a", " b"], **{name: [0.1, 0.2] for name in FIELDS}}
    source.write_text(json.dumps(record) + "\n")
    installed.run("tokur", "heatmap", source, "--output", output)
    assert output.read_text().startswith("<!DOCTYPE html>")


def embedded(installed: Installed, base: Path, tfb: Path) -> None:
    assert (Path(installed.run("tokur", "embedded").stdout.strip()) / "config.json").is_file()


def calibrate(installed: Installed, base: Path, tfb: Path) -> None:
    results = STORED / f"{MODEL}_results_vllm_pg" / DATASET / "seed96" / "greedy_unc"
    output = installed.folder / "calibrator.json"
    installed.run("tokur", "calibrate", results, "--output", output)
    assert json.loads(output.read_text())["method"] == "logistic"


def sigma(installed: Installed, base: Path, tfb: Path) -> None:
    source, output = installed.folder / "answers.jsonl", installed.folder / "sigma.json"
    source.write_text('{"prompt": "2 + 2 =", "response": " 4.", "answer": "4"}\n')
    options = ("--sigma", 0.1, "--num-samples", 2, "--output", output)
    installed.run("tokur", "sigma", "--model-path", tfb, "--texts", source, *options)
    assert len(json.loads(output.read_text())["rows"]) == 1


RUNS: dict[str, Callable[[Installed, Path, Path], None]] = {
    "convert": convert,
    "score": score,
    "heatmap": heatmap,
    "embedded": embedded,
    "calibrate": calibrate,
    "sigma": sigma,
}


@pytest.mark.parametrize("command", [command for command in COMMANDS if command != "doctor"])
def test_every_command_runs(installed: Installed, command: str, tiny_llama_path: Path, make_tfb: MakeTFB) -> None:
    """A command that is new to `tokur` needs a run above."""
    RUNS[command](installed, tiny_llama_path, make_tfb(tiny_llama_path))


def test_the_doctor_finds_all_well(
    installed: Installed, monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, object], None]
) -> None:
    """With a compiler and vLLM, as in the full tests; only what needs a GPU may be left out."""
    for name in ("TOKUR_KERNELS", "TOKUR_CPU_KERNELS", "VLLM_PLUGINS", "CXX"):
        monkeypatch.delenv(name, raising=False)
    start = time.perf_counter()
    document = json.loads(installed.run("tokur", "doctor", "--json", seconds=600).stdout)
    record_property("doctor_seconds", round(time.perf_counter() - start, 1))
    verdicts = {check["check"]: check["verdict"] for check in document["checks"]}
    for check in document["checks"]:
        record_property(f"doctor_seconds_{check['check']}", check["seconds"])
    of_gpu = {check.key for check in CHECKS if check.key == GPU or GPU in check.needs}
    assert list(verdicts) == [check.key for check in CHECKS]
    assert {key: verdict for key, verdict in verdicts.items() if verdict != "ok" and key not in of_gpu} == {}
    assert {verdicts[key] for key in of_gpu} == {verdicts[GPU]} <= {"ok", "n/a"}


def test_the_grader_finds_its_worker(installed: Installed) -> None:
    script = "from bayesian_transformer.grading import grade; print(grade(r'So \\boxed{\\sqrt{8}}.', r'2\\sqrt{2}'))"
    assert installed.run("python", "-c", script).stdout == "right\n"
