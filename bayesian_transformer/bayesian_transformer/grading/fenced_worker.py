"""The child process of pool.py: one JSON request a line on stdin, one JSON reply a line on stdout.

    python -P -m bayesian_transformer.grading.fenced_worker SECONDS MEMORY_MB

What is covered: it limits its own memory, is killed by the kernel if a request outlives its time and its parent is
gone, and refuses to run programs, write files, open sockets or execute text as Python, whatever a library might be
talked into. Answers reach it as data: no text of a model is evaluated anywhere.

What is not covered: files that the user may read can be read, and code in a library's C extension is not watched. It
is a second wall behind a parser that runs no code, not a sandbox for programs.
"""

import json
import logging
import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import Any

from .canonical import canonical
from .latex import ParseError
from .scalars import SYMPY_ERRORS
from .sizes import TooLarge
from .symbolic import equal

OPERATIONS: dict[str, Callable[..., bool | str]] = {"equal": equal, "canonical": canonical}
RECURSION_LIMIT = 5000
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_REFUSED = (
    "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.startfile", "subprocess.", "pty.", "socket.",
    "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.truncate", "os.link", "os.symlink", "os.chmod", "shutil.",
)  # fmt: skip
# Compared before the clock runs and the fence stands: they make the parser build its tables and sympy import the rest.
_WARM_UP = (
    (r"\frac{1}{2}", "0.5"),
    (r"\sqrt{2}", "2"),
    ("x^2+3x=1", "x=y"),
    (r"\int_0^1 x dx", "2"),
    ("x^2<4", "(1,2)"),
)
# These write code of their own, from numbers and names that are theirs.
_CODE_GENERATORS = ("sympy.polys.monomials", "collections", "dataclasses")


def limit(memory_mb: int) -> None:
    """Cap the address space, forbid core dumps and growing files.

    sympy can be asked for numbers that fill any machine. RLIMIT_AS makes that a MemoryError here, before the kernel
    looks for a victim among the user's processes. A core dump of such a process, or a file that it was talked into
    writing, would fill the disk instead.
    """
    for kind, size in ((resource.RLIMIT_AS, memory_mb << 20), (resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, 0)):
        _, hard = resource.getrlimit(kind)
        size = size if hard == resource.RLIM_INFINITY else min(size, hard)
        resource.setrlimit(kind, (size, size))


class Fence:
    """Refuses, for the rest of this process, all that arithmetic has no need of. `refused` names the last try.

    An audit hook, because it sees what Python code does however it was reached, and cannot be taken off again.
    """

    def __init__(self) -> None:
        self.refused: str | None = None
        sys.addaudithook(self._audit)

    def _audit(self, event: str, details: tuple[Any, ...]) -> None:
        writes = event == "open" and bool(details[2] & _WRITING)  # os.open has flags and no mode
        runs_text = event == "exec" and getattr(details[0], "co_filename", "") == "<string>"
        if runs_text:
            runs_text = sys._getframe(1).f_globals.get("__name__") not in _CODE_GENERATORS
        if writes or runs_text or event.startswith(_REFUSED):
            self.refused = event  # a library may swallow the error
            raise PermissionError(f"refused while grading: {event}")


def answer(request: dict[str, Any], fence: Fence) -> dict[str, Any]:
    """The reply to one request: a value, or why there is none."""
    fence.refused = None
    try:
        value = OPERATIONS[request["operation"]](*request["texts"])
    except ParseError:
        return {"undecided": "unreadable"}
    except RecursionError:
        return {"undecided": "too deep"}
    except TooLarge:
        return {"undecided": "too large"}
    except MemoryError:
        return {"undecided": "memory"}
    except PermissionError:
        return {"undecided": "refused"}
    except SYMPY_ERRORS:
        return {"undecided": "not comparable"}
    return {"undecided": "refused"} if fence.refused else {"value": value}


def main() -> None:
    """Serve until stdin ends. A memory error ends the process too, as what it left behind is not to be trusted."""
    seconds, memory_mb = float(sys.argv[1]), int(sys.argv[2])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    logging.disable(logging.CRITICAL)
    sys.setrecursionlimit(RECURSION_LIMIT)
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # nothing but replies may reach the parent
    for pair in _WARM_UP:
        equal(*pair)
    canonical(r"x^2+\sqrt{2}")
    limit(memory_mb)
    fence = Fence()
    replies.write("ready\n")
    replies.flush()
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_REAL, seconds + 2.0)  # unhandled SIGALRM ends the process; the parent is first
        reply = answer(json.loads(line), fence)
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        replies.write(json.dumps(reply) + "\n")
        replies.flush()
        if reply.get("undecided") == "memory":
            return


if __name__ == "__main__":
    main()
