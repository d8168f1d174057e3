"""A user without a home: HOME is not set, and passwd has no entry for the user's id, as in many containers."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
USER = 12345
_AS_ANOTHER = ["unshare", "--user", f"--map-user={USER}"]
# Where the kernel lets nobody be another user: the process is a real one, but passwd is played.
_STAND_IN = "import pwd; pwd.getpwuid = lambda uid: {}[uid]\n"


def run_homeless(code: str, temporary: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process of such a user, in `temporary`, which is also the temporary folder.

    Where a library makes a folder called ~, it lies there.
    """
    kept = {name: value for name, value in os.environ.items() if name not in ("HOME", "TOKUR_CACHE")}
    variables = kept | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TMPDIR": str(temporary)} | environment
    possible = subprocess.run([*_AS_ANOTHER, "true"], capture_output=True, check=False).returncode == 0
    command = [*_AS_ANOTHER, sys.executable, "-c", code] if possible else [sys.executable, "-c", _STAND_IN + code]
    return subprocess.run(
        command, cwd=temporary, env=variables, capture_output=True, text=True, timeout=600, check=False
    )
