"""TFB Gemma3 for vLLM."""

from vllm.model_executor.models.gemma3 import Gemma3ForCausalLM

from ..vllm_plugin.model_mixin import TFBModelMixin


class VllmTFBGemma3ForCausalLM(TFBModelMixin, Gemma3ForCausalLM):
    """vLLM's Gemma3 with particle rows."""
