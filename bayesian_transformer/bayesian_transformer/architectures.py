"""The supported model families, one declaration each. Importing this module imports neither torch nor transformers.

To add one, add an `Architecture` here, and what it names: a config class in config.py, a class of transformers in
vllm_models/tfb_llama.py (which holds every family's), a class of vLLM in a file of its own in vllm_models/, and prompts
in run/utils/config.py if an existing family's do not fit. docs/architecture.md has the tests that tell.
"""

import importlib
from dataclasses import dataclass
from typing import Any

_MODELS = "bayesian_transformer.vllm_models"


@dataclass(frozen=True)
class Architecture:
    """One model family. Classes are named as "module:class" and imported when they are asked for.

    The decoder layers must lie at `model.layers` and hold `self_attn.{q,k,v}_proj` in the checkpoint, and
    `self_attn.qkv_proj` and `self_attn.attn` in vLLM's class.
    """

    base_model_type: str  # `model_type` of the base checkpoint
    vllm_architecture: str  # the published name in `architectures`
    config_path: str  # the config class of the TFB models
    model_path: str  # the TFB model of transformers
    vllm_model_path: str  # the TFB model of vLLM
    prompts: str  # key of PROMPT_FAMILIES in run/utils/config.py

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


ARCHITECTURES = {
    "llama": Architecture(
        base_model_type="llama",
        vllm_architecture="VllmTFBLLamaForCausalLM",
        config_path="bayesian_transformer.config:TFBLlamaConfig",
        model_path=f"{_MODELS}.tfb_llama:TFBLlamaForCausalLM",
        vllm_model_path=f"{_MODELS}.tfb_llama_vllm:VllmTFBLLamaForCausalLM",
        prompts="llama",
    ),
    "qwen2": Architecture(
        base_model_type="qwen2",
        vllm_architecture="VllmTFBQwen2ForCausalLM",
        config_path="bayesian_transformer.config:TFBQwen2Config",
        model_path=f"{_MODELS}.tfb_llama:TFBQwen2ForCausalLM",
        vllm_model_path=f"{_MODELS}.tfb_qwen2_vllm:VllmTFBQwen2ForCausalLM",
        prompts="qwen2",
    ),
}


def _imported(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)
