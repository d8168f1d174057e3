"""Which calls of generate the weight samples can follow: its mode, its inputs, its KV cache."""

import copy
import inspect
from typing import Any

from transformers import GenerationConfig, PreTrainedModel
from transformers.generation import GenerationMode

from .limits import window_length

# Those that keep all K/V in tensors on the model's device.
_CACHES = (None, "dynamic", "static", "hybrid", "hybrid_chunked", "sliding_window")
_OF_WINDOWS = ("hybrid", "sliding_window")  # which generation_config.json of models with sliding windows asks for
# Arguments of a forward that weight samples see as the noise-free pass does, or that change no logits.
_SHARED_INPUTS = frozenset(
    ("input_ids", "inputs_embeds", "attention_mask", "past_key_values", "cache_position", "use_cache", "return_dict",
     "logits_to_keep", "output_attentions", "output_hidden_states", "output_router_logits")
)  # fmt: skip


def makes_its_cache(model: PreTrainedModel, config: GenerationConfig | None, kwargs: dict[str, Any]) -> bool:
    """Whether it is up to generate which KV cache there is, so that a dynamic one will do."""
    chosen = kwargs.get("cache_implementation") or (config and config.cache_implementation)
    by_default = chosen is None and model.generation_config.cache_implementation in (None, "dynamic", *_OF_WINDOWS)
    return kwargs.get("past_key_values") is None and (by_default or chosen == "dynamic")


def check_mode(model: PreTrainedModel, config: GenerationConfig | None, kwargs: dict[str, Any]) -> None:
    """ValueError unless the call is greedy search or sampling with one clean forward per step."""
    settings = copy.deepcopy(config) if config else GenerationConfig()
    settings.update(**model.generation_config.to_dict(), defaults_only=True)
    settings.update(**kwargs)
    mode = settings.get_generation_mode(kwargs.get("assistant_model"))
    if mode not in (GenerationMode.GREEDY_SEARCH, GenerationMode.SAMPLE):
        raise ValueError(f"uncertainties come with greedy search and sampling; {mode.value} is not supported")
    if settings.guidance_scale not in (None, 1) or kwargs.get("custom_generate"):
        raise ValueError("uncertainties come without guidance_scale and custom_generate; leave them out")
    if settings.token_healing:  # generates by itself, within this call, to replace the end of the prompt
        raise ValueError("uncertainties come without token_healing; leave it out, or heal the prompts before the call")
    offloaded = getattr(kwargs.get("past_key_values"), "offloading", False)
    if offloaded or settings.cache_implementation not in _CACHES:
        name = "offloaded" if offloaded else settings.cache_implementation
        raise ValueError(f"weight samples cannot read a {name} KV cache; use cache_implementation dynamic or static")


def check_inputs(model: PreTrainedModel, kwargs: dict[str, Any]) -> None:
    """ValueError if the noise-free pass is given something that the weight samples would not see."""
    given = {name for name, value in kwargs.items() if value is not None}
    if unseen := sorted(given & inspect.signature(model.forward).parameters.keys() - _SHARED_INPUTS):
        raise ValueError(f"weight samples take no {unseen[0]}, which changes the noise-free pass; leave it out")


def check_window(model: PreTrainedModel, length: int) -> None:
    """ValueError if a sequence of `length` tokens, padding included, may outgrow a sliding window."""
    window = window_length(model.config)
    if window is not None and length > window:
        raise ValueError(
            f"{length} tokens, prompt and new ones, may outgrow the sliding window of {window}, whose K/V the weight "
            "samples need; lower max_new_tokens"
        )
