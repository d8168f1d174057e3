"""Config and tokenizer, but no weights, of TFB models whose chat templates do what Llama 3's and Qwen2.5's do."""

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import GenerationConfig, PreTrainedTokenizerFast

from bayesian_transformer.config import ARCHITECTURES

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


def byte_tokenizer(template: str) -> PreTrainedTokenizerFast:
    """A tokenizer with one token per byte, which adds a BOS to what it is given, as Llama's does."""
    vocabulary = {token: i for i, token in enumerate(SPECIAL + sorted(pre_tokenizers.ByteLevel.alphabet()))}
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


def save_model_without_weights(folder: Path, kind: str, **config: Any) -> Path:
    """Write config.json, generation_config.json and tokenizer of a TFB model (`kind` llama or qwen2) to `folder`."""
    architecture = ARCHITECTURES[kind]
    values = {"basis_idx": list(range(4)), "num_samples": 3, "bos_token_id": 0, "eos_token_id": [1, 3]} | config
    architecture.config_class(architectures=[architecture.vllm_architecture], **values).save_pretrained(folder)
    GenerationConfig(eos_token_id=[3]).save_pretrained(folder)
    byte_tokenizer(LLAMA_TEMPLATE if kind == "llama" else QWEN_TEMPLATE).save_pretrained(folder)
    return folder
