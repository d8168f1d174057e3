"""Whatever becomes of a check's process is one result, and the others go on."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from bayesian_transformer.doctor import examination
from bayesian_transformer.doctor.checks import CHECKS, GPU, Check
from bayesian_transformer.doctor.examination import run_checks
from bayesian_transformer.doctor.finding import Finding, error, not_applicable, ok, warning
from bayesian_transformer.doctor.process import Result, run_check

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _tests_are_importable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PIDS", str(tmp_path / "pids"))


def bad(function: str, seconds: float = 120, **options: object) -> Check:
    check = Check(function, function, f"tests.helpers.bad_checks:{function}", seconds, "the remedy of the table")
    return replace(check, **options)  # type: ignore[arg-type]


def run(function: str, seconds: float = 120) -> Result:
    return run_check(bad(function, seconds), threading.Event())


def exists(pid: int) -> bool:
    """Whether a process runs; one that waits to be collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for_pids(file: Path) -> list[int]:
    """The numbers that a check wrote, once they are all there."""
    deadline = time.monotonic() + 120
    while not (file.exists() and file.read_text().endswith("\n")) and time.monotonic() < deadline:
        time.sleep(0.1)
    return [int(pid) for pid in file.read_text().split()]


def assert_gone(pids: list[int], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while any(map(exists, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in pids if exists(pid)]


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("segfault", "its process was ended by SIGSEGV while reading address 0, without a result"),
        ("abort", "its process was ended by SIGABRT, without a result"),
        ("out_of_memory", "its process was ended by SIGKILL (out of memory?), without a result"),
        ("exit_early", "its process ended with status 3, without a result"),
        ("garbage", "its process ended with status 0, without a result"),
        ("raises", "RuntimeError: two lines, and a \N{SNOWMAN}"),
        ("does_not_import", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("no_such_function", "AttributeError: module 'tests.helpers.bad_checks' has no attribute 'no_such_function'"),
        ("no_finding", "tests.helpers.bad_checks:no_finding gave a str instead of a finding"),
    ],
)
def test_what_goes_wrong_is_the_result(function: str, said: str) -> None:
    finding = run(function).finding
    assert (finding.verdict, finding.found, finding.remedy) == ("error", said, "the remedy of the table")
    assert isinstance(finding.details["printed"], list)


def test_a_crash_says_where_it_happened() -> None:
    printed = "\n".join(run("segfault").finding.details["printed"])
    assert "Segmentation fault" in printed
    assert "in segfault" in printed
    assert "Traceback" in "\n".join(run("raises").finding.details["printed"])


def test_a_result_among_other_lines_is_found() -> None:
    assert run("noisy_but_well").finding == ok("well, between other lines")


def test_a_crash_after_the_result_is_a_warning() -> None:
    finding = run("crashes_at_its_end").finding
    assert finding.verdict == "warning"
    assert finding.found == "well at first; then its process was ended by SIGABRT"


def test_a_result_is_cut_rather_than_filling_the_pipe() -> None:
    finding = run("too_much").finding
    assert finding.verdict == "ok"
    assert len(finding.found) <= 2000
    assert finding.details == {"left out": "too long"}


def test_a_hang_ends_at_the_deadline_with_all_it_started(tmp_path: Path) -> None:
    result = run("hang", seconds=3)
    assert result.finding.verdict == "error"
    assert result.finding.found == "no answer within 3 s while waiting"
    assert 3 <= result.seconds < 30
    assert_gone([int(pid) for pid in (tmp_path / "pids").read_text().split()])


def test_no_child_of_a_check_stays(tmp_path: Path) -> None:
    assert run("leaves_a_child").finding == ok("done")
    assert_gone([int((tmp_path / "pids").read_text())])


def test_a_wrong_kernel_is_found_and_named() -> None:
    check = replace(bad("wrong_kernel"), remedy=next(check.remedy for check in CHECKS if check.key == "cpp"))
    finding = run_check(check, threading.Event()).finding
    assert finding.verdict == "error"
    assert finding.found.startswith("wrong: statistics (bfloat16, ")
    assert " instead of " in finding.found
    assert "TOKUR_KERNELS=plain" in finding.remedy
    assert "report this line" in finding.remedy


def test_the_rest_goes_on_and_the_order_stays() -> None:
    checks = [bad(name) for name in ("segfault", "well", "raises", "garbage", "abort")]
    checks.insert(2, bad("well", key="second", needs=("segfault",)))
    handed_out: list[Result] = []
    results = run_checks(checks, handed_out.append)
    assert results == handed_out
    assert [result.check for result in results] == checks
    assert [result.finding.verdict for result in results] == ["error", "ok", "n/a", "error", "error", "error"]
    assert results[2].finding.found == "not run, see the line segfault"


def fake(monkeypatch: pytest.MonkeyPatch, findings: dict[str, Finding]) -> list[list[str]]:
    """Replace the processes; each entry of the result is what runs after one more check has started."""
    running: list[str] = []
    seen: list[list[str]] = []

    def run_fake(check: Check, stop: threading.Event) -> Result:
        running.append(check.key)
        seen.append([*running])
        time.sleep(0.05)
        running.remove(check.key)
        return Result(check, findings.get(check.key, ok("well")), 0.05)

    monkeypatch.setattr(examination, "run_check", run_fake)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})
    return seen


def verdicts(results: list[Result]) -> dict[str, tuple[str, str]]:
    return {result.check.key: (result.finding.verdict, result.finding.found) for result in results}


def test_a_gpu_has_one_check_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = fake(monkeypatch, {})
    on_gpu = {check.key for check in CHECKS if check.on_gpu}
    assert {"statistics", "attention", "graph", "engine", "engine_graphs"} <= on_gpu
    run_checks(CHECKS, lambda result: None)
    assert {key for keys in seen for key in keys} == {check.key for check in CHECKS}
    assert max(len(keys) for keys in seen) == 2
    assert max(len(on_gpu & set(keys)) for keys in seen) == 1


def test_without_a_gpu_its_lines_do_not_apply(monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, {GPU: not_applicable("no GPU (a reason)")})
    found = verdicts(run_checks(CHECKS, lambda result: None))
    absent = {key for key, value in found.items() if value == ("n/a", "no GPU (a reason)")}
    assert absent == {GPU, "statistics", "noise", "merge", "attention", "graph", "engine_graphs"}
    assert all(value[0] == "ok" for key, value in found.items() if key not in absent)


def test_without_vllm_there_is_no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, {"vllm": warning("not installed", "install it", absent=True)})
    found = verdicts(run_checks(CHECKS, lambda result: None))
    assert {key for key, value in found.items() if value == ("n/a", "no vLLM")} == {
        *("attention", "graph", "engine", "engine_graphs")
    }


def test_what_a_broken_torch_holds_up_refers_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, {"torch": error("does not import")})
    found = verdicts(run_checks(CHECKS, lambda result: None))
    for key in (GPU, "cpp", "switch", "statistics", "engine_graphs"):
        assert found[key] == ("n/a", "not run, see the line torch")
    assert found["plugin"][0] == found["cache"][0] == "ok"


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_doctor_takes_its_processes_along(tmp_path: Path, sent: signal.Signals) -> None:
    code = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have started the tests with it ignored
from bayesian_transformer.doctor import command
from bayesian_transformer.doctor.checks import Check
command.CHECKS = (Check("hang", "hang", "tests.helpers.bad_checks:hang", 300, ""),)
command.main()
"""
    doctor = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    pids = wait_for_pids(tmp_path / "pids")
    doctor.send_signal(sent)
    output, _ = doctor.communicate(timeout=30)
    assert doctor.returncode != 0
    assert b"Traceback" not in output
    assert_gone(pids)


def test_a_check_whose_doctor_was_killed_ends_with_all_it_started(tmp_path: Path) -> None:
    """Nobody is left to end it at its deadline."""
    code = """
import threading
from bayesian_transformer.doctor import process
from bayesian_transformer.doctor.checks import Check
process.run_check(Check("hang", "hang", "tests.helpers.bad_checks:hang", 10, ""), threading.Event())
"""
    doctor = subprocess.Popen([sys.executable, "-c", code])
    pids = wait_for_pids(tmp_path / "pids")
    doctor.kill()
    doctor.wait(timeout=30)
    assert all(map(exists, pids))
    assert_gone(pids, seconds=60)  # 10 s after the deadline


def test_an_ignored_hangup_stays_ignored(tmp_path: Path) -> None:
    """As `nohup` leaves it: the doctor goes on when its terminal is closed."""
    code = """
import os, signal
from bayesian_transformer.doctor import command
signal.signal(signal.SIGHUP, signal.SIG_IGN)
with command._stoppable():
    os.kill(os.getpid(), signal.SIGHUP)
    assert signal.getsignal(signal.SIGTERM) not in (signal.SIG_DFL, signal.SIG_IGN)
print("went on")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "went on\n"), done.stderr


def test_lines_of_the_protocol_are_json(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "bayesian_transformer.doctor.child", "tests.helpers.bad_checks:raises"]
    subprocess.run([*command, str(writing), "60"], pass_fds=[writing], check=True, capture_output=True)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        lines = [json.loads(line) for line in pipe]
    assert [next(iter(line)) for line in lines] == ["doing", "finding"]
