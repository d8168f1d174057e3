"""Responses that try to run code, to hang, to fill the memory or to kill the grader; workers killed from outside."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bayesian_transformer.grading import Grader, Verdict
from bayesian_transformer.grading.extraction import extract_answer
from bayesian_transformer.grading.pool import Undecided, WorkerPool

ROOT = Path(__file__).resolve().parents[2]
MEGABYTE = 1_000_000


def boxed(answer: str) -> str:
    return f"\\boxed{{{answer}}}"


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader(workers=2, seconds=0.7) as grader:
        yield grader


def harmless(grader: Grader) -> bool:
    """Whether the grader still does its work, with a comparison that it has not made before."""
    harmless.calls = getattr(harmless, "calls", 1) + 1  # type: ignore[attr-defined]
    count = harmless.calls  # type: ignore[attr-defined]
    return grader.grade([(boxed(f"\\sqrt{{{2 * count**2}}}"), f"{count}\\sqrt{{2}}")]) == [Verdict.RIGHT]


INJECTIONS = [
    "__import__('os').system('touch {marker}')",
    r"\text{{__import__('os').system('touch {marker}')}}",
    r"\operatorname{{__import__}}('os').system('touch {marker}')",
    "x_{{__import__('os').system('touch {marker}')}}",
    "eval(\"open('{marker}','w')\")",
    "exec(\"import pathlib; pathlib.Path('{marker}').touch()\")",
    "(lambda: open('{marker}', 'w'))()",
    "Symbol('x').__class__.__init__.__globals__['sys'].modules['os'].system('touch {marker}')",
    r"\input{{|\"touch {marker}\"}}",
    r"\write18{{touch {marker}}}",
    r"\immediate\openout\file={marker}",
    "$(touch {marker})",
    "`touch {marker}`",
    "; touch {marker} #",
    "\n!touch {marker}\n",
    '{{"operation": "equal", "texts": ["5", "5"]}}',
    '5"]}}\n{{"value": true}}\n',
    "cos\nsystem\n(S'touch {marker}'\ntR.",
    "!!python/object/apply:os.system ['touch {marker}']",
]


@pytest.mark.parametrize("injection", INJECTIONS)
def test_nothing_in_a_response_runs(grader: Grader, tmp_path: Path, injection: str) -> None:
    marker = tmp_path / "marker"
    text = injection.format(marker=marker)
    pairs = [(response, r"\sqrt{7}") for response in (text, boxed(text), f"The final answer is {text}", f"#### {text}")]
    assert Verdict.RIGHT not in grader.grade(pairs)
    grader.grade([(boxed("5"), text), (boxed(r"\sqrt{5}"), text)])  # nor in a gold answer
    grader.canonical([response for response, _ in pairs])
    assert not marker.exists()
    assert harmless(grader)


BOMBS = {
    "power tower": "9^9^9^9",
    "power tower in braces": "9^{9^{9^9}}",
    "factorials": "100!!!",
    "factorial of a power": "(10^{10})!",
    "huge exponent": "10^(10^10)",
    "huge exponent in braces": "10^{10^{10}}",
    "tiny number": "10^{-10^{10}}",
    "exponent notation": "1e999999999",
    "scientific notation": r"1 \times 10^{999999999}",
    "binomial": r"\binom{10^9}{5\cdot10^8}",
    "sum": r"\sum_{n=1}^{10^9}\frac{1}{n^n}",
    "product": r"\prod_{n=1}^{10^9} n",
    "integral": r"\int_0^1 x^{x^{x}} dx",
    "polynomial": "(x+1)^{100000}-(x-1)^{100000}",
    "matrix of zeros": r"\operatorname{zeros}(100000,100000)",
    "deep fractions": r"\frac{1}{" * 100 + "2" + "}" * 100,
    "deeper fractions": r"\frac{1}{" * 10_000 + "2" + "}" * 10_000,
    "deep roots": r"\sqrt{" * 200 + "2" + "}" * 200,
    "deep parentheses": "(" * 900 + "2" + ")" * 900,
    "nested braces": "{" * 100_000 + "5" + "}" * 100_000,
    "long number": "1" * 1500,
    "long decimal": "1." + "3" * 1500,
    "long product": "x" * 1900,
    "wide matrix": r"\begin{pmatrix}" + "1&" * 900 + r"1\end{pmatrix}",
    "division by zero": r"\frac{1}{0}",
    "zero by zero": r"\frac{0}{0}",
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS.keys())
def test_no_response_hangs_or_kills_the_run(grader: Grader, bomb: str) -> None:
    start = time.monotonic()
    verdict = grader.grade([(boxed(bomb), r"\sqrt{7}")])[0]
    assert verdict in (Verdict.WRONG, Verdict.UNDECIDED)
    assert grader.canonical([boxed(bomb)])[0]
    assert time.monotonic() - start < 30
    assert harmless(grader)


ODD = {
    "empty": "",
    "none": None,
    "spaces": " " * MEGABYTE,
    "letters": "a" * MEGABYTE,
    "digits": "1" * MEGABYTE,
    "null bytes": "\x00" * MEGABYTE,
    "null byte in the box": "\\boxed{\x00}",
    "backslashes": "\\" * MEGABYTE,
    "dollars": "$" * MEGABYTE,
    "open boxes": "\\boxed{" * (MEGABYTE // 7),
    "box of a megabyte": boxed("7" * MEGABYTE),
    "box before spaces": "\\boxed" + " " * MEGABYTE,
    "braces in a box": "\\boxed{" + "{" * 100_000 + "}" * 99_999,
    "answer before spaces": "answer" + " " * MEGABYTE,
    "many answers": "answer is " * (MEGABYTE // 10),
    "many hashes": "#### " * (MEGABYTE // 5),
    "commas": "1," * (MEGABYTE // 2) + "2",
    "fractions": "\\frac{1}{" * (MEGABYTE // 9),
    "lone surrogate": "\\boxed{\ud800}",
    "right to left": "\\boxed{\u202e5}",
    "combining marks": "\\boxed{" + "\u0301" * 1000 + "}",
    "circled digits": "\\boxed{①②}",
    "closing brace": "}",
    "unbalanced": "\\boxed{\\frac{1}{2}",
    "unbalanced left": r"\boxed{\left( 1, 2}",
    "unbalanced environment": r"\boxed{\begin{pmatrix} 1 & 2}",
    "unknown commands": r"\boxed{\foo\bar{1}{2}}",
}


@pytest.mark.parametrize("response", ODD.values(), ids=ODD.keys())
def test_no_text_is_too_odd(grader: Grader, response: str | None) -> None:
    start = time.monotonic()
    assert grader.grade([(response, r"7\sqrt{7}"), (boxed("7"), response or "")]).count(Verdict.RIGHT) == 0
    grader.canonical([response])
    assert time.monotonic() - start < 15
    assert harmless(grader)


def test_unicode_digits_are_digits(grader: Grader) -> None:
    texts = ["１２", "١٢", "१२", "𝟏𝟐"]
    assert grader.grade([(boxed(text), "12") for text in texts]) == [Verdict.RIGHT] * 4
    assert grader.canonical([boxed(text) for text in texts]) == ["12"] * 4


def test_undecided_are_counted_with_their_reason() -> None:
    with Grader(workers=1, seconds=0.5) as grader:
        assert grader.grade([(boxed(BOMBS["sum"]), "7")] * 3) == [Verdict.UNDECIDED] * 3
        assert grader.grade([(boxed("(1, 9^{9^{9^9}})"), "(1,7)")] * 3) == [Verdict.UNDECIDED] * 3
        assert grader.grade([(boxed("1" * 3000), "7"), (boxed("7"), r"\frac{1}{"), (boxed("7"), "")]) == (
            [Verdict.UNDECIDED] * 3
        )
        assert grader.undecided == {
            "timeout": 1,
            "too large": 1,
            "too long": 1,
            "unreadable": 1,
            "no gold answer": 1,
        }


def test_memory_is_limited() -> None:
    """A matrix of 10^10 zeros needs 80 GB: refused by the limit, and the pool goes on."""
    pool = WorkerPool(count=1, seconds=20.0, memory_mb=1024)
    requests = [{"operation": "equal", "texts": [r"\operatorname{zeros}(100000,100000)", "5"]}]
    requests.append({"operation": "equal", "texts": [r"\sqrt{8}", r"2\sqrt{2}"]})
    results = pool.run(requests)
    pool.close()
    assert results == [Undecided("memory"), True]


def kill_busy_workers(pool: WorkerPool, kills: int, killed: list[int], stop: threading.Event) -> None:
    """SIGKILL workers in the middle of a request, until `kills` are dead."""
    while len(killed) < kills and not stop.is_set():
        busy = [worker.process.pid for worker in pool._workers if worker.request is not None]
        for pid in busy[:1]:
            if pid not in killed:
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
        stop.wait(0.2)


def test_a_killed_worker_costs_no_verdict() -> None:
    pairs = [(boxed(f"(x+{n})^2(x-1)"), f"x^3+{2 * n - 1}x^2+{n * n - 2 * n}x-{n * n}") for n in range(2, 62)]
    pairs += [(boxed(f"\\frac{{\\sin(2x)}}{{{n}\\cos x}}"), f"\\frac{{2\\sin x}}{{{n}}}") for n in range(3, 23)]
    killed: list[int] = []
    stop = threading.Event()
    with Grader(workers=2, seconds=20.0) as grader:
        killer = threading.Thread(target=kill_busy_workers, args=(grader.pool, 2, killed, stop))
        killer.start()
        try:
            verdicts = grader.grade(pairs)
        finally:
            stop.set()
            killer.join()
        assert not set(killed) & set(grader.pool.pids)
    assert killed, "the batch was over before a worker could be killed"
    assert verdicts == [Verdict.RIGHT] * len(pairs)


def test_a_worker_killed_while_idle_is_replaced() -> None:
    with Grader(workers=1) as grader:
        assert harmless(grader)
        (pid,) = grader.pool.pids
        os.kill(pid, signal.SIGKILL)
        assert harmless(grader)
        assert grader.pool.pids != [pid]


def test_no_worker_outlives_the_grader() -> None:
    with Grader(workers=2) as grader:
        assert harmless(grader)
        pids = grader.pool.pids
        assert pids
    assert not any(alive(pid) for pid in pids)


def test_no_worker_outlives_a_killed_script(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import threading\n"
        "from bayesian_transformer.grading.pool import WorkerPool\n"
        "pool = WorkerPool(count=1, seconds=1.0, memory_mb=1024)\n"
        "pool.run([{'operation': 'equal', 'texts': ['5', '5']}])\n"
        "print(*pool.pids, flush=True)\n"
        "threading.Event().wait()\n"
    )
    process = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True, env=environment())
    assert process.stdout is not None
    pids = [int(pid) for pid in process.stdout.readline().split()]
    assert len(pids) == 1
    process.kill()
    process.wait()
    process.stdout.close()
    end = time.monotonic() + 10
    while any(alive(pid) for pid in pids) and time.monotonic() < end:
        time.sleep(0.1)
    assert not any(alive(pid) for pid in pids)


def test_extraction_is_linear() -> None:
    """2 MB of the worst pieces take a second; a quadratic rule would take hours."""
    pieces = ["\\boxed{", "answer ", "1,", "\\frac{1}{", "#### ", "{", "$", "answer is ", "option (A) ", "\\a\\b1"]
    pieces += ["Question: ", "#### 1 Question: 1\n\n", "\\boxed{1}, ", "\\boxed ", "答案是1。", "故选", "\\boxed{{1}"]
    for piece in pieces:
        start = time.monotonic()
        extract_answer(piece * (2 * MEGABYTE // len(piece)))
        assert time.monotonic() - start < 10, piece


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT)}


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie that nobody has waited for does not."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
