"""A small part of the kill storm and of the bad disks; docs/reliability.md says how to run all of it.

Each runs in a process of its own, as it forks, which a process of pytest's with its threads should not.
"""

import json
import subprocess
import sys

import pytest

from tests.helpers.python_process import ROOT

pytest.importorskip("vllm")


def figures(campaign: str, *options: str) -> dict[str, float]:
    """What a campaign counted; its claims hold if it ends with 0."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.soak", campaign, *options], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-5000:]
    counted: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return counted


def test_thirty_kills_lose_nothing() -> None:
    counted = figures("kills", "--kills", "30")
    assert counted["kills"] == 30
    assert counted["in_a_write"] >= 3
    assert counted["between_records"] >= 3
    assert counted["torn_lines"] >= 1
    assert counted["kills_that_left_a_temporary_file"] >= 1


def test_bad_disks_and_several_writers_are_refused_in_one_line() -> None:
    counted = figures("disks", "--rounds", "2")
    assert counted["rounds"] == 2
    assert min(counted[name] for name in ("file_size_limit", "file_in_the_way", "second_writer")) >= 2
    if not counted["disks_mounted"]:
        pytest.skip("small disks cannot be mounted here without root: full and read-only disks were left out")
    assert counted["full_disk"] >= 1
    assert counted["read_only_disk"] >= 4
