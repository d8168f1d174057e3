"""How results are shown: a line each with remedies below the table, or one JSON document."""

import os
import platform
import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import __version__
from ..files import home_dir
from .finding import ERROR, NOT_APPLICABLE, OK, WARNING
from .packages import COMPANIONS, VLLM_BUILDS, installed_version
from .process import Result

_WIDTH = 100
_TITLE, _VERDICT, _TIME = 18, 8, 5
_FOUND = _WIDTH - _TITLE - _VERDICT - _TIME - 2
_PACKAGES = ("torch", "transformers", *VLLM_BUILDS, "triton", "numpy", "safetensors", "tokenizers", *COMPANIONS)
# Variables that change what was checked. Others stay out of the document, as it is made to be shown to others.
_VARIABLES = (
    *("TOKUR_KERNELS", "TOKUR_CPU_KERNELS", "TOKUR_CACHE", "CXX", "CC", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"),
    *("VLLM_PLUGINS", "VLLM_ENABLE_V1_MULTIPROCESSING", "VLLM_WORKER_MULTIPROC_METHOD", "VLLM_CPU_KVCACHE_SPACE"),
    *("VLLM_USE_V2_MODEL_RUNNER", "VLLM_TARGET_DEVICE", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"),
    *("TRITON_INTERPRET", "TRITON_PTXAS_PATH", "LD_PRELOAD"),
)
SCHEMA_VERSION = 1


def header() -> str:
    """What stands above the lines."""
    return "\n".join([f"TokUR {__version__}", _row("check", "found", "verdict", "time"), "-" * _WIDTH])


def line(result: Result) -> str:
    """The line of a result; what does not fit is cut, and shown below the table where it matters."""
    finding = result.finding
    time = "" if finding.verdict == NOT_APPLICABLE else f"{result.seconds:.0f} s"
    return _row(result.check.title, _shortened(without_home(finding.found)), finding.verdict, time)


def _row(title: str, found: str, verdict: str, time: str) -> str:
    return f"{title:<{_TITLE}}{found:<{_FOUND}}  {verdict:<{_VERDICT}}{time:>{_TIME}}"


def _shortened(text: str) -> str:
    return text if len(text) <= _FOUND else text[: _FOUND - 3] + "..."


def footer(results: Sequence[Result], seconds: float) -> str:
    """Remedies of warnings and errors, and the sum."""
    lines = ["-" * _WIDTH]
    for result in results:
        finding = result.finding
        if finding.verdict in (ERROR, WARNING):
            text = f"{finding.verdict}: {result.check.title}: {finding.remedy}"
            if _shortened(without_home(finding.found)) != without_home(finding.found):
                text = f"{finding.verdict}: {result.check.title}: {finding.found}. Remedy: {finding.remedy}"
            lines += textwrap.wrap(without_home(text), _WIDTH, subsequent_indent="    ", break_on_hyphens=False)
    counts = Counter(result.finding.verdict for result in results)
    parts = [f"{counts[verdict]} {verdict}" for verdict in (OK, WARNING, ERROR, NOT_APPLICABLE)]
    parts[1:3] = [part if part.startswith("1 ") else f"{part}s" for part in parts[1:3]]
    return "\n".join([*lines, f"{', '.join(parts)}, in {seconds:.0f} s"])


def document(results: Sequence[Result], seconds: float) -> dict[str, Any]:
    """All results as one JSON value, with nothing of the user's in it that does not matter."""
    versions = {name: installed_version(name) for name in _PACKAGES}
    value = {
        "schema_version": SCHEMA_VERSION,
        "versions": {"bayesian_transformer": __version__, "python": platform.python_version()}
        | {name: version for name, version in versions.items() if version},
        "environment": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
        "checks": [
            {
                **{"check": result.check.key, "title": result.check.title, "verdict": result.finding.verdict},
                **{"found": result.finding.found, "remedy": result.finding.remedy},
                **{"seconds": round(result.seconds, 2), "details": result.finding.details},
            }
            for result in results
        ],
        "errors": sum(result.finding.verdict == ERROR for result in results),
        "warnings": sum(result.finding.verdict == WARNING for result in results),
        "seconds": round(seconds, 2),
    }
    return _without_homes(value)


def _without_homes(value: Any) -> Any:
    if isinstance(value, str):
        return without_home(value)
    if isinstance(value, dict):
        return {key: _without_homes(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_homes(item) for item in value]
    return value


def without_home(text: str) -> str:
    """`text` with the path of the home folder, which tells a name, as `~`."""
    home = home_dir()
    return text if home in (None, Path("/")) else text.replace(str(home), "~")
