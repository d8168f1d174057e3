"""A run script in a forked process, with an engine that stands in for vLLM's, to be killed at any moment.

What stands in, in the forked process alone, and why:

- `StormEngine` for vLLM's engine, which takes 15 to 40 s to start; real_kills.py has the real one.
- `PiecewiseFile` for Python's own file: what is written goes out in pieces with pauses between them, so that a kill
  finds the file half written. A kernel may do that with a long line, but too seldom to wait for it.

The rest is real: command line, data set, model folder, tokenizer, requests, records, locks, resume, SIGKILL.
The process is a fork of one that has imported everything, as the imports take ten seconds and a run a tenth of one.
"""

import io
import mmap
import os
import resource
import signal
import sys
import threading
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import click

from tests.helpers.run_scripts import FakeEngine
from tests.soak.storm_cases import ODD

PATIENCE_SECONDS = 60  # for a script that takes a fraction of one
STEP = 15
CRASHED = 70  # exit status of a script that raised anything
_MOMENTS = (
    "before_the_engine", "before_the_first_record", "between_records", "in_a_write", "after_the_last_record",
)  # fmt: skip
_STARTING, _ASKING, _ENDED = range(3)
_PHASE, _WRITING, _WRITTEN = range(3)  # cells of the memory that parent and child share


@dataclass(frozen=True)
class Disturbance:
    """What the process does to itself, beside what others do to it."""

    seed: int = 0
    pause: float = 0.0003  # seconds between the pieces of a write; a step of the engine takes STEP of them
    pieces: bool = True  # write in pieces
    fatal_piece: int | None = None  # SIGKILL after so many pieces were written
    largest_file: int | None = None  # bytes, RLIMIT_FSIZE


UNDISTURBED = Disturbance(pause=0, pieces=False)


@dataclass
class Script:
    """A script that runs. `said` is the file of all that it says."""

    pid: int
    said: Path
    cells: "memoryview[int]"
    started: float = field(default_factory=time.monotonic)

    def wait(self) -> int:
        """Exit status, negative for a signal; AssertionError if the script hangs."""
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() > self.started + PATIENCE_SECONDS:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                raise AssertionError(f"the script hangs; it said {self.said.read_text()}")
            time.sleep(0.0005)

    def wait_for_records(self, count: int) -> None:
        """Wait until the engine runs and so many records were written, or until the script has ended."""
        while self.cells[_PHASE] == _STARTING or self.cells[_WRITTEN] < count:
            if self.cells[_PHASE] == _ENDED or os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                return
            assert time.monotonic() < self.started + PATIENCE_SECONDS, self.said.read_text()
            time.sleep(0.0005)

    def stop(self) -> bool:
        """Stop the process where it is; whether its engine runs then, so that it holds its locks."""
        os.kill(self.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WSTOPPED | os.WNOWAIT)
        return self.cells[_PHASE] == _ASKING

    def moment(self) -> str:
        """Where the script was when it ended, one of _MOMENTS."""
        if self.cells[_WRITING]:
            return "in_a_write"
        if self.cells[_PHASE] == _ASKING:
            return "between_records" if self.cells[_WRITTEN] else "before_the_first_record"
        return "after_the_last_record" if self.cells[_PHASE] == _ENDED else "before_the_engine"

    def error(self) -> str:
        """The one line of error that a refused script says; AssertionError if it said anything else of the kind."""
        said = self.said.read_text()
        errors = [line for line in said.splitlines() if line.startswith("Error: ")]
        assert len(errors) == 1, said
        assert "Traceback" not in said, said
        return errors[0]


class StormEngine(FakeEngine):
    """A FakeEngine whose steps take a moment, and whose answers are short and long and of all characters."""

    def __init__(self, cells: "memoryview[int]", pause: float) -> None:
        super().__init__(prompt_limit=10**9, die_after=10**9)
        self.cells, self.pause = cells, pause
        cells[_PHASE] = _ASKING

    def add_request(self, request_id: str, prompt: dict[str, Any], params: Any) -> None:
        super().add_request(request_id, prompt, params)
        for index, output in enumerate(self.requests[request_id].output.outputs):
            output.text = f"{index} {ODD[params.seed % len(ODD)]}" * (params.seed % 100)

    def step(self) -> list[Any]:
        time.sleep(STEP * self.pause)
        return super().step()

    def shutdown(self) -> None:
        self.cells[_PHASE] = _ENDED


class PiecewiseFile(io.FileIO):
    """A file that takes what is written piece by piece, with a pause after each, and may end the process after one."""

    def __init__(self, path: Path, mode: str, writer: "PiecewiseWriter") -> None:
        super().__init__(path, mode)
        self._writer = writer
        writer.cells[_WRITING] = 1

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        written = super().write(view[: self._writer.rng.randint(1, max(1, len(view)))])
        self._writer.has_written()
        return written

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._writer.cells[_WRITING] = 0


class PiecewiseWriter:
    """Takes the place of `io.open`, which pathlib opens files with: those below `folder` are written in pieces."""

    def __init__(self, folder: Path, cells: "memoryview[int]", how: Disturbance) -> None:
        self.folder, self.cells, self.how, self.rng = folder, cells, how, Random(how.seed)
        self.pieces, self.open = 0, io.open

    def __call__(
        self, file: Any, mode: str = "r", buffering: int = -1, encoding: str | None = None, *others: Any, **named: Any
    ) -> Any:
        ours = isinstance(file, Path) and self.folder in file.parents and not file.name.endswith(".lock")
        if not ours or mode not in ("a", "w", "ab", "wb"):
            return self.open(file, mode, buffering, encoding, *others, **named)
        binary = io.BufferedWriter(PiecewiseFile(file, mode[0], self))
        return binary if mode.endswith("b") else io.TextIOWrapper(binary, encoding, *others, **named)

    def has_written(self) -> None:
        self.pieces += 1
        if self.pieces == self.how.fatal_piece:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.how.pause)


def start(command: click.Command, arguments: list[str], said: Path, folder: Path, how: Disturbance) -> Script:
    """Fork a process that runs the command and says all to the file `said`. It writes its results below `folder`."""
    assert threading.active_count() == 1, "a process with threads must not be forked"
    cells = memoryview(mmap.mmap(-1, 3 * 4)).cast("i")
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return Script(pid, said, cells)
    status = CRASHED
    try:
        _prepare(said, folder, cells, how)
        status = _outcome(command, arguments)
    finally:  # the process ends here, whatever happens: the stack below is the parent's
        if status == CRASHED:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _prepare(said: Path, folder: Path, cells: "memoryview[int]", how: Disturbance) -> None:
    import bayesian_transformer.files as files
    import run.greedy_responses_unc as sampled
    import run.greedy_unc_single_batch_refine as greedy
    import run.utils.run as course

    descriptor = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for number in (1, 2):
        os.dup2(descriptor, number)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    course.start_engine = lambda *_: StormEngine(cells, how.pause)

    def counted(write: Any) -> Any:
        def wrapped(*arguments: Any) -> None:
            write(*arguments)
            cells[_WRITTEN] += 1

        return wrapped

    greedy.append_jsonl, sampled.write_json = counted(files.append_jsonl), counted(files.write_json)
    if how.pieces:
        io.open = PiecewiseWriter(folder, cells, how)  # type: ignore[assignment]
    if how.largest_file is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (how.largest_file, how.largest_file))


def _outcome(command: click.Command, arguments: list[str]) -> int:
    try:
        command.main(arguments)
    except SystemExit as end:
        return int(end.code or 0)
    return 0
