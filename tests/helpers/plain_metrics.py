"""Metrics as one would write them down, to compare the fast ones with."""

from collections.abc import Sequence
from statistics import fmean

import numpy as np
from sklearn.metrics import roc_auc_score

Numbers = Sequence[float]


def coverage_at_risk(score: Numbers, right: list[bool], risk: float) -> float:
    """The largest share of the answers above a threshold that is wrong with at most `risk`."""
    kept = [[label for value, label in zip(score, right, strict=True) if value >= threshold] for threshold in score]
    return max((len(labels) / len(right) for labels in kept if 1 - fmean(labels) <= risk + 1e-12), default=0.0)


def within_levels(score: Numbers, right: list[bool], levels: Sequence[object]) -> float:
    """Share of concordant pairs among those of one level, one level after the other."""
    pairs = {}
    for level in set(levels):
        rows = [index for index, other in enumerate(levels) if other == level]
        labels = [right[index] for index in rows]
        area = roc_auc_score(labels, [score[index] for index in rows])
        pairs[level] = (area, sum(labels) * (len(labels) - sum(labels)))
    return float(np.average([area for area, _ in pairs.values()], weights=[count for _, count in pairs.values()]))
