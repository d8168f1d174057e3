"""quickstart.sh with a stand-in for Python: what it prints where, what it says of failures, and interrupts."""

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.bash_scripts import SCRIPTS, environment, prepared_venv

# Does what the quickstart sees of the real programs, with noise as theirs; `FAIL` names the one that fails.
FAKE = f"""#!{sys.executable}
import json, os, signal, subprocess, sys, time
from pathlib import Path
words = sys.argv[1:]
if words[0] == "-c":
    sys.exit(subprocess.call([sys.executable, *words]))
program = words[1] if words[0] == "-m" else words[0]
name = Path(program.replace("bayesian_transformer.", "")).stem
option = lambda key: words[words.index(key) + 1]
with open(os.environ["CALLS"], "a") as file:
    file.write(json.dumps({{"name": name, "pid": os.getpid(), "words": words}}) + "\\n")
print("noise of " + name, file=sys.stderr)
if name == "greedy_unc_single_batch_refine":
    if "--log-file" in words:
        with open(option("--log-file"), "a") as log:
            if name == os.environ.get("FAIL"):
                error = "ValueError: no memory\\n"
                log.write("(EngineCore pid=7) ERROR 11-25 15:00:00 [core.py:9] " + error + error)
    if os.environ.get("SLEEP"):
        time.sleep(300)
if name == os.environ.get("FAIL"):
    print("Error: it cannot be", file=sys.stderr)
    sys.exit(int(os.environ.get("STATUS", "1")))
if name == "embedded":
    print("/models/TFB-fake")
elif name == "greedy_unc_single_batch_refine":
    folder = Path(option("--output-dir")) / "answers"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "batch_results_0_2.jsonl").write_text("")
    print("2 problems have results in", folder, flush=True)
    if os.environ.get("UNANSWERED"):
        sys.exit("Error: 1 problems have no result: x")
elif name == "eval_detect_multi_seed":
    print("the table" if "--brief" in words else "the whole table")
    print("Report:", Path(option("--results-dir")) / "eval/report.html")
elif name == "heat_map":
    Path(option("--output")).parent.mkdir()
    Path(option("--output")).write_text("")
"""


class Quickstart:
    """The script with the stand-in, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.calls = folder, folder / "calls"
        self.log = folder / "results/logs/quickstart.log"
        venv = prepared_venv(folder / "venv", FAKE)
        self.env = environment(folder / "data", VENV=venv, CALLS=str(self.calls), TOKUR_CACHE=str(folder / "cache"))
        self.env["PATH"] = f"{venv}/bin:{self.env['PATH']}"  # no GPU
        self.command = ["bash", str(SCRIPTS / "quickstart.sh")]

    def run(self, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
        env = self.env | changes
        return subprocess.run([*self.command, *arguments], env=env, capture_output=True, text=True, timeout=60)

    def words(self, name: str) -> list[list[str]]:
        """The arguments of each call of a program."""
        called = [json.loads(line) for line in self.calls.read_text().splitlines()]
        return [call["words"] for call in called if call["name"] == name]


@pytest.fixture
def quickstart(tmp_path: Path) -> Quickstart:
    return Quickstart(tmp_path)


def option(words: list[str], name: str) -> str:
    return words[words.index(name) + 1]


def test_what_is_printed_and_what_is_logged(quickstart: Quickstart) -> None:
    result = quickstart.run(SEEDS="96 89")
    assert (result.returncode, result.stderr.count("noise")) == (0, 2)  # what the run script says is for the user
    assert result.stdout.splitlines() == [
        "quickstart: setting up venv",
        "quickstart: preparing model and problems",
        "quickstart: answering arithmetic with TFB-fake, seed 96",
        "quickstart: answering arithmetic with TFB-fake, seed 89",
        "quickstart: grading and evaluating",
        "quickstart: drawing the heat map",
        "the table",
        f"Report: {quickstart.folder}/results/eval/report.html",
        f"Heat map: {quickstart.folder}/results/eval/heat_map.html",
        f"Log: {quickstart.log}",
    ]
    log = quickstart.log.read_text()
    for name in ("embedded", "arithmetic", "eval_detect_multi_seed", "heat_map"):
        assert f"noise of {name}" in log
    (heat_map,) = quickstart.words("heat_map")
    assert (option(heat_map, "--most"), option(heat_map, "--least")) == ("5", "5")
    assert (quickstart.folder / "results/answers/batch_results_0_2.jsonl").as_posix() in heat_map


def test_without_a_home_the_cache_must_be_named(quickstart: Quickstart) -> None:
    del quickstart.env["TOKUR_CACHE"]
    quickstart.env.pop("HOME", None)
    result = quickstart.run()
    assert (result.returncode, result.stdout) == (2, "")
    said = "quickstart.sh: HOME is not set; set TOKUR_CACHE to the folder that the model is kept in\n"
    assert result.stderr == said


def test_verbose_brings_the_logs_and_the_whole_table(quickstart: Quickstart) -> None:
    result = quickstart.run(VERBOSE="1")
    assert result.returncode == 0
    assert "the whole table" in result.stdout
    assert "Log:" not in result.stdout
    for name in ("embedded", "greedy_unc_single_batch_refine", "eval_detect_multi_seed", "heat_map"):
        assert f"noise of {name}" in result.stderr
    assert not quickstart.log.exists()
    assert "--log-file" not in quickstart.words("greedy_unc_single_batch_refine")[0]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", {"enforce_eager": True}),
        ('{"enforce_eager": false, "dtype": "float32"}', {"enforce_eager": False, "dtype": "float32"}),
    ],
)
def test_on_a_cpu_vllm_runs_eagerly_unless_told_otherwise(
    given: str, expected: dict[str, object], quickstart: Quickstart
) -> None:
    assert quickstart.run(ENGINE_ARGS=given).returncode == 0
    (words,) = quickstart.words("greedy_unc_single_batch_refine")
    assert json.loads(option(words, "--engine-args")) == expected


def test_with_a_gpu_graphs_stay_on(quickstart: Quickstart) -> None:
    stamp = quickstart.folder / "venv/tokur-setup"
    text = (SCRIPTS / "setup.sh").read_text()
    start = text.index("fingerprint() {")
    script = f"BUILD=cuda\n{text[start : text.index(chr(10) + '}', start) + 2]}\nPYTHON= fingerprint"
    made = subprocess.run(["bash", "-c", script], cwd=SCRIPTS.parent, capture_output=True, text=True, check=True)
    stamp.write_text(made.stdout)
    (quickstart.folder / "venv/bin/nvidia-smi").write_text("#!/bin/sh\n")
    assert quickstart.run().returncode == 0
    assert "--engine-args" not in quickstart.words("greedy_unc_single_batch_refine")[0]


def test_options_of_the_environment_reach_the_run(quickstart: Quickstart) -> None:
    values = {"NUM_SAMPLES": "3", "BAYES_SIGMA": "0.05", "DATASET_START": "1", "DATASET_END": "2", "BATCH_SIZE": "4"}
    assert quickstart.run(**values, MOST="2", LEAST="0").returncode == 0
    (words,) = quickstart.words("greedy_unc_single_batch_refine")
    assert {name: option(words, f"--{name.lower().replace('_', '-')}") for name in values} == values
    assert option(words, "--max-tokens") == "64"  # of the embedded problems
    (heat_map,) = quickstart.words("heat_map")
    assert (option(heat_map, "--most"), option(heat_map, "--least")) == ("2", "0")


RUN = "greedy_unc_single_batch_refine"


@pytest.mark.parametrize(
    ("failing", "status", "last", "says"),
    [
        ("embedded", 1, "embedded", "preparing model and problems: FAILED with status 1; see the log LOG:"),
        ("eval_detect_multi_seed", 1, "eval_detect_multi_seed", "grading and evaluating: FAILED with status 1"),
        ("heat_map", 1, "heat_map", "drawing the heat map: FAILED with status 1; see the log LOG:"),
        (RUN, 1, RUN, "no problem has an answer; see the errors above, and the log LOG"),
        (RUN, 2, RUN, "    ValueError: no memory"),
        (RUN, 139, RUN, "    ValueError: no memory"),
    ],
)
def test_a_failure_is_shown_with_its_reason(
    failing: str, status: int, last: str, says: str, quickstart: Quickstart
) -> None:
    result = quickstart.run(FAIL=failing, STATUS=str(status))
    assert result.returncode == status
    errors = result.stderr.splitlines()
    assert any(line.endswith("Error: it cannot be") for line in errors)
    assert any(says.replace("LOG", str(quickstart.log)) in line for line in errors)
    assert errors.count("    ValueError: no memory") == (failing == RUN)  # once, of another process
    assert len(errors) <= 6
    assert json.loads(quickstart.calls.read_text().splitlines()[-1])["name"] == last


def test_a_problem_without_an_answer_is_not_the_end(quickstart: Quickstart) -> None:
    """The run script has then said where the other answers are, and which problem has none."""
    result = quickstart.run(UNANSWERED="1", SEEDS="1 2")
    assert result.returncode == 1
    assert result.stderr.count("Error: 1 problems have no result: x") == 2
    assert "the table" in result.stdout
    assert "heat_map.html" in result.stdout
    assert result.stderr.splitlines()[-1] == "quickstart: incomplete; see the errors above"


def test_a_failing_set_up_says_why(quickstart: Quickstart, tmp_path: Path) -> None:
    result = quickstart.run(PYTHON="/nowhere/python", VENV=str(tmp_path / "none"))
    assert result.returncode == 1
    assert "no Python 3.11 or newer with venv found in PYTHON=/nowhere/python" in result.stderr
    assert str(quickstart.log) in result.stderr
    assert not quickstart.calls.exists()


def test_on_a_terminal_a_line_tells_the_time_of_a_stage(quickstart: Quickstart) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(quickstart.command, env=quickstart.env, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        output = b""
        try:
            while part := os.read(ours, 4096):
                output += part
        except OSError:  # the other end is closed
            pass
    os.close(ours)
    assert process.returncode == 0
    lines = [line.rstrip("\r").rpartition("\r")[2].removeprefix("\x1b[K") for line in output.decode().split("\n")]
    assert (
        "quickstart: preparing model and problems (0 s)" in lines
        or "quickstart: preparing model and problems (1 s)" in lines
    )
    assert max(map(len, lines)) <= 100 or str(quickstart.folder) in max(lines, key=len)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, -15)])
def test_an_interrupt_ends_everything(number: signal.Signals, status: int, quickstart: Quickstart) -> None:
    process = subprocess.Popen(
        quickstart.command,
        env=quickstart.env | {"SLEEP": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Where the tests run in the background, a shell has made them ignore interrupts, and bash cannot undo that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 30
    while not (quickstart.calls.exists() and quickstart.words("greedy_unc_single_batch_refine")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, number)  # as a terminal does
    process.communicate(timeout=30)
    assert process.returncode == status
    started = [json.loads(line)["pid"] for line in quickstart.calls.read_text().splitlines()]
    while any(Path(f"/proc/{pid}").exists() for pid in started):
        assert time.monotonic() < deadline
        time.sleep(0.05)
