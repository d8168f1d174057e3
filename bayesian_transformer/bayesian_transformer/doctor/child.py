"""The process of one check: `python -m bayesian_transformer.doctor.child MODULE:FUNCTION DESCRIPTOR SECONDS`.

Whatever goes wrong in here, a crash included, is the result of this check alone.
"""

import faulthandler
import importlib
import os
import resource
import signal
import sys
import threading
import traceback

from .finding import Finding, error
from .protocol import one_line, open_pipe, send

_AFTER_DEADLINE = 10  # seconds; the doctor kills at the deadline, unless it was killed itself


def main() -> None:
    function, descriptor, seconds = sys.argv[1:]
    open_pipe(int(descriptor))
    _end_all_after(float(seconds) + _AFTER_DEADLINE)
    faulthandler.enable()  # says where a crash happened
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash leaves no file behind
    send(_run(function))


def _end_all_after(seconds: float) -> None:
    """End this process and all that it started, in case the doctor is no longer there to do so.

    A thread does it, as a handler of Python waits for the main thread, which may hang in a driver. The alarm is for a
    library that hangs with the interpreter's lock held; it ends this process alone.
    """
    timer = threading.Timer(seconds, _end_group)
    timer.daemon = True
    timer.start()
    signal.alarm(int(seconds) + _AFTER_DEADLINE)


def _end_group() -> None:
    if os.getpgrp() == os.getpid():  # the group is ours: nobody started this process by hand
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def _run(function: str) -> Finding:
    module, _, name = function.partition(":")
    try:
        finding = getattr(importlib.import_module(module), name)()
    except Exception as problem:  # noqa: BLE001 whatever it is, it is the result
        traceback.print_exc()
        return error(f"{type(problem).__name__}: {one_line(str(problem))}")
    if not isinstance(finding, Finding):
        return error(f"{function} gave a {type(finding).__name__} instead of a finding")
    return finding


if __name__ == "__main__":
    main()
