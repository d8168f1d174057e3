"""Generated answers that try to run code, to hang, to fill the memory or to confuse the grader, from a seed.

    python -m tests.soak answers --answers 1000 --kills 100

Known pairs stand between them, and workers are killed meanwhile: no verdict on a known pair may change.
"""

import json
import os
import random
import resource
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import click

from bayesian_transformer.grading import Grader, Verdict
from bayesian_transformer.grading.extraction import extract_answer

MEMORY_MB = 1024  # of a worker
STARTING = 30.0  # seconds that a worker may take to start on a busy machine, and then the one that replaces it
READING = 10.0  # seconds in which the answer of a text is found
GROWTH_MB = 512  # of this process, which holds a text of a megabyte several times while it reads it
GOLDS = (
    "7",
    r"\sqrt{7}",
    "(1,2)",
    "x^2+1",
    r"\frac13",
    "B",
    r"\{1,2\}",
    "x=3",
    "0<x<3",
    r"\text{even}",
    "12:00",
    "1.5",
)
TEXTS = (
    r"\frac{1}{2}", r"\sqrt{2}", "x^2", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\boxed{", "}", "{", r"\left(", "=",
    r"\right]", r"\text{", r"\sum_{n=1}^{9}", r"\int_0^1 x dx", "####", "The answer is ", "Question: ", r"\infty", "<",
    r"\cup", ",", ";", "(", ")", "[", "]", "^", "_", "&", r"\\", "$", "$$", r"\(", r"\)", "7", "-3.25", "1e9", "12:30",
    "22°30'", "!", "%", "答案是", "故选", "½", "∪", "i", "e", "pi", "exp(", "|", "\n", " ", r"\pm", r"\ne", r"\in",
    r"\mathbb{R}", "mod",
)  # fmt: skip
ATTACKS = (
    "__import__('os').system('touch {canary}')",
    "open('{canary}','w').write('x')",
    "exec(\"open('{canary}','w')\")",
    "eval(compile(\"open('{canary}','w')\",'x','exec'))",
    "(lambda: open('{canary}','w'))()",
    "[open('{canary}','w') for _ in (1,)]",
    "().__class__.__base__.__subclasses__()[0]('{canary}')",
    "Symbol('x').__class__.__init__.__globals__['sys'].modules['os'].system('touch {canary}')",
    "sympify(\"open('{canary}','w')\")",
    "{{open('{canary}','w')}}",
    "${open('{canary}','w')}",
    "$(touch {canary})",
    "`touch {canary}`",
    "; touch {canary} #",
    "| touch {canary}",
    "\n!touch {canary}\n",
    r"\write18{touch {canary}}",
    r"\immediate\write18{touch {canary}}",
    r"\input{|touch {canary}}",
    r"\openout5={canary}",
    r"\directlua{os.execute('touch {canary}')}",
    "<script>fetch('file://{canary}')</script>",
    "!!python/object/apply:os.system ['touch {canary}']",
    "cos\nsystem\n(S'touch {canary}'\ntR.",
    '"}\n{"operation": "equal", "texts": ["7", "7"]}\n',
    '7"]}\n{"value": true}\n',
    "'; import os; os.system('touch {canary}'); '",
    "%(touch {canary})s",
)
Make = Callable[[random.Random], str]


def injection(draw: random.Random) -> str:
    """An attack, bare or where LaTeX takes a name, a text or a number. `{canary}` is left to be filled in."""
    attack = draw.choice(ATTACKS)
    around = ("%s", r"\text{%s}", r"\operatorname{%s}(1)", "x_{%s}", "f(%s)", r"\frac{%s}{2}", "1+%s", r"\mathrm{%s}")
    return draw.choice(around).replace("%s", attack)


def unbalanced(draw: random.Random) -> str:
    """Formulas with brackets left out, doubled or put elsewhere."""
    text = list("".join(draw.choice(TEXTS) for _ in range(draw.randint(2, 12))))
    for _ in range(draw.randint(1, 6)):
        place = draw.randrange(len(text) + 1)
        text[place : place + draw.randint(0, 2)] = draw.choice(["{", "}", "(", ")", "[", "]", "\\", r"\}", "$", ""])
    return "".join(text)


def nesting(draw: random.Random) -> str:
    """One construction in itself, up to what fits into an answer and far beyond."""
    opening, closing = draw.choice(
        (
            (r"\frac{1}{", "}"),
            (r"\sqrt{", "}"),
            ("(", ")"),
            ("{", "}"),
            ("[", "]"),
            ("x^{", "}"),
            (r"\{", r"\}"),
            ("|", "|"),
        )
    )
    depth = draw.choice((5, 20, 60, 150, 300, 900, 5_000, 20_000))
    return opening * depth + "2" + closing * depth


def tower(draw: random.Random) -> str:
    """Numbers without an end: powers of powers, factorials, binomial coefficients, long products and sums."""
    number = str(draw.choice((2, 9, 10, 99, 10**9, 10**12)))
    power = "^{".join([number] * draw.randint(2, 6))
    forms = (
        power + "}" * power.count("{"),
        "^".join([number] * draw.randint(2, 5)),
        number + "!" * draw.randint(1, 4),
        rf"\binom{{{number}}}{{{draw.randint(2, 10**6)}}}",
        rf"\frac{{1}}{{{number}!}}",
        rf"\sum_{{n=1}}^{{{number}}}\frac{{1}}{{n^n}}",
        rf"\prod_{{n=1}}^{{{number}}} n",
        rf"(x+1)^{{{number}}}-(x-1)^{{{number}}}",
        rf"{number}e{draw.randint(1, 10**9)}",
        rf"\Gamma({number})",
        rf"\sin({number}^{{{number}}})",
        rf"-{number}^{{-{number}}}",
    )
    return draw.choice(forms)


def matrix(draw: random.Random) -> str:
    """Matrices of up to a megabyte, and those that only a command makes large."""
    rows, columns = draw.choice(((1, 400), (20, 20), (30, 1), (300, 300), (3, 3)))
    body = r"\\".join("&".join(str(draw.randint(-9, 9)) for _ in range(columns)) for _ in range(rows))
    size = draw.choice((10, 1_000, 100_000))
    name = draw.choice(("pmatrix", "bmatrix", "vmatrix", "array"))
    return draw.choice(
        (
            rf"\begin{{{name}}}{body}\end{{{name}}}",
            rf"\operatorname{{zeros}}({size},{size})",
            rf"\operatorname{{eye}}({size})",
            rf"\begin{{{name}}}{body}",
            rf"\det\begin{{{name}}}{body}\end{{{name}}}^{{{size}}}",
        )
    )


def characters(draw: random.Random) -> str:
    """Control characters, overrides of the direction, marks, half surrogate pairs, digits of other scripts."""
    odd = "\x00\x07\x08\x1b\x7f\x85\x9b\u200b\u200f\u202e\u2028\u2066\ufeff\ufffd\u0301\ud800\udfff\U000e0041٣１𝟏½"
    return "".join(draw.choice(odd + "7+{}\\$ ") for _ in range(draw.choice((1, 5, 50, 2_000))))


def megabyte(draw: random.Random) -> str:
    """A piece a million characters long, in a box or without one."""
    piece = draw.choice(
        (*TEXTS, "\\boxed{7} ", "answer is ", "9", "a", "\x00", "Question: 7 #### 7 ", "{:} ", "0.33...")
    )
    return piece * (1_000_000 // len(piece))


def mix(draw: random.Random) -> str:
    """Pieces of answers in a random order."""
    return "".join(draw.choice(TEXTS) for _ in range(draw.randint(1, 60)))


FAMILIES: dict[str, Make] = {
    make.__name__: make for make in (injection, unbalanced, nesting, tower, matrix, characters, megabyte, mix)
}
# Answers whose verdict is known, compared by a worker; each is made anew with another number.
KNOWN: tuple[tuple[str, str, Verdict], ...] = (
    (r"\sqrt{%d}+x", r"x+\sqrt{%d}", Verdict.RIGHT),
    (r"\sqrt{%d}+2x", r"x+\sqrt{%d}", Verdict.WRONG),
    (r"(x+%d)^2", r"x^2+%d\cdot 2x+%d^2", Verdict.RIGHT),
    (r"\frac{\pi}{%d}", r"\frac{\pi}{%d+1}", Verdict.WRONG),
)


class Watch(threading.Thread):
    """Kills workers at random moments, at most `kills`, and keeps the most memory that one has had."""

    def __init__(self, grader: Grader, kills: int, seed: int) -> None:
        super().__init__(daemon=True)
        self.grader, self.kills, self.draw = grader, kills, random.Random(seed)
        self.killed = 0
        self.peak_mb = 0.0
        self.over = threading.Event()

    def run(self) -> None:
        next_kill = time.monotonic() + self.draw.uniform(0.5, 3.0)
        while not self.over.wait(0.02):
            pids = self.grader.pool.pids
            self.peak_mb = max([self.peak_mb, *map(_peak_mb, pids)])
            if pids and self.killed < self.kills and time.monotonic() >= next_kill:
                os.kill(self.draw.choice(pids), signal.SIGKILL)
                self.killed += 1
                # Longer than a worker takes to start, so that a request is not taken down a second time.
                next_kill = time.monotonic() + self.draw.uniform(2.0, 6.0)


def _peak_mb(pid: int) -> float:
    """The most memory that a process has had so far; 0 if it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    lines = [line.split() for line in status.splitlines() if line.startswith("VmHWM")]
    return int(lines[0][1]) / 1024 if lines else 0.0


def run(answers: int = 1000, seed: int = 0, kills: int = 100, seconds: float = 2.0) -> dict[str, int | float]:
    """The figures of a campaign; AssertionError, with the seed and the case, where a claim does not hold.

    A comparison has `seconds`; of each text two are made, and its canonical text.
    """
    draw = random.Random(seed)
    counts = Counter({verdict.value: 0 for verdict in Verdict})
    slowest = 0.0
    before_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    undecided = set()
    with tempfile.TemporaryDirectory() as folder, Grader(workers=2, seconds=seconds, memory_mb=MEMORY_MB) as grader:
        canary = Path(folder) / "canary"
        watch = Watch(grader, kills, seed)
        watch.start()
        try:
            for index in range(answers):
                family = list(FAMILIES)[index % len(FAMILIES)]
                text = FAMILIES[family](draw).replace("{canary}", str(canary))
                case = f"seed {seed}, answer {index}, {family}: {text[:200]!r}"
                began = time.monotonic()
                pairs = _pairs(text, draw)
                verdicts = grader.grade(pairs)
                grader.canonical([pairs[0][0]])
                took = time.monotonic() - began
                slowest = max(slowest, took)
                assert took < 8 * seconds + 2 * STARTING + READING, f"{took:.0f} s: {case}"
                assert not canary.exists(), f"executed: {case}"
                assert family != "injection" or Verdict.RIGHT not in verdicts[:1], f"right: {case}"
                undecided |= {pair for pair, verdict in zip(pairs, verdicts, strict=True) if verdict == "undecided"}
                counts.update(verdict.value for verdict in verdicts)
                _check_known(grader, index, case)
        finally:
            watch.over.set()
            watch.join()
    growth_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before_mb
    assert growth_mb < GROWTH_MB, f"seed {seed}: this process grew by {growth_mb:.0f} MB"
    assert watch.peak_mb <= MEMORY_MB, f"seed {seed}: a worker had {watch.peak_mb:.0f} MB"
    answered = {(extract_answer(response), gold) for response, gold in undecided}
    reasons = {f"undecided_{reason.replace(' ', '_')}": count for reason, count in sorted(grader.undecided.items())}
    assert len(answered) <= sum(reasons.values()) <= len(undecided), f"seed {seed}: {reasons}, {len(answered)} pairs"
    figures = {"answers": answers, **counts, **reasons, "executed": 0, "killed_workers": watch.killed}
    return {**figures, "slowest_s": round(slowest, 2), "worker_mb": round(watch.peak_mb), "own_mb": round(growth_mb)}


def _pairs(text: str, draw: random.Random) -> list[tuple[str, str]]:
    """The hostile text as an answer, in one of the ways to give one, and as a gold answer."""
    ways = ("%s", r"\boxed{%s}", "The final answer is %s.", "#### %s", "答案是%s。", r"\boxed{5} **Answer: %s**")
    gold = draw.choice(GOLDS)
    return [(draw.choice(ways).replace("%s", text), gold), (rf"\boxed{{{draw.choice(GOLDS)}}}", text)]


def _check_known(grader: Grader, index: int, case: str) -> None:
    answer, gold, expected = KNOWN[index % len(KNOWN)]
    number = str(100 + index)
    pair = rf"\boxed{{{answer.replace('%d', number)}}}", gold.replace("%d", number)
    assert grader.grade([pair]) == [expected], f"{pair} is not {expected} after {case}"


@click.command()
@click.option("--answers", default=1000, show_default=True, type=click.IntRange(1))
@click.option("--kills", default=100, show_default=True, type=click.IntRange(0), help="Workers to kill, at most.")
@click.option("--seed", default=0, show_default=True)
def command(answers: int, kills: int, seed: int) -> None:
    """Hostile answers: none is executed, time and memory are bounded, killed workers cost nothing."""
    began = time.monotonic()
    figures = run(answers, seed, kills)
    click.echo(json.dumps({**figures, "seconds": round(time.monotonic() - began, 1)}))
