"""A tiny random model of each family, float32, with what is particular to the family switched on.

Biases and norms are random too, so that a weight which is left out, or used twice, shows in the numbers.
"""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig

VOCABULARY = 517  # no multiple of what vLLM pads to
_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 96,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.1,  # large enough for attention and logits to vary
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}


class Family(NamedTuple):
    """A model of a family: `model_type`, what its config has beside the sizes, and the noise that it is tested with."""

    model_type: str
    config: dict[str, Any]
    bayes_noise: str = "right"


_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
_LONG_ROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0 + 0.1 * i for i in range(12)],
    "long_factor": [2.0 + 0.3 * i for i in range(12)],
    "partial_rotary_factor": 0.75,
}
_YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 128,
    "attention_factor": 1.2,
}
FAMILIES = {
    "qwen3": Family("qwen3", {"head_dim": 80, "tie_word_embeddings": True}),
    "mistral": Family("mistral", {"head_dim": 64, "num_key_value_heads": 1, "sliding_window": None}),
    "mistral, its window not reached": Family("mistral", {"head_dim": 32, "sliding_window": 256}, "left"),
    "granite": Family(
        "granite",
        {
            "head_dim": 32,
            "hidden_size": 128,
            "attention_bias": True,
            "embedding_multiplier": 3.0,
            "attention_multiplier": 0.3,
            "residual_multiplier": 0.6,
            "logits_scaling": 2.0,
            "tie_word_embeddings": True,
        },
    ),
    "gemma": Family("gemma", {"head_dim": 96, "num_key_value_heads": 1, "tie_word_embeddings": True}),
    "mistral with a window": Family("mistral", {"head_dim": 32, "sliding_window": 19}),
    "gemma2": Family(
        "gemma2",
        {
            "head_dim": 32,
            "sliding_window": 19,  # of every other layer
            "query_pre_attn_scalar": 24,
            "attn_logit_softcapping": 3.0,  # low enough to be felt
            "final_logit_softcapping": 5.0,
            "tie_word_embeddings": True,
        },
    ),
    "gemma3": Family(
        "gemma3_text",
        {
            "head_dim": 64,
            "num_hidden_layers": 4,
            "sliding_window": 33,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "sliding_attention"],
            "query_pre_attn_scalar": 40,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            },
            "tie_word_embeddings": True,
        },
        "left",
    ),
    "phi3": Family("phi3", {"hidden_size": 128, "tie_word_embeddings": False, "sliding_window": 256}),
    "phi3 with a window": Family("phi3", {"hidden_size": 128, "tie_word_embeddings": False, "sliding_window": 32}),
    "phi4": Family(
        "phi3",
        {
            "hidden_size": 128,
            "num_key_value_heads": 4,
            "max_position_embeddings": 1024,
            "original_max_position_embeddings": 512,
            "rope_parameters": _LONG_ROPE,
            "tie_word_embeddings": True,
        },
        "left",
    ),
    "olmo2": Family("olmo2", {"head_dim": 32, "attention_bias": True, "tie_word_embeddings": False}),
    "olmo3": Family(
        "olmo3",
        {
            "head_dim": 64,
            "num_hidden_layers": 4,
            "sliding_window": 19,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "sliding_attention"],
            "rope_parameters": {"full_attention": dict(_YARN), "sliding_attention": dict(_ROPE)},
            "tie_word_embeddings": False,
        },
    ),
    "smollm3": Family(
        "smollm3",
        {
            "head_dim": 32,
            "num_hidden_layers": 4,
            "no_rope_layers": [1, 0, 1, 0],
            "attention_bias": True,
            "mlp_bias": True,
            "tie_word_embeddings": True,
        },
        "left",
    ),
    "smollm3 with windows": Family(
        "smollm3",
        {
            "hidden_size": 128,
            "no_rope_layers": [1, 0, 1],
            "use_sliding_window": True,
            "sliding_window": 33,
            "tie_word_embeddings": False,
        },
    ),
    "starcoder2": Family("starcoder2", {"head_dim": 64, "num_key_value_heads": 1, "tie_word_embeddings": True}),
    "starcoder2 with a window": Family(
        "starcoder2", {"hidden_size": 128, "sliding_window": 21, "tie_word_embeddings": False}, "left"
    ),
    "qwen2 moe": Family(
        "qwen2_moe",
        {
            "hidden_size": 128,
            "num_experts": 6,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 64,
            "shared_expert_intermediate_size": 96,
            "norm_topk_prob": False,
            "mlp_only_layers": [1],
        },
    ),
    "qwen3 moe": Family(
        "qwen3_moe",
        {
            "head_dim": 80,
            "num_experts": 8,
            "num_experts_per_tok": 3,
            "moe_intermediate_size": 48,  # no multiple of 32, as that of some models cut in two is not
            "norm_topk_prob": True,
            "decoder_sparse_step": 2,
            "num_hidden_layers": 4,
            "tie_word_embeddings": True,
        },
    ),
    "mixtral": Family(
        "mixtral",
        {"head_dim": 32, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 19},
        "left",
    ),
    "llama": Family("llama", {"hidden_size": 128, "tie_word_embeddings": True}, "left"),
    "qwen2": Family("qwen2", {"hidden_size": 128, "num_key_value_heads": 1, "tie_word_embeddings": False}),
}


def family_config(name: str) -> PreTrainedConfig:
    """The config of the base model of FAMILIES[name]."""
    family = FAMILIES[name]
    config: PreTrainedConfig = AutoConfig.for_model(
        family.model_type, **_SIZES | {"rope_parameters": dict(_ROPE)} | family.config
    )
    return config


def shortest_window(name: str) -> int | None:
    """Tokens that the layers of a model with the shortest sliding window see; None without a window."""
    config = family_config(name)
    kinds = getattr(config, "layer_types", None) or ["sliding_attention"]
    return getattr(config, "sliding_window", None) or None if "sliding_attention" in kinds else None


def save_family(name: str, folder: Path) -> Path:
    """Write the base checkpoint of FAMILIES[name] to `folder` and return that path."""
    torch.manual_seed(list(FAMILIES).index(name))
    model = AutoModelForCausalLM.from_config(family_config(name), dtype=torch.float32)
    for parameter in model.parameters():
        if parameter.dim() == 1:
            parameter.data += torch.randn_like(parameter) * 0.3
    model.save_pretrained(folder)
    return folder
