"""TFB Qwen2 for vLLM."""

from vllm.model_executor.models.qwen2 import Qwen2ForCausalLM

from ..vllm_plugin.model_mixin import TFBModelMixin


class VllmTFBQwen2ForCausalLM(TFBModelMixin, Qwen2ForCausalLM):
    """vLLM's Qwen2 with particle rows."""
