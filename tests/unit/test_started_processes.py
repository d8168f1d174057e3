"""Scripts and workers as they are started: where they look for modules, and how light they are.

run/utils holds a math.py, a published name. In a process with that folder on sys.path it would stand for Python's own
module; so would any file of ours that bears the name of one.
"""

import json
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from bayesian_transformer.grading.pool import WorkerPool
from benchmarks.utils.engines import Engine
from run.utils import guard
from tests.helpers.probed_processes import HEAVY, ROOT, Seen, probed, start_of

FOLDERS = ("run", "eval", "benchmarks", "datasets")
SCRIPTS = [
    "convert_to_tfb.py",
    *(f"{folder}/{path.name}" for folder in FOLDERS for path in (ROOT / folder).glob("*.py")),
]
# These load models or formats of models: run/utils/config.py has the names of transformers' that it always had.
MAY_BE_HEAVY = ("run/", "benchmarks/")
WORKER_MB = 150
EQUAL = json.dumps({"operation": "equal", "texts": [r"\sqrt{8}", r"2\sqrt{2}"]}) + "\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("probe")


def hiding(entry: Path) -> set[str]:
    """Modules of Python that what lies in a folder of sys.path would hide, or be hidden by."""
    names = {path.stem for path in entry.glob("*.py")} | {path.name.partition(".")[0] for path in entry.glob("*.so")}
    names |= {path.parent.name for path in entry.glob("*/__init__.py")}
    return names & sys.stdlib_module_names


def check_search_path(seen: Seen) -> None:
    """No folder of utilities on sys.path, and nothing on it but Python's own modules bears one of their names."""
    own = {Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib")}
    entries = [Path(entry or ".").resolve() for entry in seen.path]
    assert [entry for entry in entries if entry.name == "utils"] == []
    others = [
        entry for entry in entries if (entry not in own and entry.parent not in own) or entry.name == "site-packages"
    ]
    assert {str(entry): found for entry in others if (found := hiding(entry))} == {}


def test_a_folder_of_utilities_would_be_noticed() -> None:
    assert hiding(ROOT / "run/utils") == {"math"}
    with pytest.raises(AssertionError):
        check_search_path(Seen("", frozenset(), (str(ROOT), str(ROOT / "run/utils"))))


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_looks_in_the_right_places_and_is_light(folder: Path, script: str) -> None:
    """Started by its path, from elsewhere."""
    if script.endswith("bench_kernels.py"):
        pytest.importorskip("triton")
    seen = probed(folder, [sys.executable, str(ROOT / script), "--help"])
    assert f"Usage: {Path(script).name}" in seen.stdout
    check_search_path(seen)
    assert {"math", "click"} <= seen.modules
    if not script.startswith(MAY_BE_HEAVY):
        assert seen.imported(*HEAVY) == set()


def start_of_worker(monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], dict[str, str]]:
    """What the pool starts a grading worker with."""
    return start_of(WorkerPool(1, 5.0, 2048)._start, monkeypatch)


@pytest.mark.parametrize("place", ["run/utils", "."])
def test_a_grading_worker_looks_in_the_right_places(folder: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    """Also started from the folder of the treacherous names; and once it has compared, it has torch in no way."""
    command, environment = start_of_worker(monkeypatch)
    seen = probed(folder, command, stdin=EQUAL, cwd=ROOT / place, environment=environment)
    assert seen.stdout == 'ready\n{"value": true}\n'
    check_search_path(seen)
    assert seen.imported(*HEAVY) == {"sympy"}


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[str]]:
    command, environment = start_of_worker(monkeypatch)
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)
    yield process
    process.kill()
    process.communicate()


def test_a_grading_worker_that_is_ready_is_small(worker: subprocess.Popen[str]) -> None:
    assert worker.stdout is not None
    assert worker.stdout.readline() == "ready\n"
    status = Path(f"/proc/{worker.pid}/status").read_text()
    (resident,) = (int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))
    assert resident < WORKER_MB << 10


def test_the_guard_looks_in_the_right_places(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Watching a process that is not its parent, so that it ends at once and ends nothing."""
    (*command, watched), environment = start_of(guard.start_guard, monkeypatch)
    assert watched.isdigit()
    seen = probed(folder, [*command, "1"], cwd=ROOT / "run/utils", environment=environment)
    check_search_path(seen)
    assert seen.imported(*HEAVY) == set()
    assert "psutil" in seen.modules


def test_the_benchmarks_engine_looks_in_the_right_places(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = Engine.running("ours", tmp_path / "log").__enter__
    command, environment = start_of(start, monkeypatch)
    seen = probed(folder, command, environment=environment)
    check_search_path(seen)
    assert seen.imported(*HEAVY) == set()
