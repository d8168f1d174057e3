"""Engines in processes of their own, and paired timing of two of them."""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[2]
_DISCARD = 2  # steps of a burst that are not counted: the other engine has just had the caches
_STOP_SECONDS = 60


class Engine:
    """A vLLM engine in a child process, see engine_process.py. It works only while a call of this class runs."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, name: str) -> None:
        self._process, self._log, self._name = process, log, name
        self.facts: dict[str, Any] = {}  # what vLLM made of its options

    @classmethod
    @contextmanager
    def running(cls, name: str, log: Path, **options: Any) -> Iterator["Engine"]:
        """Start an engine with vllm.LLM's `options`; it is gone when the block ends. Its log goes to the file `log`."""
        paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        command = [sys.executable, "-P", "-m", "benchmarks.utils.engine_process"]
        with log.open("wb") as stderr:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
            )
        engine = cls(process, log, name)
        try:
            engine.facts = engine.call("start", **options)
            yield engine
        finally:
            engine._stop()

    def call(self, method: str, **arguments: Any) -> Any:
        """Result of a method of engine_process.Decoder. ValueError, naming the log, if the engine died."""
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise RuntimeError("the engine was started without pipes")
        try:
            stdin.write(json.dumps({"name": method, "arguments": arguments}).encode() + b"\n")
            stdin.flush()
            reply = stdout.readline()
        except BrokenPipeError:
            reply = b""
        if not reply:
            raise ValueError(f"the {self._name} engine died in {method!r}: {self._last_error()}; its log: {self._log}")
        return json.loads(reply)

    def burst(self, steps: int) -> dict[str, float]:
        """Median seconds of `steps` decode steps: `core` of the engine core, `total` with the front end."""
        seconds = self.call("steps", count=steps, discard=_DISCARD)
        return {name: statistics.median(values) for name, values in seconds.items()}

    def _last_error(self) -> str:
        lines = [line.strip() for line in self._log.read_text(errors="replace").splitlines()]
        errors = [line for line in lines if "Error:" in line and "See root cause" not in line]
        return (errors or lines or ["it wrote nothing"])[-1]

    def _stop(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@dataclass(frozen=True)
class Paired:
    """Rounds of bursts of two engines, taken in turn: seconds per step, round by round."""

    ours: list[float]
    other: list[float]

    @property
    def ratios(self) -> list[float]:
        return [ours / other for ours, other in zip(self.ours, self.other, strict=True)]

    def summary(self) -> dict[str, float]:
        """Medians, and the ratio ours / other round by round: what drifts between rounds does not touch it."""
        return {
            "ours_seconds": statistics.median(self.ours),
            "seconds": statistics.median(self.other),
            "ratio": statistics.median(self.ratios),
            "ratio_min": min(self.ratios),
            "ratio_max": max(self.ratios),
        }


def paired_rounds(ours: Engine, other: Engine, rounds: int, steps: int) -> dict[str, Paired]:
    """Bursts of both engines, who goes first alternating: `core` and `total`, see Engine.burst."""
    bursts: dict[Engine, list[dict[str, float]]] = {ours: [], other: []}
    for number in range(rounds):
        for engine in (ours, other) if number % 2 == 0 else (other, ours):
            bursts[engine].append(engine.burst(steps))
    return {
        name: Paired([burst[name] for burst in bursts[ours]], [burst[name] for burst in bursts[other]])
        for name in ("core", "total")
    }


def steps_needed(rounds: int, steps: int) -> int:
    """Decode steps that one call of `paired_rounds` takes from each engine."""
    return rounds * (steps + _DISCARD)


@contextmanager
def work_folder() -> Iterator[Path]:
    """A temporary folder; it stays if the block fails with engines' logs in it."""
    folder = Path(tempfile.mkdtemp(prefix="bench_decode-"))
    done = False
    try:
        yield folder
        done = True
    finally:
        if done or not list(folder.glob("*.log")):
            shutil.rmtree(folder)
