"""When to stop a response whose tokens are too uncertain: the rule, and the keys of a request that set it.

The same rule runs in vLLM's scheduler, at every token, and on stored results. Importing this module imports neither
torch nor vLLM.
"""

import math
import sys
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .aggregations import DEFAULT_WINDOW
from .quantities import FIELDS, QUANTITY_BY_NAME

STOP_REASON = "uncertainty"  # what vLLM's outputs say of a response that a rule stopped
LONGEST_WINDOW = 4096  # it is summed at every token
_MOST_TOKENS = 1 << 20
_PREFIX = "uncertaint"  # keys of a request that begin so are ours, so others among them are mistakes
_STOP, _THRESHOLD = "uncertainty_stop", "uncertainty_threshold"
_WINDOW, _MIN_TOKENS = "uncertainty_window", "uncertainty_min_tokens"
REQUEST_KEYS = (_STOP, _THRESHOLD, _WINDOW, _MIN_TOKENS)


@dataclass(frozen=True)
class StopRule:
    """Stop where the mean of a quantity over the last `window` tokens lies on the uncertain side of `threshold`.

    That is above it for a quantity that measures doubt and below it for one that measures confidence (`sign` in
    quantities.py). Nothing is stopped before a whole window and `min_tokens` tokens have been generated, nor by a
    window with a value that is not finite. A mean and not a sum, because a sum crosses any line with length. Source of
    the windowed mean: DeepConf (arXiv 2508.15260).
    """

    quantity: str  # of FIELDS
    threshold: float  # finite; in nats
    window: int = DEFAULT_WINDOW
    min_tokens: int = 0

    def __post_init__(self) -> None:
        if self.quantity not in FIELDS:
            raise ValueError(f"{_STOP} must be one of {', '.join(FIELDS)}; got {self.quantity!r}")
        threshold = self.threshold
        is_number = isinstance(threshold, int | float) and not isinstance(threshold, bool)
        if not is_number or not abs(threshold) <= sys.float_info.max:  # nor for NaN, nor for an int that no float holds
            raise ValueError(f"{_THRESHOLD} must be a finite number; got {threshold!r}")
        for key, value, least, most in (
            (_WINDOW, self.window, 1, LONGEST_WINDOW),
            (_MIN_TOKENS, self.min_tokens, 0, _MOST_TOKENS),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
                raise ValueError(f"{key} must be an integer from {least} to {most}; got {value!r}")

    @classmethod
    def from_request(cls, extra_args: Mapping[str, Any] | None) -> "StopRule | None":
        """The rule in a request's `extra_args` (`vllm_xargs` of a server), None without one.

        ValueError, in one line, for a value that cannot be and for a key that looks like ours and is not.
        """
        asked = {key: value for key, value in (extra_args or {}).items() if str(key).startswith(_PREFIX)}
        if unknown := sorted(asked.keys() - set(REQUEST_KEYS)):
            raise ValueError(f"{unknown[0]} is not known; the keys are {', '.join(REQUEST_KEYS)}")
        if not asked:
            return None
        for key in (_STOP, _THRESHOLD):
            if key not in asked:
                raise ValueError(f"{key} is missing beside {min(asked)}; a rule needs {_STOP} and {_THRESHOLD}")
        return cls(asked[_STOP], asked[_THRESHOLD], asked.get(_WINDOW, DEFAULT_WINDOW), asked.get(_MIN_TOKENS, 0))

    @property
    def sign(self) -> int:
        """Times which a mean grows with confidence."""
        return QUANTITY_BY_NAME[self.quantity].sign

    def request_keys(self) -> dict[str, Any]:
        """What `from_request` reads."""
        return dict(zip(REQUEST_KEYS, (self.quantity, self.threshold, self.window, self.min_tokens), strict=True))

    def watch(self) -> "StopWatch":
        """What follows one response."""
        return StopWatch(self)

    def stopped_after(self, values: Iterable[float | None]) -> int | None:
        """After how many of a response's tokens the rule stops it, None if it does not; None stands for no value."""
        watch = self.watch()
        return next((count for count, value in enumerate(values, 1) if watch.stops(value)), None)


class StopWatch:
    """A rule and the last tokens of one response."""

    def __init__(self, rule: StopRule) -> None:
        self.rule = rule
        self._tokens = 0
        self._last: deque[float] = deque(maxlen=rule.window)

    def stops(self, value: float | None) -> bool:
        """Whether the response stops after its next token, which has this value of the rule's quantity."""
        self._tokens += 1
        self._last.append(value if value is not None and math.isfinite(value) else math.nan)
        if self._tokens < max(self.rule.window, self.rule.min_tokens):
            return False
        # Summed anew and exactly, so that the same window stops wherever it occurs. NaN is on no side of a threshold.
        mean = math.fsum(self._last) / self.rule.window
        return self.rule.sign * mean < self.rule.sign * self.rule.threshold
