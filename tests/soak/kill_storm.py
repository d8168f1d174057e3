"""Run scripts killed at random moments and started again until all is answered.

    python -m tests.soak kills --kills 1000 --real 20

Claim: afterwards the records are those of an undisturbed run, byte by byte. None is lost, none is there twice, no
temporary file is left, and no lock is in the way. storm_process.py says what stands in for what, and real_kills.py has
the kills with a real engine.
"""

import json
import os
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from random import Random

import click

from run.utils.config import load_model
from tests.helpers.run_scripts import save_model
from tests.soak.real_kills import run_real
from tests.soak.storm_cases import Case, assert_same, random_case, stored
from tests.soak.storm_process import UNDISTURBED, Disturbance, Script, start

MOST_KILLS_OF_A_CASE = 15
EVERY = 10**9  # records, however many are left
OTHER_SIGNALS = {signal.SIGTERM: "sigterm", signal.SIGINT: "sigint"}


@dataclass
class Storm:
    """One case: its folders, how long it takes when nobody disturbs it, and what has happened so far."""

    case: Case
    folder: Path
    rng: Random
    figures: Counter[str]
    seconds: float = 0
    started: int = 0

    def start(self, output: Path, cut: tuple[int, int], how: Disturbance, *options: str) -> Script:
        arguments = self.case.arguments(output, cut, self.rng.randint(1, 8))
        self.started += 1
        return start(self.case.command, [*arguments, *options], self.folder / f"said{self.started}", output, how)

    def undisturbed(self) -> dict[str, bytes]:
        """What the case stores, one part after the other, if nobody disturbs it."""
        begin = time.monotonic()
        self.finish(self.folder / "whole")
        self.seconds = (time.monotonic() - begin) / len(self.case.cuts)
        return stored(self.folder / "whole")

    def finish(self, output: Path) -> None:
        for cut in self.case.cuts:
            script = self.start(output, cut, UNDISTURBED)
            assert script.wait() == 0, script.said.read_text()

    def disturb(self, output: Path, most: int) -> None:
        """Start parts that are not finished and kill them, until `most` kills have hit or no part is left."""
        left, hits = list(self.case.cuts), 0
        while left and hits < most:
            cut = self.rng.choice(left)
            number, status, script = self.attempt(output, cut)
            if status == -signal.SIGKILL:
                hits += 1
                self.figures["kills"] += 1
                self.figures[script.moment()] += 1
                self.figures["torn_lines"] += sum(map(is_torn, output.rglob("batch_results_*")))
                self.figures["kills_that_left_a_temporary_file"] += any(output.rglob(".*.tmp"))
            elif status == 0:
                left.remove(cut)
                self.figures["finished_before_the_kill"] += 1
            else:
                assert number in OTHER_SIGNALS, script.said.read_text()
                assert status == -number or (number, status) == (signal.SIGINT, 1), script.said.read_text()
                self.figures[OTHER_SIGNALS[signal.Signals(number)]] += 1

    def attempt(self, output: Path, cut: tuple[int, int]) -> tuple[int, int, Script]:
        """Start one part and send it a signal: the signal's number, how the script ended, and the script.

        Most kills come from outside, at a time that is drawn, and the others from within, when so many pieces of what
        it writes are written.
        """
        rng, seed = self.rng, self.rng.randrange(2**32)
        if rng.random() < 0.3:
            script = self.start(output, cut, Disturbance(seed, fatal_piece=rng.randint(1, 40)))
            return signal.SIGKILL, script.wait(), script
        number = rng.choice(tuple(OTHER_SIGNALS)) if rng.random() < 0.1 else signal.SIGKILL
        # Where Python raises at an interrupt, its own files know what is written, and ours, in Python, might not.
        script = self.start(output, cut, Disturbance(seed, pieces=number != signal.SIGINT))
        if rng.random() < 0.2:
            time.sleep(rng.uniform(0, self.seconds))
        else:  # not while it prepares, which is most of the time
            wanted = rng.choice((0, rng.randint(1, 5), rng.randint(1, 5), EVERY))
            script.wait_for_records(wanted)
            time.sleep(rng.uniform(0, 0.0005 if wanted == EVERY else 0.005))
        os.kill(script.pid, number)
        return number, script.wait(), script


def is_torn(part: Path) -> bool:
    """Whether a file of greedy results ends in the middle of a line."""
    content = part.read_bytes()
    return bool(content) and not content.endswith(b"\n")


def storms(seed: int | str, figures: Counter[str]) -> Generator[Storm, None, None]:
    """Random cases without end, each in a folder of its own that is removed when the next one is asked for."""
    with tempfile.TemporaryDirectory() as scratch:
        model = save_model(Path(scratch) / "TFB-tiny")
        load_model(str(model))  # imports what the forks then have
        import vllm.v1.engine.exceptions  # noqa: F401  # the same

        for number in count():
            rng = Random(f"{seed}/{number}")
            with tempfile.TemporaryDirectory(dir=scratch) as folder:
                yield Storm(random_case(rng, Path(folder), model), Path(folder), rng, figures)


def run(kills: int, seed: int = 0) -> dict[str, int | float]:
    """Storm over as many cases as `kills` need; AssertionError names the case."""
    figures: Counter[str] = Counter()
    begin = time.monotonic()
    with closing(storms(seed, figures)) as cases:
        while figures["kills"] < kills:
            one_case(next(cases), f"seed {seed}, case {figures['cases']}", kills - figures["kills"])
    return {**dict(sorted(figures.items())), "seconds": round(time.monotonic() - begin, 1)}


def one_case(storm: Storm, about: str, most: int) -> None:
    """Kill and resume one case until it is complete, and compare."""
    wanted = storm.undisturbed()
    assert wanted.keys() == storm.case.ids | {"settings.json"}, about
    output = storm.folder / "killed"
    storm.disturb(output, min(most, storm.rng.randint(1, MOST_KILLS_OF_A_CASE)))
    storm.finish(output)
    assert_same(stored(output), wanted, about)
    storm.figures["cases"] += 1
    storm.figures["records"] += len(storm.case.ids)


@click.command(help=__doc__)
@click.option(
    "--kills", type=click.IntRange(0), default=1000, show_default=True, help="With the engine that stands in."
)
@click.option("--real", type=click.IntRange(0), default=0, show_default=True, help="With a real vLLM engine.")
@click.option("--seed", type=int, default=0, show_default=True)
def command(kills: int, real: int, seed: int) -> None:
    figures = run(kills, seed) if kills else {}
    if real:
        figures |= {f"real_{name}": value for name, value in run_real(real, seed).items()}
    click.echo(json.dumps(figures))
