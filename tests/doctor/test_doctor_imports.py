"""The doctor itself imports nothing heavy: what is broken must not break it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_only_the_checks_import_what_is_heavy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looked at from a process of its own: the doctor's, after all has been said."""
    code = (
        "import sys\n"
        "from bayesian_transformer.doctor import command\n"
        "command.CHECKS = tuple(check for check in command.CHECKS if check.key in ('python', 'torch', 'cache'))\n"
        "try:\n    command.main([])\n"
        "finally:\n    print(sorted({'torch', 'transformers', 'vllm', 'numpy'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ}, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
