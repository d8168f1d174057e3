"""Small random TFB models with a chat template, for tests that need a model folder and not its knowledge."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from bayesian_transformer.config import ARCHITECTURES
from bayesian_transformer.layers import basis_vectors
from bayesian_transformer.noise import PROJECTIONS

SPECIAL = ["<|begin|>", "<|eos|>", "<|turn|>", "<|end_of_turn|>"]
# Like Llama 3: begins with BOS, prints a date, today's unless `date_string` is given.
LLAMA_TEMPLATE = (
    "{{ bos_token }}{% if date_string is not defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    "<|turn|>system\nToday: {{ date_string }}\n"
    "{% if messages[0].role == 'system' %}{{ messages[0].content }}{% endif %}<|end_of_turn|>"
    "{% for m in messages if m.role != 'system' %}<|turn|>{{ m.role }}\n{{ m.content }}<|end_of_turn|>{% endfor %}"
    "{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
)
# Like Qwen2.5: no BOS, its own default system prompt.
QWEN_TEMPLATE = (
    "{% if messages[0].role != 'system' %}<|turn|>system\nYou are the default.<|end_of_turn|>\n{% endif %}"
    "{% for m in messages %}<|turn|>{{ m.role }}\n{{ m.content }}<|end_of_turn|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
)


def byte_tokenizer(template: str | None) -> PreTrainedTokenizerFast:
    """A tokenizer with one token per byte, whose post-processing would add a BOS as Llama's does."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(SPECIAL + alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="<|begin|> $A", special_tokens=[("<|begin|>", 0)])
    tokenizer.add_special_tokens(SPECIAL)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|begin|>", eos_token="<|eos|>", additional_special_tokens=SPECIAL[2:]
    )
    fast.chat_template = template
    return fast


def save_tiny_model(folder: Path, kind: str, **config: Any) -> Path:
    """Write a random float32 TFB model (`kind` llama or qwen2, rank 4, right) with tokenizer to `folder`."""
    tokenizer = byte_tokenizer(LLAMA_TEMPLATE if kind == "llama" else QWEN_TEMPLATE)
    shape = {
        "vocab_size": len(tokenizer),
        "hidden_size": 128,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "bos_token_id": 0,
        "eos_token_id": [1, 3],
    }
    base_config, model_class = (
        (LlamaConfig(**shape), LlamaForCausalLM) if kind == "llama" else (Qwen2Config(**shape), Qwen2ForCausalLM)
    )
    torch.manual_seed(0)
    model = model_class(base_config)
    model.generation_config.eos_token_id = [3]
    with torch.no_grad():
        for name, weight in model.named_parameters():  # spread the logits, so that greedy answers differ
            if "norm" not in name:
                weight.normal_(std=0.2)
    model.save_pretrained(folder)
    _add_basis(folder / "model.safetensors", base_config.num_hidden_layers)
    architecture = ARCHITECTURES[kind]
    tfb = {"basis_idx": list(range(4)), "num_samples": 3, "architectures": [architecture.vllm_architecture]} | config
    values = base_config.to_dict() | {"dtype": "float32"} | tfb
    values.pop("model_type")
    architecture.config_class(**values).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _add_basis(path: Path, layers: int) -> None:
    tensors = load_file(path)
    for layer in range(layers):
        for projection in PROJECTIONS:
            stem = f"model.layers.{layer}.self_attn.{projection}"
            tensors[f"{stem}.basis_vectors"] = basis_vectors(tensors[f"{stem}.weight"], range(4), "right")
    save_file(tensors, path, metadata={"format": "pt"})
