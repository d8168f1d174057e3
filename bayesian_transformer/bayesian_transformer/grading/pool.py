"""Processes that compute under a hard limit of time and memory and can be killed at any moment.

Requests and replies are JSON lines over pipes: nothing is pickled, and the children import nothing of the calling
script. A child that overruns is killed; one that dies, for whatever reason, is replaced and its request tried again.
"""

import json
import logging
import os
import selectors
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

logger = logging.getLogger(__name__)

MODULE = f"{__package__}.fenced_worker"
STARTING_SECONDS = 120.0  # importing sympy from a slow disk
STARTS = 3  # processes that may die before they are ready, in a row
TRIES = 2  # of a request whose process died


@dataclass(frozen=True)
class Undecided:
    """There is no result, and why: timeout, memory, crash, too deep, too large, unreadable, not comparable, refused."""

    reason: str


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    deadline: float
    ready: bool = False
    request: int | None = None
    received: bytes = field(default=b"", repr=False)

    @property
    def output(self) -> int:
        if self.process.stdout is None:
            raise RuntimeError("a worker was started without a pipe")
        return self.process.stdout.fileno()

    def send(self, request: dict[str, Any]) -> bool:
        """Whether the request could be written; not if the process is gone."""
        if self.process.stdin is None:
            raise RuntimeError("a worker was started without a pipe")
        try:
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return False
        return True

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    logger.debug("worker %d left an unread request", self.process.pid)


class WorkerPool:
    """Up to `count` workers, started when there is work. `seconds` and `memory_mb` hold for each request.

    A request that was taken down with its process is tried once more, so that a kill from outside costs nothing; one
    that overran its time is not. Not for use from several threads at once.
    """

    def __init__(self, count: int, seconds: float, memory_mb: int) -> None:
        self.count, self.seconds, self.memory_mb = count, seconds, memory_mb
        self._workers: list[_Worker] = []
        self._failed_starts = 0
        self._owner = os.getpid()

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers alive."""
        return [worker.process.pid for worker in self._workers if worker.process.poll() is None]

    def run(self, requests: Sequence[dict[str, Any]]) -> list[Any]:
        """The result of every request, in order: a JSON value, or Undecided."""
        self._leave_to_parent()
        results: list[Any] = [None] * len(requests)
        waiting = deque(range(len(requests)))
        tries: Counter[int] = Counter()
        done = 0
        try:
            while done < len(requests):
                self._assign(requests, waiting, tries)
                for index, result in self._collect():
                    if isinstance(result, Undecided) and result.reason == "crash" and tries[index] < TRIES:
                        logger.warning("a grading worker died, starting another")
                        waiting.append(index)
                    else:
                        results[index] = result
                        done += 1
        except BaseException:
            self.close()  # their answers would be taken for those of the next call
            raise
        return results

    def close(self) -> None:
        """End all workers. The pool starts new ones if it is used again."""
        self._leave_to_parent()
        for worker in self._workers:
            worker.kill()
        self._workers.clear()

    def _leave_to_parent(self) -> None:
        """In a process that was forked: the workers are the parent's, and so are the answers in their pipes."""
        if self._owner != os.getpid():
            self._owner = os.getpid()
            self._workers.clear()

    def _assign(self, requests: Sequence[dict[str, Any]], waiting: deque[int], tries: Counter[int]) -> None:
        busy = sum(worker.request is not None for worker in self._workers)
        while len(self._workers) < min(self.count, busy + len(waiting)):
            self._workers.append(self._start())
        for worker in list(self._workers):
            if worker.ready and worker.request is None and waiting:
                if not worker.send(requests[waiting[0]]):
                    self._remove(worker)  # died while idle: the request waits for the next worker
                    continue
                worker.request = waiting.popleft()
                worker.deadline = time.monotonic() + self.seconds
                tries[worker.request] += 1

    def _start(self) -> _Worker:
        # A fixed hash seed makes the order of sympy's sets, and with it every canonical text, the same in each process.
        environment = os.environ | {"PYTHONHASHSEED": "0"}
        # -P: with -m alone the current folder would be searched first, and a math.py in it would replace Python's.
        # -B: a worker may write nothing. -W: the libraries' warnings are about texts of models, which say nothing here.
        command = [sys.executable, "-P", "-B", "-W", "ignore", "-m", MODULE, str(self.seconds), str(self.memory_mb)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        return _Worker(process, time.monotonic() + STARTING_SECONDS)

    def _collect(self) -> list[tuple[int, Any]]:
        """Wait until a worker has something to say or a deadline passes; what came of the requests."""
        outcomes: list[tuple[int, Any]] = []
        watched = [worker for worker in self._workers if worker.request is not None or not worker.ready]
        if not watched:
            return outcomes
        with selectors.DefaultSelector() as selector:
            for worker in watched:
                selector.register(worker.output, selectors.EVENT_READ, worker)
            wait = max(0.0, min(worker.deadline for worker in watched) - time.monotonic())
            for key, _ in selector.select(wait):
                outcomes += self._read(key.data)
        now = time.monotonic()
        for worker in watched:
            if worker in self._workers and worker.deadline <= now and (worker.request is not None or not worker.ready):
                outcomes += self._lose(worker, "timeout")
        return outcomes

    def _read(self, worker: _Worker) -> list[tuple[int, Any]]:
        data = os.read(worker.output, 1 << 16)
        if not data:
            return self._lose(worker, "crash")
        worker.received += data
        if not worker.received.endswith(b"\n"):
            return []
        line, worker.received = worker.received, b""
        if not worker.ready:
            worker.ready, self._failed_starts = True, 0
            return []
        index, worker.request = worker.request, None
        reply = json.loads(line)
        result = Undecided(reply["undecided"]) if "undecided" in reply else reply["value"]
        return [] if index is None else [(index, result)]

    def _lose(self, worker: _Worker, reason: str) -> list[tuple[int, Any]]:
        self._remove(worker)
        if not worker.ready:
            self._failed_starts += 1
            if self._failed_starts >= STARTS:
                raise ChildProcessError(  # an OSError, which the scripts show as one line
                    f"no grading worker starts (see its error output above); "
                    f"try `{sys.executable} -m {MODULE} 5 2048` or a memory limit above {self.memory_mb} MB"
                )
        return [] if worker.request is None else [(worker.request, Undecided(reason))]

    def _remove(self, worker: _Worker) -> None:
        worker.kill()
        self._workers.remove(worker)
