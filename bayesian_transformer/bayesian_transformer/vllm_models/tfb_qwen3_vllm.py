"""TFB Qwen3 for vLLM."""

from vllm.model_executor.models.qwen3 import Qwen3ForCausalLM

from ..vllm_plugin.model_mixin import TFBModelMixin


class VllmTFBQwen3ForCausalLM(TFBModelMixin, Qwen3ForCausalLM):
    """vLLM's Qwen3 with particle rows."""
