"""Names and environment of the shell scripts, for the tests that run them."""

import json
import os
import re
import subprocess
import sys
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


class Experiments:
    """The scripts with the embedded model on the CPU, 2 weight samples and short answers."""

    def __init__(self, data: Path, model: Path) -> None:
        self.folder = data.parent
        self.results = self.folder / "results"
        engine = {"max_model_len": 256, "gpu_memory_utilization": 0.1, "kv_cache_memory_bytes": 1 << 28}
        engine["enforce_eager"] = True
        small = {"NUM_SAMPLES": "2", "MAX_TOKENS": "24", "BATCH_SIZE": "8", "ENGINE_ARGS": json.dumps(engine)}
        # One thread each and no fixed cores: threads of two engines that wait for each other on one core hardly move.
        threads = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1"}
        self.env = environment(data, MODEL=str(model), NUM_GPUS="0", **small, **threads)

    def run(self, script: str, *arguments: str, status: int = 0, **changes: str) -> tuple[str, str]:
        """Standard output and error of a script that must end with `status`."""
        command = ["bash", str(SCRIPTS / script), *arguments]
        env = self.env | changes
        result = subprocess.run(
            command, env=env, cwd=self.folder, capture_output=True, text=True, timeout=400, check=False
        )
        logs = [log.read_text()[-2000:] for log in self.results.glob("logs/*.log")]
        assert result.returncode == status, f"{result.stdout}\n{result.stderr}\n{logs}"
        return result.stdout, result.stderr


def prepared_venv(folder: Path, python: str | None = None) -> str:
    """A folder that setup.sh leaves alone and whose activation gives the interpreter of this test, or `python`.

    Nothing can be installed in it: its own python does nothing, and setup.sh finds the stamp that it would write.
    """
    (folder / "bin").mkdir(parents=True)
    (folder / "active").mkdir()
    path = Path(sys.executable).parent
    if python is not None:
        path = folder / "active"
        (path / "python").write_text(python)
        (path / "python").chmod(0o755)
    (folder / "bin/activate").write_text(f'PATH="{path}:$PATH"\n')
    for name in ("python", "nvidia-smi"):
        (folder / "bin" / name).write_text('#!/bin/sh\n[ "$1 $2" = "-c " ]\n')
        (folder / "bin" / name).chmod(0o755)
    found = re.search(r"^fingerprint\(\) \{.*?^\}", (SCRIPTS / "setup.sh").read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None
    script = f"BUILD=cpu\n{found[0]}\nPYTHON= fingerprint"
    stamp = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (folder / "tokur-setup").write_text(stamp)
    return str(folder)
