"""TFB Mistral for vLLM."""

from vllm.model_executor.models.mistral import MistralForCausalLM

from ..vllm_plugin.model_mixin import TFBModelMixin


class VllmTFBMistralForCausalLM(TFBModelMixin, MistralForCausalLM):
    """vLLM's Mistral with particle rows."""
