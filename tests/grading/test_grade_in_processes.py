"""`grade` in forked processes, which is how reward functions and `datasets.map(num_proc=...)` use it."""

import os

from bayesian_transformer.grading import Verdict, grade


def wrong_verdicts(first: int) -> int:
    """How many of 20 answers that a worker must compare get another verdict than they should."""
    count = 0
    for i in range(first, first + 20):
        expected = Verdict.WRONG if i % 2 else Verdict.RIGHT
        count += grade(rf"\boxed{{\sqrt{{{i}}} + x^2}}", rf"x^2 + \sqrt{{{i + i % 2}}}") is not expected
    return count


def test_a_forked_process_has_a_worker_of_its_own() -> None:
    """Parent and children at the same time, each with other answers."""
    assert wrong_verdicts(100) == 0  # the parent's worker runs
    children = []
    for number in (1, 2):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                status = 0 if wrong_verdicts(100 + 100 * number) == 0 else 2
            finally:
                os._exit(status)
        children.append(pid)
    assert wrong_verdicts(500) == 0
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0, 0]
