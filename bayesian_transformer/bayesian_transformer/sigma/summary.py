"""All texts at one sigma: a row of the table, from sums over the tokens of each text.

Rates are sums over all tokens divided by sums over all tokens, so a long text counts more than a short one. Intervals
are percentiles of a bootstrap over problems, because tokens of one text, and texts of one problem, are alike.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..bootstrap import DEFAULT_DRAWS, LEVEL, bootstrap_weights, interval
from ..metrics import Array

LEAST_FOR_HALVES = 5  # weight samples: two noisy ones in each half
_SEED = 20260512  # fixed: the same texts give the same intervals


class Setting(NamedTuple):
    """Strength of the noise, and the number of weight samples S."""

    sigma: float
    num_samples: int


@dataclass(frozen=True)
class Sums:
    """Sums over the tokens of one text at one setting; see `token_values` in measuring.py."""

    flips: float
    nll: float  # of the mean of the samples, in nats
    epistemic: float
    total: float
    first_half: float  # EU of each half of the noisy samples
    second_half: float


@dataclass(frozen=True)
class TextSums:
    """One text: its length, its noise-free negative log-likelihood in nats, and its sums at each setting."""

    tokens: int
    clean_nll: float
    at: Mapping[Setting, Sums]


@dataclass(frozen=True)
class Row:
    """What the noise of one setting does to all texts. None stands for what cannot be told. In nats but for ratios."""

    sigma: float
    num_samples: int
    flips: int
    flip_rate: float  # flips / tokens
    flip_rate_interval: tuple[float, float] | None  # None where all texts are of one problem
    nll_change: float  # per token: (NLL of the mean of the samples - noise-free NLL) / tokens
    nll_change_relative: float | None  # the same, divided by the noise-free NLL per token; None if that is 0
    eu_mean: float  # per token
    eu_share: float | None  # sum of EU / sum of TU; None if the latter is 0
    eu_error: float | None  # of a text's mean EU, relative: see `estimator_noise`
    eu_correlation: float | None


def summarise(texts: Sequence[TextSums], setting: Setting, weights: NDArray[np.integer[Any]]) -> Row:
    """The row of one setting. `weights` [B, n] says how often each text counts, see `bootstrap_weights`."""
    sums = [text.at[setting] for text in texts]
    tokens = np.array([text.tokens for text in texts], dtype=np.float64)
    flips = np.array([each.flips for each in sums])
    clean, noisy = sum(text.clean_nll for text in texts), sum(each.nll for each in sums)
    eu, tu = sum(each.epistemic for each in sums), sum(each.total for each in sums)
    error = correlation = None
    if setting.num_samples >= LEAST_FOR_HALVES:
        halves = np.array([[each.first_half, each.second_half] for each in sums]) / tokens[:, None]
        error, correlation = estimator_noise(halves)
    return Row(
        *setting,
        flips=int(flips.sum()),
        flip_rate=flips.sum() / tokens.sum(),
        flip_rate_interval=flip_interval(flips, tokens, weights),
        nll_change=(noisy - clean) / tokens.sum(),
        nll_change_relative=(noisy - clean) / clean if clean else None,
        eu_mean=eu / tokens.sum(),
        eu_share=eu / tu if tu else None,
        eu_error=error,
        eu_correlation=correlation,
    )


def text_weights(problems: Sequence[str], draws: int = DEFAULT_DRAWS) -> NDArray[np.int32]:
    """How often each text counts, [1 + draws, n]: a row of ones, then as often as its problem was drawn."""
    number = {name: index for index, name in enumerate(dict.fromkeys(problems))}
    return bootstrap_weights(len(number), draws, _SEED)[:, [number[name] for name in problems]]


def flip_interval(flips: Array, tokens: Array, weights: NDArray[np.integer[Any]]) -> tuple[float, float] | None:
    """The interval of the flip rate, from the flips and tokens of each text [n].

    None where each draw counts all texts alike, as where there is only one problem.

    Where no token flipped, or all did, a bootstrap would say that nothing else can happen. Then it is the interval of
    Clopper and Pearson for as many independent tokens; as tokens of a text are alike, the truth is less certain still.
    """
    total = tokens.sum()
    edge = float((1 - LEVEL / 100) / 2) ** (1 / total)
    if not flips.any():
        return 0.0, 1 - edge
    if flips.sum() == total:
        return edge, 1.0
    if (weights == 1).all():
        return None
    return interval((weights[1:] @ flips) / (weights[1:] @ tokens))


def estimator_noise(halves: Array) -> tuple[float | None, float | None]:
    """How much of a text's mean EU is chance of the draws, from the two halves [n, 2]: relative error, correlation.

    The error is that of all draws together, relative to the mean over texts. The difference of two halves has the
    variance 2 v, their mean v / 2, so the root mean square of the differences is halved. EU is taken here for a mean
    over the draws, which it nearly is: a variance around their mean. The correlation over texts is that of the halves.
    """
    mean = halves.mean()
    error = float(np.sqrt(np.mean((halves[:, 0] - halves[:, 1]) ** 2)) / 2 / mean) if mean > 0 else None
    if len(halves) < 3 or not np.ptp(halves, axis=0).all():
        return error, None
    return error, float(np.corrcoef(halves.T)[0, 1])
