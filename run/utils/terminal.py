"""What a run shows on the terminal while vLLM writes elsewhere: a progress bar and the run's own lines.

vLLM logs from up to three processes, and libraries below it write to the file descriptors 1 and 2 without asking
Python. So the descriptors themselves are pointed at the log file; processes that are started meanwhile inherit them.
"""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

from bayesian_transformer.printable import printable

WIDTH = 100  # columns of a progress bar, at most
LINE_SECONDS = 60  # between two lines in a file


@contextmanager
def output_to(log_file: Path | None) -> Iterator[TextIO]:
    """Append what this process and its children write to `log_file`, None for no change; yields the terminal.

    OSError if the file cannot be written. The terminal is what standard error was. Where sys.stderr has been replaced
    by a stream of its own, as a test does, it is that one.
    """
    if log_file is None:
        yield sys.stderr
        return
    log_file.parent.mkdir(parents=True, exist_ok=True)
    with log_file.open("ab") as log, _standard_error() as terminal:
        sys.stdout.flush()
        sys.stderr.flush()
        saved = {number: os.dup(number) for number in (1, 2)}
        try:
            for number in saved:
                os.dup2(log.fileno(), number)
            yield terminal
        finally:
            sys.stdout.flush()  # what Python still holds is the engine's
            sys.stderr.flush()
            for number, descriptor in saved.items():
                os.dup2(descriptor, number)
                os.close(descriptor)


@contextmanager
def _standard_error() -> Iterator[TextIO]:
    """A stream to where standard error leads now, wherever descriptor 2 will."""
    try:
        replaced = sys.stderr.fileno() != 2
    except OSError:  # it has no descriptor
        replaced = True
    if replaced:
        yield sys.stderr
    else:
        with os.fdopen(os.dup(2), "w", buffering=1, encoding=sys.stderr.encoding, errors="backslashreplace") as stream:
            yield stream


class Progress:
    """How many of the problems are answered: a bar on a terminal, and in a file a line a minute."""

    def __init__(self, name: str, total: int, done: int, terminal: TextIO) -> None:
        """`done` of the `total` problems need no work. Says that vLLM starts, until `begin`."""
        self.name, self.total, self.done, self.file = printable(name), total, done, terminal
        self._next_line = time.monotonic() + LINE_SECONDS
        columns = min(os.get_terminal_size(terminal.fileno()).columns or WIDTH, WIDTH) if terminal.isatty() else WIDTH
        self._bar = tqdm(
            total=total, initial=done, desc=self.name, unit="problem", file=terminal, ncols=columns, disable=None
        )
        self._bar.set_postfix_str("starting vLLM")

    def begin(self) -> None:
        """Count time from here."""
        self._bar.set_postfix_str("", refresh=False)
        self._bar.unpause()

    def update(self) -> None:
        """One more problem is answered, or has failed."""
        self.done += 1
        self._bar.update()
        if self._bar.disable and time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + LINE_SECONDS
            print(f"{self.name}: {self.done} of {self.total} problems", file=self.file, flush=True)

    def close(self) -> None:
        self._bar.close()
