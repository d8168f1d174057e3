"""TFB Qwen2Moe for vLLM."""

from vllm.model_executor.models.qwen2_moe import Qwen2MoeForCausalLM

from ..vllm_plugin.model_mixin import TFBModelMixin


class VllmTFBQwen2MoeForCausalLM(TFBModelMixin, Qwen2MoeForCausalLM):
    """vLLM's Qwen2Moe with particle rows."""
