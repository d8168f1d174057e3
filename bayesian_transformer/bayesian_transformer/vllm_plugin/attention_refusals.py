"""What a refusal is, and the kinds of attention that particle rows do not run with; docs/limits.md is made of them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Refusal:
    """Something that TFB models do not run with. docs/limits.md is made of these."""

    name: str  # as the error calls it; {} stands for what was found
    why: str  # in one sentence
    found: Callable[[Any], object]  # what of it a VllmConfig, or a layer's attention, has; falsy if nothing
    listed: str = ""  # what the page calls it, where the name holds a {}


def refused(refusals: Iterable[Refusal], subject: Any) -> list[str]:
    """The names of the refusals that meet `subject`."""
    return [refusal.name.format(found) for refusal in refusals if (found := refusal.found(subject))]


_NOT_WRITTEN = "The particle rows' attention does not have it."
ATTENTION = (
    Refusal("ALiBi", _NOT_WRITTEN, lambda impl: impl.alibi_slopes is not None),
    Refusal("sink", _NOT_WRITTEN, lambda impl: impl.sinks is not None),
    Refusal(
        "cross-layer shared",
        "A particle row's own key and value are those of its own layer.",
        lambda impl: impl.kv_sharing_target_layer_name is not None,
    ),
)  # of a layer, on either device

GPU_ATTENTION = (
    Refusal(
        "one-token window",
        "A row would see its own token alone, and FlashAttention has no window without a token of the cache.",
        lambda impl: impl.sliding_window[0] == 0,  # how many earlier tokens a row sees; -1 for all
    ),
    Refusal(
        "256-wide Blackwell",
        "The particle rows' call of FlashAttention does not have it.",
        lambda impl: getattr(impl, "fa4_hd256", False),
    ),
)  # of a layer


def refuse_attention(stock: Any, expected: type, more: Iterable[Refusal] = ()) -> None:
    """ValueError if particle rows cannot attend with `stock`, the attention implementation of a layer.

    Args:
        expected: vLLM's class that the particle rows' attention is written for.
        more: what is refused on one device only.
    """
    if not isinstance(stock, expected):
        raise ValueError(
            f"TFB models need vLLM's {expected.__name__}, the attention of this layer is {type(stock).__name__}; "
            "leave attention_backend unset, or choose another model"
        )
    if kinds := refused([*ATTENTION, *more], stock):
        on_a_gpu = " on a GPU" if refused(more, stock) else ""
        raise ValueError(f"TFB models do not support {', '.join(kinds)} attention{on_a_gpu}; choose another model")
