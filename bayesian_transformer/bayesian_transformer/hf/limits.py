"""How long a text may be: where positions end, where a sliding window forgets, where RoPE changes with the length."""

from typing import Any

from transformers import DynamicCache, PreTrainedConfig

from ..architectures import ARCHITECTURES

_LENGTH_DEPENDENT_ROPE = ("dynamic", "longrope")


def window_length(config: PreTrainedConfig) -> int | None:
    """Tokens that the smallest sliding window (or attention chunk) of a model holds; None if it has none."""
    windows = (la.sliding_window for la in DynamicCache(config=config).layers if getattr(la, "is_sliding", False))
    return min(windows, default=None)


def follows_windows(config: PreTrainedConfig) -> bool:
    """Whether the sliding windows of a model are known, so that weight samples see what the noise-free pass sees."""
    return any(a.windows and config.model_type in (a.base_model_type, a.model_type) for a in ARCHITECTURES.values())


def max_length(config: PreTrainedConfig) -> int | None:
    """Tokens that a text may have to be scored in parallel; None if there is no limit.

    It must fit the position embeddings and a sliding window that is not known, and stay where RoPE keeps its
    frequencies: beyond, those of a token depend on how many came with it, so that generation, which adds one at a time,
    has others than a parallel pass.
    """
    decoder = config.get_text_config(decoder=True)
    window = None if follows_windows(config) else window_length(config)
    limits = (getattr(decoder, "max_position_embeddings", None), window, _rope_length(decoder))
    return min((limit for limit in limits if limit), default=None)


def _rope_length(config: PreTrainedConfig) -> int | None:
    """Tokens up to which RoPE keeps its frequencies; None if it always does."""
    parameters: dict[str, Any] = getattr(config, "rope_parameters", None) or {}
    kinds = [value for value in parameters.values() if isinstance(value, dict)] or [parameters]  # one per layer type
    lengths = [
        kind.get("original_max_position_embeddings") or getattr(config, "original_max_position_embeddings", None)
        for kind in kinds
        if kind.get("rope_type") in _LENGTH_DEPENDENT_ROPE
    ]
    return min((length for length in lengths if length), default=None)
