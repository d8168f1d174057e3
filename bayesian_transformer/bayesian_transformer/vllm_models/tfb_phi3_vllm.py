"""TFB Phi3 for vLLM."""

from vllm.model_executor.models.phi3 import Phi3ForCausalLM

from ..vllm_plugin.model_mixin import TFBModelMixin


class VllmTFBPhi3ForCausalLM(TFBModelMixin, Phi3ForCausalLM):
    """vLLM's Phi3 with particle rows."""
