"""Run scripts whose disk is full or read-only, and several at once in one folder.

    python -m tests.soak disks --rounds 20

Claim: such a run ends with a status that is not 0 and one line that names the file. When the cause is gone, the same
command completes it, and the records are those of an undisturbed run, byte by byte.

The disks are small file systems in memory. Mounting them takes root; without it they are left out, and the limit
RLIMIT_FSIZE and a path below a file, which need nobody's leave, remain.
"""

import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import click

from tests.soak.kill_storm import Storm, storms
from tests.soak.storm_cases import GREEDY, assert_same, stored
from tests.soak.storm_process import UNDISTURBED, Disturbance, Script


def mount(*arguments: str) -> bool:
    """Call mount, and say whether it could."""
    return subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode == 0


@contextmanager
def small_disk(folder: Path, options: str = "size=10m") -> Iterator[bool]:
    """A file system of its own in `folder`; False if it cannot be mounted here."""
    folder.mkdir()
    mounted = mount("-t", "tmpfs", "-o", options, "tmpfs", str(folder))
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


def refused(script: Script, output: Path) -> bool:
    """Whether the script met an obstacle; AssertionError unless it then said so in one line that names a file."""
    status = script.wait()
    if status:
        error = script.error()
        assert status in (1, 2), error  # an error and a wrong option
        assert str(output) in error, f"the line does not name the file: {error}"
    return status != 0


@contextmanager
def file_size_limit(storm: Storm, output: Path) -> Iterator[int]:
    """No file may grow beyond some size, smaller than the largest one."""
    limit = storm.rng.randrange(max(path.stat().st_size for path in (storm.folder / "whole").rglob("*.json*")))
    scripts = (storm.start(output, cut, Disturbance(largest_file=limit)) for cut in storm.case.cuts)
    yield sum([refused(script, output) for script in scripts])


@contextmanager
def full_disk(storm: Storm, output: Path) -> Iterator[int]:
    """The disk has room for a part of the results, or for some files only; then it gets more."""
    few_files = f"size=10m,nr_inodes={storm.rng.randint(3, 14)}"
    few_pages = f"size={4 * storm.rng.randint(1, 12)}k"
    with small_disk(output, storm.rng.choice((few_files, few_pages))) as mounted:
        cuts = storm.case.cuts if mounted else ()
        met = sum([refused(storm.start(output, cut, Disturbance()), output) for cut in cuts])
        assert not mounted or mount("-o", "remount,size=100m,nr_inodes=10000", str(output))
        storm.figures["disks_mounted"] += mounted
        yield met


@contextmanager
def read_only_disk(storm: Storm, output: Path) -> Iterator[int]:
    """The disk is read-only at first, and once more after some of the results are written."""
    with small_disk(output) as mounted:
        met = 0
        for _ in range(2 if mounted else 0):
            assert mount("-o", "remount,ro", str(output))
            met += sum([refused(storm.start(output, cut, UNDISTURBED), output) for cut in storm.case.cuts])
            assert mount("-o", "remount,rw", str(output))
            storm.disturb(output, 1)
        assert met == 2 * mounted * len(storm.case.cuts)
        storm.figures["disks_mounted"] += mounted
        yield met


@contextmanager
def file_in_the_way(storm: Storm, output: Path) -> Iterator[int]:
    """A file lies where the folder of the results should be, or a folder above it."""
    output.write_text("in the way")
    places = (output, output / "below")
    met = sum([refused(storm.start(place, storm.case.cuts[0], UNDISTURBED), output) for place in places])
    assert met == len(places)
    output.unlink()
    yield met


@contextmanager
def second_writer(storm: Storm, output: Path) -> Iterator[int]:
    """While one run writes, the same one is started again, and one with other settings. Then the first goes on or dies.

    A second writer of the same file of greedy answers is refused. Sampled answers have a file each, which both write
    with the same content.
    """
    cut, met = storm.case.cuts[0], 0
    first = storm.start(output, cut, Disturbance(storm.rng.randrange(2**32)))
    first.wait_for_records(storm.rng.randint(0, 2))
    if first.stop():
        same = refused(storm.start(output, cut, UNDISTURBED), output)
        other = refused(storm.start(output, cut, UNDISTURBED, "--num-samples", "2"), output)
        assert same == (storm.case.command is GREEDY)
        assert other
        met = same + other
    os.kill(first.pid, storm.rng.choice((signal.SIGKILL, signal.SIGCONT)))
    assert first.wait() in (0, -signal.SIGKILL), first.said.read_text()
    yield met


@contextmanager
def crowd(storm: Storm, output: Path) -> Iterator[int]:
    """Several runs of the same and of other parts at once, of which some are killed, and some refuse each other."""
    scripts = []
    for _ in range(storm.rng.randint(2, 5)):
        cut = storm.rng.choice(storm.case.cuts)
        scripts.append(storm.start(output, cut, Disturbance(storm.rng.randrange(2**32))))
        time.sleep(storm.rng.uniform(0, 0.02))
    for script in storm.rng.sample(scripts, storm.rng.randint(0, 2)):
        os.kill(script.pid, signal.SIGKILL)
    met = 0
    for script in scripts:
        if (status := script.wait()) not in (0, -signal.SIGKILL):
            assert "another process is writing it" in script.error(), status
            met += 1
    yield met


OBSTACLES: dict[str, Callable[[Storm, Path], AbstractContextManager[int]]] = {
    one.__name__: one for one in (file_size_limit, full_disk, read_only_disk, file_in_the_way, second_writer, crowd)
}


def run(rounds: int, seed: int = 0, only: tuple[str, ...] = ()) -> dict[str, int | float]:
    """So many rounds of each obstacle, or of those named; counts the runs that each has refused."""
    figures: Counter[str] = Counter()
    begin = time.monotonic()
    with closing(storms(f"disks {seed}", figures)) as cases:
        for number, storm in zip(range(rounds), cases, strict=False):
            wanted = storm.undisturbed()
            for name in only or OBSTACLES:
                output, about = storm.folder / name, f"seed {seed}, round {number}, {name}"
                with OBSTACLES[name](storm, output) as met:
                    storm.finish(output)
                    assert_same(stored(output, doubles=name == "crowd"), wanted, about)
                figures[name] += met
            figures["rounds"] += 1
    return {**dict(sorted(figures.items())), "seconds": round(time.monotonic() - begin, 1)}


@click.command(help=__doc__)
@click.option("--rounds", type=click.IntRange(1), default=50, show_default=True, help="Of each obstacle.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--only", multiple=True, type=click.Choice(list(OBSTACLES)), help="These obstacles instead of all.")
def command(rounds: int, seed: int, only: tuple[str, ...]) -> None:
    click.echo(json.dumps(run(rounds, seed, only)))
