"""TFB Qwen3Moe for vLLM."""

from vllm.model_executor.models.qwen3_moe import Qwen3MoeForCausalLM

from ..vllm_plugin.model_mixin import TFBModelMixin


class VllmTFBQwen3MoeForCausalLM(TFBModelMixin, Qwen3MoeForCausalLM):
    """vLLM's Qwen3Moe with particle rows."""
