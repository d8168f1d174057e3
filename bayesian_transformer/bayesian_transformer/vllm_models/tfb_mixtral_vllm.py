"""TFB Mixtral for vLLM."""

from vllm.model_executor.models.mixtral import MixtralForCausalLM

from ..vllm_plugin.model_mixin import TFBModelMixin


class VllmTFBMixtralForCausalLM(TFBModelMixin, MixtralForCausalLM):
    """vLLM's Mixtral with particle rows."""
