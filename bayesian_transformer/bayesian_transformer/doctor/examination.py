"""Runs the checks, a few at a time, and hands out the results in the order of the table."""

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from .checks import GPU, Check
from .finding import ERROR, NOT_APPLICABLE, Finding, not_applicable
from .process import Result, run_check

_AT_A_TIME = 2  # they import torch, so more would take memory and, on few cores, no less time
_QUICK = 60.0  # seconds allowed to a check that others may wait for; of the others the longest starts first


def run_checks(checks: Sequence[Check], hand_out: Callable[[Result], None]) -> list[Result]:
    """The results in the order of `checks`. Each is handed out as soon as it and all before it are there.

    When it is interrupted, it ends the processes that still run.
    """
    stop = threading.Event()
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        try:
            return _Examination(checks, hand_out).run(lambda check: pool.submit(run_check, check, stop))
        finally:
            stop.set()


class _Examination:
    def __init__(self, checks: Sequence[Check], hand_out: Callable[[Result], None]) -> None:
        self._checks = checks
        self._hand_out = hand_out
        self._keys = {check.key for check in checks}
        self._waiting = sorted(checks, key=lambda check: (check.seconds > _QUICK, -check.seconds))
        self._running: dict[Future[Result], Check] = {}
        self._results: dict[str, Result] = {}
        self._handed_out = 0

    def run(self, submit: Callable[[Check], "Future[Result]"]) -> list[Result]:
        while self._waiting or self._running:
            for check in list(self._waiting):
                self._start(check, submit)
            if self._running:
                for future in wait(self._running, return_when=FIRST_COMPLETED).done:
                    self._results[self._running.pop(future).key] = future.result()
            self._hand_out_in_order()
        return [self._results[check.key] for check in self._checks]

    def _start(self, check: Check, submit: Callable[[Check], "Future[Result]"]) -> None:
        """Start a check if its turn has come, or settle it if it need not run."""
        needs = [need for need in check.needs if need in self._keys]
        if any(need not in self._results for need in needs):
            return
        finding = _left_out(needs, self._results)
        if finding is not None:
            self._waiting.remove(check)
            self._results[check.key] = Result(check, finding, 0.0)
        elif len(self._running) < min(_AT_A_TIME, len(os.sched_getaffinity(0))) and not self._is_in_the_way(check):
            self._waiting.remove(check)
            self._running[submit(check)] = check

    def _is_in_the_way(self, check: Check) -> bool:
        """An engine measures the free memory of the GPU, and fails if another process changes it meanwhile."""
        gpu = self._results.get(GPU)
        if gpu is not None and gpu.finding.verdict == NOT_APPLICABLE:
            return False
        return check.on_gpu and any(other.on_gpu for other in self._running.values())

    def _hand_out_in_order(self) -> None:
        for check in self._checks[self._handed_out :]:
            if check.key not in self._results:
                return
            self._hand_out(self._results[check.key])
            self._handed_out += 1


def _left_out(needs: Sequence[str], results: Mapping[str, Result]) -> Finding | None:
    """Why a check is not run, None if it is: something that it needs is not there, or does not work."""
    for need in needs:
        result = results[need]
        if result.finding.verdict == NOT_APPLICABLE:
            return not_applicable(result.finding.found)
        if result.finding.details.get("absent"):
            return not_applicable(f"no {result.check.title}")
        if result.finding.verdict == ERROR:
            return not_applicable(f"not run, see the line {result.check.title}")
    return None
