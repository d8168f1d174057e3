"""TFB Granite for vLLM."""

from vllm.model_executor.models.granite import GraniteForCausalLM

from ..vllm_plugin.model_mixin import TFBModelMixin


class VllmTFBGraniteForCausalLM(TFBModelMixin, GraniteForCausalLM):
    """vLLM's Granite with particle rows."""
