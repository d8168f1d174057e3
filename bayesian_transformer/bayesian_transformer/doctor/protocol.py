"""What a check's process tells the doctor: JSON lines over a pipe, nothing pickled.

`{"doing": "..."}` says what comes next, so that a crash can be put down to it; `{"finding": {...}}` is the result. The
lines stay far below what a pipe holds, so a process never waits for the doctor to read them.
"""

import json
import os
from dataclasses import asdict
from typing import Any

from .finding import Finding

_MOST = 2000  # characters of one text
_MOST_DETAILS = 20_000  # characters of the details as JSON

_pipe: int | None = None


def open_pipe(descriptor: int) -> None:
    """Write to this file descriptor from now on; processes started from here do not get it."""
    global _pipe
    os.set_inheritable(descriptor, False)
    _pipe = descriptor


def doing(what: str) -> None:
    """Say what comes next. Outside of a check's process nothing happens."""
    _write({"doing": what[:_MOST]})


def send(finding: Finding) -> None:
    """Hand in the result."""
    value = asdict(finding)
    value["found"], value["remedy"] = (one_line(value[name])[:_MOST] for name in ("found", "remedy"))
    if len(json.dumps(value["details"])) > _MOST_DETAILS:
        value["details"] = {"left out": "too long"}
    _write({"finding": value})


def _write(value: dict[str, Any]) -> None:
    if _pipe is not None:
        os.write(_pipe, (json.dumps(value) + "\n").encode())


def received(data: bytes) -> tuple[Finding | None, str]:
    """The finding among the lines a process wrote, None if there is none that can be read, and the last thing it did.

    A process may have been killed in the middle of a line, and a library may have written to our descriptor.
    """
    finding, last = None, ""
    for line in data.splitlines():
        try:
            value = json.loads(line)
            last = str(value.get("doing", last))
            if "finding" in value:
                finding = _checked(**value["finding"])
        except (ValueError, TypeError, AttributeError):
            continue
    return finding, last


def _checked(verdict: str, found: str, remedy: str, details: dict[str, Any]) -> Finding:
    if not (isinstance(found, str) and isinstance(remedy, str) and isinstance(details, dict)):
        raise ValueError("a finding holds two texts and a dictionary")
    return Finding(verdict, found, remedy, details)


def one_line(text: str) -> str:
    """`text` with every run of white space as one space."""
    return " ".join(text.split())
