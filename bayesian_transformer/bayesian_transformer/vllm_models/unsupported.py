"""What stands for the TFB models where vLLM's version is not supported."""

from typing import Any

from vllm.model_executor.models.llama import LlamaForCausalLM

from ..vllm_plugin.substitutions import unsupported_reason


class UnsupportedModel(LlamaForCausalLM):
    """Passes vLLM's inspection as the Llama it is, and cannot be made."""

    def __init__(self, **kwargs: Any) -> None:
        raise ValueError(unsupported_reason())
