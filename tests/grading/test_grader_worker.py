"""What a grading worker refuses, whatever a library might be talked into."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

FORBIDDEN = {
    "shell": "os.system('touch {marker}')",
    "program": "subprocess.run(['touch', '{marker}'])",
    "fork": "os.fork()",
    "write": "open('{marker}', 'w')",
    "append": "open('{marker}', 'a')",
    "exclusive": "open('{marker}', 'x')",
    "update": "open('{existing}', 'r+')",
    "create": "os.open('{marker}', os.O_CREAT | os.O_WRONLY)",
    "create for reading": "os.open('{marker}', os.O_CREAT | os.O_RDONLY)",
    "empty": "os.open('{existing}', os.O_TRUNC)",
    "remove": "os.remove('{existing}')",
    "socket": "socket.socket()",
    "eval": "eval('1+1')",
    "sympify": "sympy.sympify('1+1')",
}


@pytest.mark.parametrize("attempt", FORBIDDEN.values(), ids=FORBIDDEN.keys())
def test_a_worker_refuses_what_arithmetic_has_no_need_of(tmp_path: Path, attempt: str) -> None:
    """The second line of defence, tried from inside a fenced process; reading stays possible."""
    existing, marker = tmp_path / "existing", tmp_path / "marker"
    existing.write_text("here")
    code = "import os, socket, subprocess, sympy\n"
    code += "from bayesian_transformer.grading.fenced_worker import Fence\nfence = Fence()\n"
    code += "assert open(r'{existing}').read() == 'here'\ntry:\n    {attempt}\nexcept PermissionError:\n    pass\n"
    code += "print('refused' if fence.refused else 'done')\n"
    attempt = attempt.format(marker=marker, existing=existing)
    run = subprocess.run(
        [sys.executable, "-c", code.format(existing=existing, attempt=attempt)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=False,
        timeout=60,
    )
    assert run.stdout == "refused\n", run.stderr
    assert existing.read_text() == "here"
    assert not marker.exists()
