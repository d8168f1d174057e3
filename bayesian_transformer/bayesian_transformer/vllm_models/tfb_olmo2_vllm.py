"""TFB Olmo2 for vLLM."""

from .transformers_backend import TransformersTFBModel


class VllmTFBOlmo2ForCausalLM(TransformersTFBModel):
    """transformers' Olmo2 in vLLM with particle rows."""
