"""TFB SmolLM3 for vLLM."""

from .transformers_backend import TransformersTFBModel


class VllmTFBSmolLM3ForCausalLM(TransformersTFBModel):
    """transformers' SmolLM3 in vLLM with particle rows."""
