"""Where a run's output goes: what vLLM prints to the log file, progress and errors to the terminal."""

import io
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import Result

from run.utils.terminal import WIDTH, Progress
from tests.helpers.run_scripts import (
    PROBLEMS,
    FakeEngine,
    greedy,
    greedy_folder,
    only_line,
    scaling,
    write_rows,
)

ROOT = Path(__file__).resolve().parents[2]
NOISE = """
import os, subprocess, sys
from pathlib import Path
from run.utils.terminal import output_to
print("before")
with output_to(Path(sys.argv[1])) as terminal:
    print("engine")
    print("a warning", file=sys.stderr)
    os.write(1, b"library\\n")
    subprocess.run([sys.executable, "-c", "import os; os.write(2, b'worker\\\\n'); print('worker too')"])
    print("progress", file=terminal)
    if len(sys.argv) > 2:
        raise SystemExit("it failed")
print("after")
"""


FULL = """
import click
from pathlib import Path
from bayesian_transformer.command_line import one_line_errors
from run.utils.terminal import output_to
@click.command()
def main():
    with one_line_errors(), output_to(Path("/dev/full")):
        print("engine")
main()
"""


def noise(log: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", NOISE, str(log), *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_all_output_of_the_process_and_its_children_goes_to_the_log(tmp_path: Path) -> None:
    log = tmp_path / "logs/run.log"
    first = noise(log)
    assert (first.returncode, first.stdout, first.stderr) == (0, "before\nafter\n", "progress\n")
    assert sorted(log.read_text().splitlines()) == ["a warning", "engine", "library", "worker", "worker too"]
    failed = noise(log, "fail")  # what ends the block is said on the terminal again
    assert (failed.returncode, failed.stdout, failed.stderr) == (1, "before\n", "progress\nit failed\n")
    assert log.read_text().count("library") == 2  # appended


def test_a_log_file_on_a_full_disk_is_said_on_the_terminal() -> None:
    buffered = os.environ | {"PYTHONUNBUFFERED": ""}  # so that what was printed is written at the end
    command = [sys.executable, "-c", FULL]
    done = subprocess.run(command, cwd=ROOT, env=buffered, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (1, "Error: [Errno 28] No space left on device: '/dev/full'\n")


@pytest.mark.parametrize("script", [greedy, scaling])
def test_failures_are_said_with_a_log_file_as_without(
    script: Callable[..., Result], model: Path, dataset: Path, fake: Callable[..., FakeEngine]
) -> None:
    write_rows(dataset, [*PROBLEMS, {"unique_id": "long", "problem": "x" * 2000, "answer": "1"}])
    engine = fake(prompt_limit=1500)
    log = dataset.parent / "run.log"
    result = script(model, dataset, "--log-file", str(log))
    assert "1 problems have no result: long" in only_line(result)
    assert "long: The prompt is longer than" in result.stderr
    assert "6 problems have results in" in result.stdout
    assert log.exists()
    assert engine.ended


def test_the_engine_is_ended_when_a_result_cannot_be_written(
    model: Path, dataset: Path, fake: Callable[..., FakeEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("No space left on device")

    engine = fake()
    monkeypatch.setattr("run.greedy_unc_single_batch_refine.append_jsonl", full)
    assert only_line(greedy(model, dataset)) == "Error: No space left on device"
    assert engine.ended
    assert not list(greedy_folder(dataset).glob("*.jsonl"))


def shown(ours: int, text: str) -> list[str]:
    """The states of the line on a terminal, up to the one that holds `text`."""
    output = ""
    while text not in output:
        output += os.read(ours, 4096).decode()
    return output.split("\r")


def test_the_bar_says_that_vllm_starts_and_fits_a_terminal() -> None:
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as terminal, closing(Progress("sums", 3, 1, terminal)) as progress:
        shown(ours, "starting vLLM")
        progress.begin()
        progress.update()
        progress.update()
        progress.close()
        states = shown(ours, "\n")
    os.close(ours)
    last = [state for state in states if state.strip()][-1]
    assert "3/3" in last
    assert "starting vLLM" not in last
    assert max(map(len, states)) <= WIDTH


def test_in_a_file_progress_is_a_line_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    file, times = io.StringIO(), iter((0.0, 1.0, 59.0, 60.0, 60.0, 61.0, 130.0, 130.0))
    monkeypatch.setattr("run.utils.terminal.time.monotonic", lambda: next(times))
    progress = Progress("sums", 9, 1, file)
    progress.begin()
    for _ in range(5):  # after 1, 59, 60, 61 and 130 seconds
        progress.update()
    progress.close()
    assert file.getvalue() == "sums: 4 of 9 problems\nsums: 6 of 9 problems\n"
