"""Run scripts as processes of their own, on a real vLLM engine."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.helpers.python_process import ROOT

ENGINE_ARGS = {"dtype": "float32", "enforce_eager": True, "max_model_len": 512, "kv_cache_memory_bytes": 1 << 28}


def start_script(
    script: str, model: Path, dataset: Path, output: Path, *options: str, **environment: str
) -> "subprocess.Popen[str]":
    """A script of run/ as a process group of its own; its standard error is a pipe."""
    command = [sys.executable, str(ROOT / "run" / script), "--model-path", str(model), "--dataset-path", str(dataset)]
    command += ["--output-dir", str(output), "--engine-args", json.dumps(ENGINE_ARGS), *options]
    variables = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"} | environment
    return subprocess.Popen(command, env=variables, text=True, stderr=subprocess.PIPE, start_new_session=True)


def wait_for_script(process: "subprocess.Popen[str]", status: int = 0) -> str:
    """What the script wrote to standard error; it must end with `status`."""
    _, errors = process.communicate(timeout=300)
    assert process.returncode == status, errors[-4000:]
    return errors
