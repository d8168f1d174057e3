"""Runs one check in a process of its own, under a deadline, and makes a finding of whatever becomes of it."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass, replace

from .checks import Check
from .finding import ERROR, OK, WARNING, Finding, error
from .protocol import received

_MODULE = f"{__package__}.child"
_POLL = 0.02  # seconds
_KEPT = 200  # last lines of what a process prints
_SHOWN = 30  # of these, in the details of an error


@dataclass(frozen=True)
class Result:
    """A check and what came of it."""

    check: Check
    finding: Finding
    seconds: float  # wall time


def run_check(check: Check, stop: threading.Event) -> Result:
    """The result of a check. Nothing that its process does raises here, and none of its children stays behind.

    When `stop` is set, the process is ended and its result means nothing.
    """
    start = time.monotonic()
    reading, writing = os.pipe()
    try:
        process = _start(check, writing)
    except OSError as problem:
        os.close(reading)
        return Result(check, _with_remedy(error(f"its process cannot be started: {problem}"), check), 0.0)
    finally:
        os.close(writing)
    lines: deque[bytes] = deque(maxlen=_KEPT)
    reader = threading.Thread(target=_read_lines, args=(process, lines), daemon=True)
    reader.start()
    in_time = False
    try:
        in_time = _ended_before(process, start + check.seconds, stop)
    finally:
        _kill_group(process)
        data = _drain(reading)
    seconds = time.monotonic() - start
    reader.join(timeout=1.0)  # longer only if a process left the group and kept our pipe
    finding = _judge(check, in_time, process.returncode, data)
    if finding.verdict == ERROR:
        printed = [line.decode(errors="replace").rstrip() for line in list(lines)[-_SHOWN:]]
        finding = replace(finding, details={**finding.details, "printed": printed})
    return Result(check, _with_remedy(finding, check), seconds)


def _start(check: Check, writing: int) -> subprocess.Popen[bytes]:
    environment = os.environ | {
        "PYTHONSAFEPATH": "1",  # a module in the current folder replaces none of Python's, here and in engines
        "PYTHONUNBUFFERED": "1",  # what a crash leaves behind is all that was printed
        "HF_HUB_OFFLINE": "1",  # nothing is fetched
        "VLLM_NO_USAGE_STATS": "1",  # and nothing reported
    }
    return subprocess.Popen(
        [sys.executable, "-m", _MODULE, check.function, str(writing), str(check.seconds)],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=[writing],
        start_new_session=True,  # so that all it starts can be killed together
    )


def _read_lines(process: subprocess.Popen[bytes], lines: deque[bytes]) -> None:
    if process.stdout is None:
        raise RuntimeError("a check was started without a pipe")
    while line := process.stdout.readline(10_000):
        lines.append(line)


def _ended_before(process: subprocess.Popen[bytes], deadline: float, stop: threading.Event) -> bool:
    """Wait for the end of the process, without collecting it: until then its group number belongs to nobody else."""
    while time.monotonic() < deadline and not stop.wait(_POLL):
        if os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return True
    return False


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _drain(reading: int) -> bytes:
    """What is in the pipe; a process that left the group may still hold its other end."""
    os.set_blocking(reading, False)
    data = b""
    try:
        while part := os.read(reading, 1 << 16):
            data += part
    except BlockingIOError:
        pass
    finally:
        os.close(reading)
    return data


def _judge(check: Check, in_time: bool, status: int, data: bytes) -> Finding:
    """The finding of a process that ended with `status` (negative: by that signal)."""
    finding, last = received(data)
    where = f" while {last}" if last else ""
    if finding is None and not in_time:
        return error(f"no answer within {check.seconds:.0f} s{where}")
    if finding is None:
        return error(f"its process {_end(status)}{where}, without a result")
    if in_time and status and finding.verdict == OK:
        return replace(finding, verdict=WARNING, found=f"{finding.found}; then its process {_end(status)}")
    return finding


def _end(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return f"was ended by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")


def _with_remedy(finding: Finding, check: Check) -> Finding:
    """Errors and warnings that name no remedy get the one in the table."""
    needs_one = finding.verdict in (ERROR, WARNING) and not finding.remedy
    return replace(finding, remedy=check.remedy) if needs_one else finding
