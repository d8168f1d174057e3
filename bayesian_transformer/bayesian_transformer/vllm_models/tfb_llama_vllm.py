"""TFB Llama for vLLM."""

from vllm.model_executor.models.llama import LlamaForCausalLM

from ..vllm_plugin.model_mixin import TFBModelMixin


class VllmTFBLLamaForCausalLM(TFBModelMixin, LlamaForCausalLM):
    """vLLM's Llama with particle rows."""
