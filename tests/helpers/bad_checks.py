"""Checks that go wrong in every way, run by the tests of the doctor in processes of their own."""

import atexit
import ctypes
import os
import signal
import subprocess
import sys
import time
from typing import Any

from bayesian_transformer.doctor.finding import Finding, ok
from bayesian_transformer.doctor.protocol import doing


def well() -> Finding:
    return ok("all is well")


def segfault() -> Finding:
    doing("reading address 0")
    ctypes.string_at(0)
    return ok("never said")


def abort() -> Finding:
    os.abort()


def out_of_memory() -> Finding:
    os.kill(os.getpid(), signal.SIGKILL)
    return ok("never said")


def exit_early() -> Finding:
    sys.exit(3)


def hang() -> Finding:
    """Hangs with a child that hangs too; PIDS names the file for the numbers of both."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    with open(os.environ["PIDS"], "w") as file:  # noqa: PTH123
        file.write(f"{os.getpid()} {child.pid}\n")
    doing("waiting")
    time.sleep(600)
    return ok("never said")


def leaves_a_child() -> Finding:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    with open(os.environ["PIDS"], "w") as file:  # noqa: PTH123
        file.write(f"{child.pid}\n")
    return ok("done")


def garbage() -> Finding:
    """Fills its output and its pipe with what is no finding."""
    pipe = int(sys.argv[2])
    for line in (b"\xff\x00 no JSON\n", b"17\n", b'{"finding": 5}\n', b'{"finding": {"verdict": "fine"}}\n', b'{"fin'):
        os.write(pipe, line)
    for _ in range(20_000):
        print("x" * 100, "\N{SNOWMAN}")  # noqa: T201
    sys.stdout.buffer.write(b"\xff\xfe\n" * 1000)
    os._exit(0)


def noisy_but_well() -> Finding:
    os.write(int(sys.argv[2]), b"\xff\n[1]\nnull\n")
    return ok("well, between other lines")


def raises() -> Finding:
    doing("raising")
    raise RuntimeError("two\nlines, and a \N{SNOWMAN}")


def does_not_import() -> Finding:
    import no_such_module  # type: ignore[import-not-found]  # noqa: F401

    return ok("never said")


def crashes_at_its_end() -> Finding:
    """As a library may while the interpreter goes down, after the finding was sent."""
    atexit.register(os.abort)
    return ok("well at first")


def no_finding() -> Any:
    return "all is well"


def too_much() -> Finding:
    return ok("x " * 100_000, numbers=list(range(100_000)))


def wrong_kernel() -> Finding:
    """A kernel whose epistemic part is 1 % too large."""
    from bayesian_transformer.doctor.comparisons.differences import Differences
    from bayesian_transformer.doctor.comparisons.kernels import compare_statistics
    from bayesian_transformer.uncertainty import TokenUncertainty, token_uncertainty

    def kernel(logits: Any, token_ids: Any) -> TokenUncertainty:
        result = token_uncertainty(logits, token_ids)
        return TokenUncertainty(**{**vars(result), "epistemic": 1.01 * result.epistemic})

    differences = Differences()
    compare_statistics(differences, kernel, "cpu")
    return differences.finding("statistics")
