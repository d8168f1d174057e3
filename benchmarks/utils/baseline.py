"""Regression check: the ratios of a run against those of a stored one. Seconds are never compared."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bayesian_transformer.files import read_document

SAME_SETTINGS = ("model", "dtype", "device", "enforce_eager")  # runs that differ in these have different ratios


def baseline_of(result: Mapping[str, Any]) -> dict[str, Any]:
    """What is stored of a run: its settings and, by case, the ratios ours/limit and ours/plain."""
    ratios = {
        case_name(case): {"limit": case["limit"]["ratio"], "plain": case["plain"]["ratio"]} for case in result["cases"]
    }
    return {"settings": {name: result[name] for name in SAME_SETTINGS}, "ratios": ratios}


def case_name(case: Mapping[str, Any]) -> str:
    return f"B={case['batch']} S={case['num_samples']} context={case['context']}"


def read_baseline(path: Path) -> dict[str, Any]:
    """A file that `--write-baseline` wrote. ValueError if it is something else."""
    baseline = read_document(path, "write it with --write-baseline")
    if not {"settings", "ratios"} <= baseline.keys():
        raise ValueError(f"{path}: not a baseline; write one with --write-baseline")
    return baseline


def regressions(path: Path, result: Mapping[str, Any], tolerance: float) -> list[str]:
    """A line for every ratio that is more than `tolerance` (0.1 = 10%) above the one in the baseline file.

    Cases that only one of the two has are not compared. ValueError if there is nothing to compare.
    """
    baseline, current = read_baseline(path), baseline_of(result)
    for name, value in current["settings"].items():
        if (stored := baseline["settings"].get(name)) != value:
            raise ValueError(f"{path}: is for {name}={stored!r}, this run had {value!r}; write another baseline for it")
    shared = [name for name in current["ratios"] if name in baseline["ratios"]]
    if not shared:
        raise ValueError(f"{path}: has none of this run's cases; run some of {', '.join(baseline['ratios'])}")
    return [
        f"{name}: ours/{kind} {ratio:.3f}, baseline {stored:.3f}, worse than the {tolerance:.0%} allowed"
        for name in shared
        for kind, stored in baseline["ratios"][name].items()
        if (ratio := current["ratios"][name][kind]) > stored * (1 + tolerance)
    ]
