"""Gives TFB model types the tokenizers of their bases. Importing this module registers them."""

from transformers import CONFIG_MAPPING
from transformers.models.auto import tokenization_auto

from ..architectures import ARCHITECTURES, Architecture


def register_tokenizers() -> None:
    """Make AutoTokenizer know the TFB model types. Safe to call again."""
    for architecture in ARCHITECTURES.values():
        _register(architecture)


def _register(architecture: Architecture) -> None:
    """Give a TFB model type the tokenizer of its base.

    AutoTokenizer knows the class where a checkpoint names none, and overrules the `tokenizer_class` of some model types
    whose checkpoints are known to name a wrong one. It looks both up by model type.
    """
    base, ours = architecture.base_model_type, architecture.model_type
    names = tokenization_auto.TOKENIZER_MAPPING_NAMES
    if names.get(base) is not None:
        names[ours] = names[base]
        mapping = tokenization_auto.TOKENIZER_MAPPING
        mapping.register(architecture.config_class, mapping[CONFIG_MAPPING[base]], exist_ok=True)
    overruled: set[str] = getattr(tokenization_auto, "MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS", set())
    if base in overruled:
        overruled.add(ours)


register_tokenizers()
