"""Names and environment of the shell scripts, for the tests that run them."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "bash_scripts"
SINGLE, PARA, EVAL, SCALING = (
    "unc_greedy_single_para_batch.sh",
    "unc_greedy_para.sh",
    "eval_detect.sh",
    "run_scaling_multi_gpu.sh",
)
NAMES = (SINGLE, PARA, EVAL, SCALING)
OWN_VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "NUM_GPUS",
    "MODEL",
    "DATASET",
    "DATA_DIR",
    "SEEDS",
    "PYTHON",
    "MODEL_BASE_DIR",
)


def environment(data: Path, **changes: str) -> dict[str, str]:
    inherited = {key: value for key, value in os.environ.items() if key not in OWN_VARIABLES}
    return {**inherited, "DATA_DIR": str(data), "RESULTS_DIR": str(data.parent / "results"), **changes}


def run(script: str, *arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(SCRIPTS / script), *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
