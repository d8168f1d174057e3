"""From which P(correct) on are answers wrong with at most a share alpha?

The promise: with confidence 1 - delta over the labelled responses, among new answers with P >= threshold at most a
share alpha is wrong. It holds for any P, also for one that is not calibrated; a poor one makes it harder to reach.

What it stands on:

- The labelled responses and the new ones are drawn independently from the same source, one response per problem. It
  does not carry over to another data set, model, prompt or sampling temperature.
- P comes from a calibrator that has not seen these labels: fitted on other problems. With cross-fitted P of the same
  problems the promise is close, not proved.
- The thresholds to be tried are fixed before the labels are looked at.

How it is kept: for each threshold, from the strictest down, the hypothesis "more than alpha of the accepted are wrong"
is tested at level delta: the Clopper-Pearson upper bound of the wrong share must be at most alpha. The first one that
is not rejected ends the search (fixed-sequence testing; Angelopoulos et al., Learn then Test, arXiv 2110.01052). No
correction for many tests is needed: whoever accepts any false threshold has accepted the first false one of the
sequence, and that one is a single test at level delta.

The thresholds: either a grid of your own, fixed beforehand or taken from other responses, whose labels are not needed.
Then the promise holds whatever P is. Or, as default, `quantile_grid` of the same P without their labels. Which
thresholds are tried then depends on the responses; the promise holds if the share of wrong answers does not fall with
falling P, and in simulations with every other P that we tried.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .columns import Array, labels
from .stored import StoredObject

STEPS = 20  # thresholds of the default grid
ALLOWED = 2  # wrong answers that the strictest of them may accept; with 0 one unlucky answer would end the search
COVERAGE_LEVEL = 0.95


@dataclass(frozen=True)
class RiskThreshold:
    """The threshold of P(correct) from which on answers are accepted, or why there is none."""

    alpha: float  # largest share of wrong answers among the accepted
    delta: float  # chance, over the labelled responses, that the share is larger all the same
    threshold: float | None  # None: not reachable with these data
    responses: int  # labelled, those without P included
    accepted: int  # of them; by the strictest threshold tried, where none is reached
    wrong: int  # of the accepted
    risk_bound: float  # upper bound of the wrong share, with confidence 1 - delta
    coverage: float  # accepted / responses
    coverage_low: float  # Clopper-Pearson interval at COVERAGE_LEVEL, of the share of new answers that is accepted
    coverage_high: float
    reason: str = ""  # why there is no threshold

    def __str__(self) -> str:
        if self.threshold is None:
            return f"not reachable with these data: {self.reason}"
        return (
            f"accept P(correct) >= {self.threshold:.4g}: at most {self.alpha:.3g} of the accepted are wrong "
            f"(confidence {1 - self.delta:.3g}); accepts {self.coverage:.1%} "
            f"[{self.coverage_low:.1%}, {self.coverage_high:.1%}], "
            f"here {self.accepted} of {self.responses}, {self.wrong} of them wrong"
        )

    @classmethod
    def load(cls, stored: StoredObject) -> Self:
        """From the JSON of a calibrator; ValueError names file and key."""
        responses, accepted, wrong = (stored.integer(key) for key in ("responses", "accepted", "wrong"))
        stored.demand("accepted", 0 <= accepted <= responses, "must be between 0 and the responses")
        stored.demand("wrong", 0 <= wrong <= accepted, "must be between 0 and the accepted ones")
        return cls(
            alpha=stored.share("alpha"),
            delta=stored.share("delta"),
            threshold=None if stored.values.get("threshold") is None else stored.number("threshold"),
            responses=responses,
            accepted=accepted,
            wrong=wrong,
            risk_bound=stored.share("risk_bound"),
            coverage=stored.share("coverage"),
            coverage_low=stored.share("coverage_low"),
            coverage_high=stored.share("coverage_high"),
            reason=stored.text("reason"),
        )


def upper_bound(wrong: ArrayLike, accepted: ArrayLike, delta: float) -> Array:
    """Clopper-Pearson: the largest share of wrong answers at which so few of `accepted` are seen with chance delta.

    1 where all are wrong or none is accepted. `wrong` need not be whole.
    """
    from scipy.stats import beta

    k, n = np.broadcast_arrays(np.asarray(wrong, np.float64), np.asarray(accepted, np.float64))
    some = k < n
    return np.where(some, beta.ppf(1 - delta, k + 1, np.where(some, n - k, 1.0)), 1.0)


def _first(start: int, holds: Callable[[int], bool]) -> int:
    """The first whole number from `start` on for which a statement holds that stays true once it is."""
    high = max(start, 1)
    while not holds(high):
        high *= 2
    return start + bisect_left(range(start, high), True, key=holds)


@cache
def fewest_accepted(wrong: float, alpha: float, delta: float) -> int:
    """The smallest number of accepted answers, of which `wrong` are wrong, whose upper bound is at most alpha."""
    return _first(math.floor(wrong) + 1, lambda n: float(upper_bound(wrong, n, delta)) <= alpha)


def quantile_grid(p_correct: ArrayLike, alpha: float, delta: float, steps: int = STEPS) -> tuple[float, ...]:
    """Thresholds that accept equal steps of these responses, the strictest first; labels are not needed.

    The strictest accepts as many as may have ALLOWED wrong among them (fewer wrong ones if there are too few
    responses). Empty if even all of them without a wrong one would not do.
    """
    p = _checked(p_correct, alpha, delta)
    descending = np.sort(p[np.isfinite(p)])[::-1]
    starts = [fewest_accepted(wrong, alpha, delta) for wrong in range(ALLOWED, -1, -1)]
    start = next((count for count in starts if count <= descending.size), None)
    if start is None:
        return ()
    ranks = np.linspace(start, descending.size, steps).astype(np.int64)
    return tuple(np.unique(descending[ranks - 1])[::-1].tolist())


def threshold_for(
    p_correct: ArrayLike,
    right: ArrayLike,
    alpha: float,
    delta: float = 0.1,
    grid: Sequence[float] | None = None,
    groups: Sequence[Hashable] | None = None,
) -> RiskThreshold:
    """The lowest threshold that keeps the promise of this module, or why none does.

    Args:
        p_correct: P of the labelled responses [n]. NaN is never accepted, but counts for the coverage.
        right: their verdicts [n].
        grid: thresholds fixed beforehand, in any order; None for `quantile_grid`. The strictest is tried first, also
            where it accepts too few for any verdict, and then ends the search.
        groups: problem of each response [n], if it shall be checked that no problem comes twice.

    Raises:
        ValueError, in one line, for unusable input and for two responses of one problem.
    """
    p = _checked(p_correct, alpha, delta)
    verdicts = labels(right, p.size)
    if groups is not None and len(set(groups)) < len(groups):
        raise ValueError(
            f"{len(groups)} responses to {len(set(groups))} problems: responses to one problem are alike, so the bound "
            "would be too small; keep one of each problem"
        )
    tried = np.unique(np.asarray(quantile_grid(p, alpha, delta) if grid is None else grid, np.float64))[::-1]
    if not np.isfinite(tried).all():
        raise ValueError("the thresholds to be tried must be finite numbers")
    accepted = (p >= tried[:, None]).sum(axis=1)
    wrong = ((p >= tried[:, None]) & ~verdicts).sum(axis=1)
    passes = upper_bound(wrong, accepted, delta) <= alpha
    reached = tried.size if passes.all() else int(passes.argmin())
    if not reached:
        found = (int(accepted[0]), int(wrong[0])) if tried.size else (0, 0)
        return _result(alpha, delta, None, p.size, *found, _why_not(alpha, delta, p, *found))
    last = reached - 1
    return _result(alpha, delta, float(tried[last]), p.size, int(accepted[last]), int(wrong[last]))


def _checked(p_correct: ArrayLike, alpha: float, delta: float) -> Array:
    for name, value in (("alpha", alpha), ("delta", delta)):
        if not 0 < value < 1:
            raise ValueError(f"{name} must be between 0 and 1; got {value}")
    p: NDArray[np.float64] = np.asarray(p_correct, np.float64)
    if p.ndim != 1:
        raise ValueError(f"p_correct must have one value per response; its shape is {list(p.shape)}")
    return p


def _result(
    alpha: float, delta: float, threshold: float | None, responses: int, accepted: int, wrong: int, reason: str = ""
) -> RiskThreshold:
    tail = (1 - COVERAGE_LEVEL) / 2
    return RiskThreshold(
        alpha=alpha,
        delta=delta,
        threshold=threshold,
        responses=responses,
        accepted=accepted,
        wrong=wrong,
        risk_bound=float(upper_bound(wrong, accepted, delta)),
        coverage=accepted / responses if responses else 0.0,
        coverage_low=1 - float(upper_bound(responses - accepted, responses, tail)),
        coverage_high=float(upper_bound(accepted, responses, tail)),
        reason=reason,
    )


def _why_not(alpha: float, delta: float, p: Array, accepted: int, wrong: int) -> str:
    least = fewest_accepted(0, alpha, delta)
    if accepted < least:
        return (
            f"the strictest threshold accepts {accepted} of {p.size} answers; even without a wrong one among them "
            f"{least} are needed to show at most {alpha:.3g} (confidence {1 - delta:.3g})"
        )
    share = wrong / accepted
    seen = f"{wrong} of the {accepted} most confident answers are wrong ({share:.1%})"
    if share >= alpha:
        return (
            f"{seen}, and at most {alpha:.1%} may be; with more labelled answers a stricter threshold could be tried, "
            "else it takes better scores"
        )
    needed = _first(accepted, lambda n: float(upper_bound(share * n, n, delta)) <= alpha)
    return (
        f"{seen}; at this error rate {needed} accepted answers would be needed, which is about "
        f"{math.ceil(needed * p.size / accepted)} labelled ones instead of {p.size}"
    )
