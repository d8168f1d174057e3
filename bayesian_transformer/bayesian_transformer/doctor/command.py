"""The command `tokur doctor`."""

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import click

from ..command_line import say
from ..files import dumps
from ..printable import printable
from . import screen
from .checks import CHECKS
from .examination import run_checks
from .finding import ERROR
from .process import Result


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, to be pasted into a report.")
@click.option("--skip-engine", is_flag=True, help="Start no vLLM engine: quicker, and proves less.")
def main(as_json: bool, skip_engine: bool) -> None:
    """Say what is installed and whether it works here.

    Each check runs in a process of its own. The exit status is 0 if none found an error; warnings do not count.
    Nothing is downloaded.
    """
    checks = [check for check in CHECKS if not (skip_engine and check.engine)]
    start = time.monotonic()
    if not as_json:
        click.echo(screen.header())
    with _stoppable():
        results = run_checks(checks, _ignore if as_json else _print)
    seconds = time.monotonic() - start
    click.echo(dumps(screen.document(results, seconds)) if as_json else printable(screen.footer(results, seconds)))
    sys.exit(any(result.finding.verdict == ERROR for result in results))


def _print(result: Result) -> None:
    say(screen.line(result))


def _ignore(result: Result) -> None:
    pass


@contextmanager
def _stoppable() -> Iterator[None]:
    """Within the block, signals that end a program do it by way of the blocks that end the checks' processes.

    A signal that is ignored stays so: `nohup` starts programs with SIGHUP ignored.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    ending = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in ending}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
