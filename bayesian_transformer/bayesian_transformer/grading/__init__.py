"""Is the answer in a response right? Two verbs, `extract` and `grade`; `Grader` for many answers at once.

    from bayesian_transformer.grading import extract, grade
    extract(r"So we get \\boxed{\\frac{1}{2}}.")       # '\\\\frac{1}{2}'
    grade(r"So we get \\boxed{\\frac{1}{2}}.", "0.5")  # Verdict.RIGHT

Install it with the extra [grading]. Importing it takes neither torch nor transformers, nor sympy, which the worker
processes import. Reading order:

- which part of a text is the answer: extraction.py, run_on.py, boxes.py; chinese.py serves this and the next step;
- what an answer says, as text: normal_form.py with notation.py and sexagesimal.py, words.py, qualifiers.py;
- the verdict: grader.py, tolerance.py;
- processes under limits: pool.py, fenced_worker.py;
- sympy, in these: latex.py, sizes.py, scalars.py, named_values.py, symbolic.py, canonical.py.

No text of a response is evaluated, see fenced_worker.py.
"""

import atexit
import functools
import os
import threading

from .extraction import extract_answer as extract
from .grader import Grader, Verdict
from .pool import Undecided

__all__ = ["Grader", "Undecided", "Verdict", "extract", "grade"]

_lock = threading.Lock()  # a pool serves one thread at a time


def grade(response: str | None, gold: str) -> Verdict:
    """The verdict on one response, against the gold answer; what counts as equal is said in grader.py.

    One worker process is started at the first comparison that needs it and kept until the program ends. Safe to call
    from several threads, which then wait for each other, and in forked processes, each of which gets a worker.
    """
    with _lock:
        return _shared_grader().grade([(response, gold)])[0]


@functools.cache
def _shared_grader() -> Grader:
    grader = Grader(workers=1)
    atexit.register(grader.close)
    return grader


def _renew_lock() -> None:
    """In a forked process, where a thread that does not exist there may hold it."""
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)
