"""TFB Gemma2 for vLLM."""

from vllm.model_executor.models.gemma2 import Gemma2ForCausalLM

from ..vllm_plugin.model_mixin import TFBModelMixin


class VllmTFBGemma2ForCausalLM(TFBModelMixin, Gemma2ForCausalLM):
    """vLLM's Gemma2 with particle rows."""
