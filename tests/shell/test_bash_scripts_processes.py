"""The processes that the shell scripts start: one that fails, several runs, an interrupt."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.bash_scripts import PARA, SCALING, SCRIPTS, SINGLE, environment, run

# Stands in for the interpreter where only the handling of processes is tested: one JSON line per call, and the part
# that starts at FAIL_AT fails.
FAKE_PYTHON = f"""#!{sys.executable}
import json, os, sys
arguments = sys.argv[1:]
start = arguments[arguments.index("--dataset-start") + 1]
with open(os.environ["CALLS"], "a") as file:
    file.write(json.dumps({{"gpu": os.environ.get("CUDA_VISIBLE_DEVICES"), "arguments": arguments}}) + "\\n")
if start == os.environ.get("FAIL_AT"):
    sys.exit("Error: out of memory")
if start == os.environ.get("KILLED_AT"):
    os.kill(os.getpid(), 9)
"""
SLEEPER = """#!/usr/bin/env bash
sleep 300 &
echo $! $$ >> "$CALLS"
trap '' INT
wait
"""


def fake(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def calls(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_failing_process_is_reported_and_stops_no_other(data_sets: Path, tmp_path: Path) -> None:
    env = environment(
        data_sets, NUM_GPUS="3", PYTHON=fake(tmp_path / "python", FAKE_PYTHON), CALLS=str(tmp_path / "calls")
    )
    result = run(SINGLE, "--dataset", "ten", "--model", "m", env={**env, "FAIL_AT": "3"})
    assert result.returncode == 1
    assert sorted(str(call["gpu"]) for call in calls(tmp_path / "calls")) == ["0", "1", "2"]
    assert "problems 3 to 5: FAILED with status 1" in result.stderr
    assert "out of memory" in result.stderr
    assert result.stdout.count(": done") == 2
    logs = sorted((tmp_path / "results/logs").iterdir())
    assert [log.read_text() for log in logs] == ["", "Error: out of memory\n", ""]
    assert str(logs[1]) in result.stderr

    result = run(SINGLE, "--dataset", "ten", "--model", "m", env={**env, "KILLED_AT": "3"})
    assert "problems 3 to 5: FAILED with status 137" in result.stderr
    assert "(it wrote nothing)" in result.stderr
    assert "out of memory" not in result.stderr  # that was the run before, in the same log

    (tmp_path / "calls").unlink()
    assert run(SINGLE, "--dataset", "ten", "--model", "m", env=env).returncode == 0


def test_several_data_sets_and_seeds(data_sets: Path, tmp_path: Path) -> None:
    env = environment(
        data_sets, NUM_GPUS="2", PYTHON=fake(tmp_path / "python", FAKE_PYTHON), CALLS=str(tmp_path / "calls")
    )
    result = run(PARA, "--datasets", "ten small", "--seeds", "5 6", env={**env, "FAIL_AT": "1"})  # half of small's 3
    assert result.returncode == 1
    assert result.stderr.splitlines()[-2:] == [
        f"{PARA}: incomplete: small seed 5",
        f"{PARA}: incomplete: small seed 6",
    ]
    assert len(calls(tmp_path / "calls")) == 8
    assert run(PARA, "--datasets", "ten", "--seeds", "5", env={**env, "FAIL_AT": "1"}).returncode == 0


def test_scaling_is_not_evaluated_after_a_failed_generation(data_sets: Path, tmp_path: Path) -> None:
    env = environment(
        data_sets, NUM_GPUS="1", PYTHON=fake(tmp_path / "python", FAKE_PYTHON), CALLS=str(tmp_path / "calls")
    )
    result = run(SCALING, "--generate", "--dataset", "ten", env={**env, "FAIL_AT": "0"})
    assert result.returncode == 1
    assert len(calls(tmp_path / "calls")) == 1


def alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "State:\tZ" not in status.read_text()


@pytest.mark.parametrize("script", [SINGLE, PARA])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_ends_the_processes_and_their_children(
    script: str, number: signal.Signals, status: int, data_sets: Path, tmp_path: Path
) -> None:
    noted = tmp_path / "calls"
    env = environment(data_sets, NUM_GPUS="2", PYTHON=fake(tmp_path / "python", SLEEPER), CALLS=str(noted))
    arguments = ["--dataset", "ten"] if script == SINGLE else ["--datasets", "ten", "--seeds", "1 2"]
    process = subprocess.Popen(
        ["bash", str(SCRIPTS / script), *arguments],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Where the tests run in the background, a shell has made them ignore interrupts, and bash cannot undo that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
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
