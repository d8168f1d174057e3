"""A tiny random Llama as a TFB checkpoint, made on the spot."""

from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from ...conversion import convert_checkpoint
from ..protocol import doing

VOCABULARY = 1024
LENGTH = 256  # tokens that fit into it
# The noise is strong, so that it is not lost in the rounding of 16 bit numbers.
NOISE = {"num_samples": 5, "bayes_sigma": 0.5}
_CONFIG = {
    "vocab_size": VOCABULARY,
    "hidden_size": 256,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,  # the attention of vLLM takes it on a CPU and on every GPU
    "max_position_embeddings": LENGTH,
    "initializer_range": 0.06,  # large enough for attention and logits to vary
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def write_tiny_model(folder: Path, dtype: torch.dtype) -> Path:
    """Write the base checkpoint and the TFB checkpoint made of it below `folder`; the path of the latter.

    It has no tokenizer: texts are token ids.
    """
    doing("writing a tiny random model")
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**_CONFIG, dtype=dtype)).to(dtype)
    model.save_pretrained(folder / "base")
    return convert_checkpoint(folder / "base", folder / "tfb")
