"""TFB Olmo3 for vLLM."""

from .transformers_backend import TransformersTFBModel


class VllmTFBOlmo3ForCausalLM(TransformersTFBModel):
    """transformers' Olmo3 in vLLM with particle rows."""
