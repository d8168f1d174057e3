"""TFB Starcoder2 for vLLM."""

from .transformers_backend import TransformersTFBModel


class VllmTFBStarcoder2ForCausalLM(TransformersTFBModel):
    """transformers' Starcoder2 in vLLM with particle rows."""
