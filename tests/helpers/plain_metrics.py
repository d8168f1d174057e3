"""Metrics as one would write them down, to compare the fast ones with."""

from collections.abc import Sequence
from statistics import fmean

Numbers = Sequence[float]


def coverage_at_risk(score: Numbers, right: list[bool], risk: float) -> float:
    """The largest share of the answers above a threshold that is wrong with at most `risk`."""
    kept = [[label for value, label in zip(score, right, strict=True) if value >= threshold] for threshold in score]
    return max((len(labels) / len(right) for labels in kept if 1 - fmean(labels) <= risk + 1e-12), default=0.0)
