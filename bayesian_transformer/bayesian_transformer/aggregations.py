"""How the values of a response's tokens become one number: one table, `AGGREGATIONS`.

The values that come in are oriented, so that larger means a more confident token: quantities that measure doubt are
negated (`sign` in quantities.py). What comes out is larger for a more confident response. T is the number of tokens.

Sources: DeepConf (arXiv 2508.15260) for windows ("groups") and the tail of 2,048 tokens; EDIS (arXiv 2602.01288) for
spikes, bursts and rebounds of the entropy, with its thresholds in nats; the adaptive tail follows the confidence
selection of its_hub, for one response instead of a set.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from .quantities import FIELDS

Array = NDArray[np.float64]
DEFAULT_WINDOW = 32  # the paper's 2,048 tokens suit traces of 64,000; this keeps that ratio to 1,024 tokens
BOTTOM_FRACTION = 0.1
TAIL, LONG_TAIL = 8, 2048
SHORTEST_TAIL = 64  # of the adaptive one
SPIKE, BURST, REBOUND = 0.7, 1.36, 1.33
BURST_WIDTH = 4  # tokens; ours, as the paper does not give its own


@dataclass(frozen=True)
class Parts:
    """Which tokens of a response are its answer, and which its steps; empty where that is not known."""

    answer: range = range(0)
    steps: tuple[range, ...] = ()


NO_PARTS = Parts()


@dataclass(frozen=True)
class Response:
    """What an aggregation may look at besides the oriented values of its quantity."""

    arrays: Mapping[str, Array]  # of the quantities that are known, as stored
    window: int = DEFAULT_WINDOW  # tokens of a group
    parts: Parts = NO_PARTS


@dataclass(frozen=True)
class Aggregation:
    """How the values of a response's tokens become one number."""

    name: str  # the end of the names of its scores
    label: str  # for people, after the symbol of the quantity
    heading: str  # for people, above its scores in a table
    of: Callable[[Array, Response], float]  # oriented values [T] with T > 0 -> number
    formula: str  # in words; after a semicolon, what docs/quantities.md says below its table
    of_nothing: float = math.nan  # of a response without tokens
    quantities: tuple[str, ...] = FIELDS  # that it is applied to
    explored: bool = False  # whether its scores stand apart from those that a reader is shown first


def group_means(values: Array, window: int) -> Array:
    """Mean over each full sliding window of a token array [T] with T > 0: [max(1, T - window + 1)]."""
    return sliding_window_view(values, min(window, values.size)).mean(axis=-1)


def _mean_of_lowest(values: Array) -> float:
    count = max(1, int(values.size * BOTTOM_FRACTION))
    return float(np.partition(values, count - 1)[:count].mean())


def _lowest_group(values: Array, response: Response) -> float:
    return float(group_means(values, response.window).min())


def _bottom_groups(values: Array, response: Response) -> float:
    return _mean_of_lowest(group_means(values, response.window))


def _adaptive_tail(values: Array, response: Response) -> float:
    """Median over the last sqrt(T) / mean entropy tokens, at least SHORTEST_TAIL and at most LONG_TAIL."""
    entropy = response.arrays["entropy"][-LONG_TAIL:].mean() if "entropy" in response.arrays else math.nan
    if not math.isfinite(entropy):
        return math.nan
    length = math.sqrt(values.size) / max(entropy, math.sqrt(values.size) / LONG_TAIL)
    return float(np.median(values[-int(min(max(length, SHORTEST_TAIL), LONG_TAIL)) :]))


def _mean_of(values: Array, tokens: range) -> float:
    return float(values[tokens.start : tokens.stop].mean()) if tokens else math.nan


def _worst_step(values: Array, response: Response) -> float:
    return min((_mean_of(values, step) for step in response.parts.steps if step), default=math.nan)


def _share_of_total(values: Array, response: Response) -> float:
    total = float(response.arrays["total"].sum()) if "total" in response.arrays else math.nan
    return float(values.sum()) / total if total > 0 else math.nan


def spikes(doubt: Array) -> int:
    """How often the doubt of a token differs by more than SPIKE from that of the token before."""
    return int((np.abs(np.diff(doubt)) > SPIKE).sum())


def bursts(doubt: Array) -> int:
    """How often it lies more than BURST above its value BURST_WIDTH tokens before."""
    return int((doubt[BURST_WIDTH:] - doubt[:-BURST_WIDTH] > BURST).sum())


def rebounds(doubt: Array) -> int:
    """How often it lies more than REBOUND above its lowest value before."""
    return int((doubt[1:] - np.minimum.accumulate(doubt)[:-1] > REBOUND).sum())


def edis(doubt: Array) -> float:
    """0.5 (bursts + rebounds) (1 + variance)."""
    return 0.5 * (bursts(doubt) + rebounds(doubt)) * (1.0 + float(doubt.var()))


def _unstable(
    count: Callable[[Array], float], of_epistemic: bool, per_token: bool
) -> Callable[[Array, Response], float]:
    """Minus what `count` finds, in nats of entropy, or in units of the mean EU, whose scale is that of the noise."""

    def of(values: Array, _: Response) -> float:
        doubt = -values
        if of_epistemic:
            scale = doubt.mean()
            doubt = doubt / scale if scale > 0 else np.zeros_like(doubt)
        return -count(doubt) / (doubt.size if per_token else 1)

    return of


_GROUPS = "Sliding-window groups"
_INSTABILITY = "Instability"


def _instabilities() -> list[Aggregation]:
    kinds: dict[str, tuple[Callable[[Array], float], str]] = {
        "spikes": (spikes, f"changes by more than {SPIKE} from token to token"),
        "bursts": (bursts, f"rises by more than {BURST} over {BURST_WIDTH} tokens"),
        "rebounds": (rebounds, f"values more than {REBOUND} above the lowest before"),
        "edis": (edis, "0.5 (bursts + rebounds) (1 + variance)"),
    }
    return [
        Aggregation(
            f"{name}{'_rate' if per_token else ''}",
            f"{name}{' per token' if per_token else ''}",
            _INSTABILITY,
            _unstable(count, field == "epistemic", per_token),
            f"{formula}{', per token' if per_token else ''}; entropy in nats, EU in units of its mean",
            of_nothing=math.nan if per_token else 0.0,
            quantities=(field,),
            explored=True,
        )
        for field in ("entropy", "epistemic")
        for name, (count, formula) in kinds.items()
        for per_token in (False, True)
    ]


def _explored(
    name: str, of: Callable[[Array, Response], float], formula: str, quantities: tuple[str, ...] = FIELDS
) -> Aggregation:
    return Aggregation(
        name, name.replace("_", " "), "Other aggregations", of, formula, quantities=quantities, explored=True
    )


_LOWEST = f"{BOTTOM_FRACTION:.0%}"  # rounded down, at least one
_NOT_CONFIDENCE = tuple(name for name in FIELDS if name != "confidence")
AGGREGATIONS = (
    Aggregation(
        "sum", "sum", "Sums over tokens (mix in response length)", lambda v, _: float(v.sum()), "sum of all tokens", 0.0
    ),
    Aggregation("mean", "mean", "Means over tokens", lambda v, _: float(v.mean()), "mean of all tokens"),
    Aggregation(
        "lowest_group", "lowest group", _GROUPS, _lowest_group, "lowest mean of a window", quantities=("confidence",)
    ),
    Aggregation(
        "bottom_groups",
        "bottom groups",
        _GROUPS,
        _bottom_groups,
        f"mean of the lowest {_LOWEST} of the windows",
        quantities=("confidence",),
    ),
    _explored("tail", lambda v, _: float(v[-TAIL:].mean()), f"mean of the last {TAIL} tokens"),
    _explored("long_tail", lambda v, _: float(v[-LONG_TAIL:].mean()), f"mean of the last {LONG_TAIL:,} tokens"),
    _explored(
        "adaptive_tail",
        _adaptive_tail,
        f"median of the last sqrt(T) / mean entropy tokens; at least {SHORTEST_TAIL} and at most {LONG_TAIL:,}",
    ),
    _explored("median", lambda v, _: float(np.median(v)), "median of all tokens"),
    _explored("worst_decile", lambda v, _: _mean_of_lowest(v), f"mean of the least confident {_LOWEST} of the tokens"),
    _explored("worst_group", _lowest_group, "least confident mean of a window", _NOT_CONFIDENCE),
    _explored("answer", lambda v, response: _mean_of(v, response.parts.answer), "mean of the tokens of the answer"),
    _explored("worst_step", _worst_step, "least confident mean of a step, as blank lines divide them"),
    _explored("share", _share_of_total, "sum of EU / sum of TU", ("epistemic",)),
    *_instabilities(),
)
LENGTH = Aggregation("length", "Token count", "Length baseline", lambda v, _: float(v.size), "number of tokens", 0.0)
