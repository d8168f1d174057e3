"""Start a program as it is started in earnest, and learn where it looked for modules and which it imported.

A sitecustomize.py, which Python imports at its start, reports both when the process ends.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pytest

ROOT = Path(__file__).resolve().parents[2]
_MARK = "modules and search path: "
_REPORT = f"""
import atexit, json, sys
atexit.register(lambda: print({_MARK!r} + json.dumps([sorted(sys.modules), sys.path]), file=sys.stderr, flush=True))
"""


@dataclass(frozen=True)
class Seen:
    """What a process was at its end."""

    stdout: str
    modules: frozenset[str]
    path: tuple[str, ...]  # sys.path, without the entry that this file adds

    def imported(self, *names: str) -> set[str]:
        return set(names) & self.modules


def probed(folder: Path, command: Sequence[str], stdin: str = "", cwd: Path | None = None) -> Seen:
    """Run a command of Python's to its end; AssertionError unless it succeeds. `folder` may be shared by many."""
    (folder / "sitecustomize.py").write_text(_REPORT)
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(
        list(command), input=stdin, cwd=cwd or folder, env=environment, capture_output=True, text=True, timeout=300
    )
    reports = [line.removeprefix(_MARK) for line in done.stderr.splitlines() if line.startswith(_MARK)]
    assert done.returncode == 0, f"{command}: {done.stderr}"
    assert len(reports) == 1, f"{command}: {done.stderr}"
    modules, path = json.loads(reports[0])
    return Seen(done.stdout, frozenset(modules), tuple(entry for entry in path if entry != str(folder)))


def probed_code(folder: Path, code: str) -> Seen:
    """The same for a piece of Python."""
    return probed(folder, [sys.executable, "-P", "-c", code])


class _Started(BaseException):
    """Carries the command that was about to be started."""


def command_of(start: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command that `start()` gives to subprocess.Popen, which then is not started."""

    def popen(command: list[str], **options: Any) -> NoReturn:
        raise _Started(command)

    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "Popen", popen)
        with pytest.raises(_Started) as started:
            start()
    command: list[str] = started.value.args[0]
    return command
