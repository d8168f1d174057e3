"""The supported model families, one declaration each. Importing this module imports neither torch nor transformers.

To add one, add a line to ARCHITECTURES, and the classes that follow from its name: a config class in config.py, a class
of transformers in vllm_models/tfb_llama.py (which holds every family's), a class of vLLM in a file of its own in
vllm_models/, and prompts in run/utils/config.py if an existing family's do not fit. docs/architecture.md has the tests
that tell.
"""

import importlib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

_MODELS = "bayesian_transformer.vllm_models"


@dataclass(frozen=True)
class Architecture:
    """One model family. Classes are named as "module:class" and imported when they are asked for.

    The decoder layers must lie at `model.layers` and hold `self_attn.{q,k,v}_proj` in the checkpoint, or
    `self_attn.qkv_proj`, and `self_attn.qkv_proj` and `self_attn.attn` in vLLM's class.
    """

    base_model_type: str  # `model_type` of the base checkpoint
    vllm_architecture: str  # the published name in `architectures`
    config_path: str  # the config class of the TFB models
    model_path: str  # the TFB model of transformers
    vllm_model_path: str  # the TFB model of vLLM
    prompts: str  # key of PROMPT_FAMILIES in run/utils/config.py
    windows: bool = False  # layers may have a sliding window, which vLLM and transformers read alike
    needs_range: bool = False  # its numbers leave the range of float16
    fused_qkv: bool = False  # the checkpoint holds `self_attn.qkv_proj`, the rows of q over those of k over those of v
    transformers_backend: bool = False  # vLLM has no class of its own for it, and runs that of transformers
    experts: bool = False  # a router sends each row to some of many MLPs, its experts

    @property
    def model_type(self) -> str:
        """`model_type` of the TFB checkpoints."""
        return f"tfb_{self.base_model_type}"

    @property
    def config_class(self) -> Any:
        """The config class, a subclass of the base model's."""
        return _imported(self.config_path)

    @property
    def model_class(self) -> Any:
        """The TFB model of transformers."""
        return _imported(self.model_path)


def _family(base_model_type: str, name: str, prompts: str, *, published_name: str = "", **traits: bool) -> Architecture:
    """A declaration whose classes are named after the family's `name`; `traits` are the last fields of Architecture."""
    vllm_architecture = f"VllmTFB{published_name or name}ForCausalLM"
    return Architecture(
        base_model_type=base_model_type,
        vllm_architecture=vllm_architecture,
        config_path=f"bayesian_transformer.config:TFB{name}Config",
        model_path=f"{_MODELS}.tfb_llama:TFB{name}ForCausalLM",
        vllm_model_path=f"{_MODELS}.tfb_{name.lower()}_vllm:{vllm_architecture}",
        prompts=prompts,
        **traits,
    )


ARCHITECTURES = {
    family.base_model_type: family
    for family in (
        _family("llama", "Llama", "llama", published_name="LLama"),
        _family("qwen2", "Qwen2", "qwen2"),
        _family("qwen3", "Qwen3", "qwen2"),
        _family("mistral", "Mistral", "qwen2", windows=True),
        _family("granite", "Granite", "qwen2"),
        _family("gemma", "Gemma", "qwen2"),
        _family("gemma2", "Gemma2", "qwen2", windows=True, needs_range=True),
        _family("gemma3_text", "Gemma3", "qwen2", windows=True, needs_range=True),
        _family("phi3", "Phi3", "qwen2", windows=True, fused_qkv=True),
        _family("olmo2", "Olmo2", "qwen2", transformers_backend=True),
        _family("olmo3", "Olmo3", "qwen2", windows=True, transformers_backend=True),
        _family("smollm3", "SmolLM3", "qwen2", windows=True, transformers_backend=True),
        _family("starcoder2", "Starcoder2", "qwen2", windows=True, transformers_backend=True),
        _family("qwen2_moe", "Qwen2Moe", "qwen2", experts=True),
        _family("qwen3_moe", "Qwen3Moe", "qwen2", experts=True),
        _family("mixtral", "Mixtral", "qwen2", windows=True, experts=True),
    )
}


# What stands in the way of models that people ask for.
_LATENT = "its attention keeps a latent vector in place of keys and values"
_OBSTACLES = {
    "deepseek_v2": _LATENT,
    "deepseek_v3": _LATENT,
    "falcon": "it has no self_attn with q_proj, k_proj and v_proj",
    "gpt_oss": "its attention has sinks, which that of the noisy rows has not",
}
_PARTS = ("text_config", "vision_config", "audio_config")  # keys in the config of a model that is made of several


def architecture_of(model_type: object, keys: Collection[str] = ()) -> Architecture:
    """The family of a `model_type`, that of its base models or of its TFB models.

    ValueError, in one line that says why, if it is none of ours.

    Args:
        keys: those of the model's config, which tell a multimodal model.
    """
    for architecture in ARCHITECTURES.values():
        if model_type in (architecture.base_model_type, architecture.model_type):
            return architecture
    reason = _OBSTACLES.get(model_type, "") if isinstance(model_type, str) else ""
    if any(part in keys for part in _PARTS):
        reason = "it is multimodal: the model of text is a part of another one"
    raise ValueError(
        f"model_type {model_type!r} is not supported; it must be one of {', '.join(ARCHITECTURES)} "
        f"({reason}{'; ' if reason else ''}docs/architecture.md tells how to add a family)"
    )


def is_plain(model_type: object) -> bool:
    """Whether a `model_type` is that of a supported base checkpoint, which holds no basis vectors."""
    return isinstance(model_type, str) and model_type in ARCHITECTURES


def _imported(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)
