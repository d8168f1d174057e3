"""TFB Gemma for vLLM."""

from vllm.model_executor.models.gemma import GemmaForCausalLM

from ..vllm_plugin.model_mixin import TFBModelMixin


class VllmTFBGemmaForCausalLM(TFBModelMixin, GemmaForCausalLM):
    """vLLM's Gemma with particle rows."""
