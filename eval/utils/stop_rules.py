"""What stop rules would have saved and lost on stored responses, beside two controls.

A blind rule stops as many responses of each length (`length_strata`) without looking at their values. It tells what the
values are worth: a rule that does not beat it only knows that wrong answers are longer. A token limit that saves as
many tokens is what one would set instead.

A response is stopped where the rule of stop_rule.py fires before its last token. A right answer whose response is
stopped counts as lost: its text ends early. What a stopped response would have gone on to say is in the stored one, so
nothing is generated.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bayesian_transformer.aggregations import group_means
from bayesian_transformer.bootstrap import interval
from bayesian_transformer.metrics import Array
from bayesian_transformer.stop_rule import StopRule

from .length import length_strata


@dataclass(frozen=True)
class Responses:
    """Stored responses of all seeds; arrays are [n]."""

    values: Sequence[Mapping[str, Array]]  # of each response, by quantity, [tokens]
    right: NDArray[np.bool_]
    weights: NDArray[np.integer]  # how often each response counts, [1 + draws, n]

    @property
    def tokens(self) -> NDArray[np.int64]:
        return np.array([len(next(iter(arrays.values()))) for arrays in self.values], dtype=np.int64)


@dataclass(frozen=True)
class Shares:
    """One value and its interval, in percent."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Array) -> "Shares":
        """From a value and its bootstrap draws [1 + draws], as shares of 1."""
        return cls(100 * float(values[0]), *(100 * end for end in interval(values[1:])))

    def __str__(self) -> str:
        return f"{self.value:.1f} [{self.low:.1f}, {self.high:.1f}]"


@dataclass(frozen=True)
class Outcome:
    """What a rule does to the responses."""

    rule: StopRule
    stopped: Shares  # of all responses
    saved: Shares  # of all tokens
    wrong_stopped: Shares  # of the responses that are not right
    right_lost: Shares  # of the right ones
    blind_lost: Shares  # of the right ones, by a rule that stops as many of each length at random
    difference: Shares  # right_lost - blind_lost; below 0 where the rule loses fewer
    limit: float  # tokens; the limit that saves as much
    limit_lost: Shares  # right responses that are longer than that


def rules_that_stop(
    responses: Responses, quantity: str, window: int, min_tokens: int, percents: Sequence[int]
) -> Iterator[StopRule]:
    """For each share of the responses the rule that stops that many, where there are so many with a whole window."""
    unbounded = StopRule(quantity, 0.0, window, min_tokens)
    worst = sorted(filter(np.isfinite, (_worst(unbounded, arrays[quantity]) for arrays in responses.values)))
    for percent in percents:
        count = round(percent / 100 * len(responses.values))
        if 0 < count < len(worst) and worst[count - 1] < worst[count]:
            middle = unbounded.sign * (worst[count - 1] + worst[count]) / 2
            yield StopRule(quantity, float(middle), window, min_tokens)


def outcome(responses: Responses, rule: StopRule) -> Outcome:
    """What a rule does; a share of right or wrong responses is NaN where there are none."""
    right, weights, tokens = responses.right, responses.weights, responses.tokens
    kept = np.array([_kept(rule, arrays[rule.quantity]) for arrays in responses.values])
    stopped = kept < tokens
    limit = _equal_limit(tokens, int(kept.sum()))
    # Between two whole limits, as many are cut off as a coin with that chance would.
    beyond = np.clip(tokens - limit, 0, 1)
    lost, blind = _share(stopped, weights * right), _blind_share(stopped, right, length_strata(tokens), weights)
    return Outcome(
        rule,
        stopped=Shares.of(_share(stopped, weights)),
        saved=Shares.of((weights @ (tokens - kept)) / (weights @ tokens)),
        wrong_stopped=Shares.of(_share(stopped, weights * ~right)),
        right_lost=Shares.of(lost),
        blind_lost=Shares.of(blind),
        difference=Shares.of(lost - blind),
        limit=limit,
        limit_lost=Shares.of(_share(beyond, weights * right)),
    )


def _worst(rule: StopRule, values: Array) -> float:
    """The most uncertain window mean, times the rule's sign, of those that could stop the response; +inf if none."""
    first, before_last = max(rule.window, rule.min_tokens), values[:-1]  # at its last token a response is at its end
    if before_last.size < first:
        return np.inf
    means = rule.sign * group_means(before_last, rule.window)[first - rule.window :]
    return float(np.min(means, where=np.isfinite(means), initial=np.inf))


def _kept(rule: StopRule, values: Array) -> int:
    return rule.stopped_after(values.tolist()) or len(values)


def _equal_limit(tokens: NDArray[np.int64], kept: int) -> float:
    """The token limit, between two whole ones, under which the responses have `kept` tokens in all."""
    limits = np.arange(int(tokens.max()) + 1)
    totals = np.array([np.minimum(tokens, limit).sum() for limit in limits])
    return float(np.interp(kept, totals, limits))


def _blind_share(stopped: NDArray, right: NDArray, strata: NDArray, weights: NDArray) -> Array:
    """The share of the right responses that is stopped if those of each stratum are drawn at random, [1 + draws]."""
    inside = strata[:, None] == np.unique(strata)
    every, of_stopped, of_right = (
        weights @ (inside & marked[:, None]) for marked in (np.ones_like(right), stopped, right)
    )
    with np.errstate(invalid="ignore"):
        return np.nansum(of_stopped * of_right / every, axis=1) / of_right.sum(axis=1)


def _share(marked: NDArray, weights: NDArray) -> Array:
    """The share of the weight [1 + draws, n] that is marked [n]; NaN for a draw without weight."""
    total = weights.sum(axis=1)
    with np.errstate(invalid="ignore"):
        return np.where(total > 0, (weights @ marked) / total, np.nan)
