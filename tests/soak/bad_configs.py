"""Mutations of config.json: its syntax, wrong types, negative and enormous values, the keys of the noise."""

import os
from pathlib import Path
from typing import Any

from bayesian_transformer.checkpoint import CONFIG_FILE
from tests.soak.mutation import BIAS, CONVERT, LOAD, VLLM, Mutation, accepted, config, json_file, text

_DEEP = '{"model_type":' + "[" * 200_000 + "]" * 200_000 + "}"
_STOCK_VLLM = {VLLM: "vLLM and transformers read config.json before the plugin is asked"}
_TEXTS: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "not valid JSON"),
    "not JSON": ("{", "not valid"),
    "a list": ("[]", "expected a JSON object"),
    "null": ("null", "expected a JSON object"),
    "a text": ('"llama"', "expected a JSON object"),
    "deep": (_DEEP, "not valid JSON"),
    "in UTF-16": ('{"model_type": "llama"}'.encode("utf-16"), "save the file as UTF-8"),
    "in Latin-1": ('{"model_type": "ll\u00e4ma"}'.encode("latin-1"), "not valid UTF-8"),
    "with a byte order mark": (b'\xef\xbb\xbf{"model_type": "llama"}', "byte order mark"),
    "empty object": ("{}", "model_type"),
    "zeros": (bytes(1000), "not valid"),
}
# Keys, their values, and what the error says of them; wrong at every stage.
_WRONG: tuple[tuple[str, Any, str], ...] = (
    ("num_hidden_layers", "2", "num_hidden_layers"),
    ("num_hidden_layers", 2.5, "num_hidden_layers"),
    ("num_hidden_layers", None, "num_hidden_layers"),
    ("num_hidden_layers", True, "num_hidden_layers"),
    ("num_hidden_layers", 0, "num_hidden_layers"),
    ("num_hidden_layers", -1, "num_hidden_layers"),
    ("num_hidden_layers", 3, "model.layers.2.self_attn.q_proj.weight"),
    ("num_hidden_layers", 10**12, "model.layers.2.self_attn.q_proj.weight"),
    ("hidden_size", 0, ""),
    ("hidden_size", -64, ""),
    ("hidden_size", 65, ""),
    ("hidden_size", 128, "has shape"),
    ("hidden_size", 1 << 40, ""),
    ("hidden_size", 1 << 62, ""),
    ("hidden_size", 10**400, ""),
    ("hidden_size", "64", "hidden_size"),
    ("hidden_size", None, "hidden_size"),
    ("hidden_size", [64], "hidden_size"),
    ("intermediate_size", -1, ""),
    ("intermediate_size", 1 << 50, ""),
    ("intermediate_size", 97, "mlp"),
    ("intermediate_size", {}, "intermediate_size"),
    ("vocab_size", 0, ""),
    ("vocab_size", -1, ""),
    ("vocab_size", 63, "model.embed_tokens.weight"),
    ("vocab_size", 1 << 60, ""),
    ("num_attention_heads", 0, ""),
    ("num_attention_heads", -2, ""),
    ("num_attention_heads", 4, "self_attn"),
    ("num_attention_heads", 10**9, ""),
    ("num_key_value_heads", 0, ""),
    ("num_key_value_heads", -1, ""),
    ("num_key_value_heads", 3, ""),
    ("head_dim", 0, ""),
    ("head_dim", -32, ""),
    ("head_dim", 1 << 40, ""),
    ("attention_bias", True, BIAS),
    ("hidden_act", "rm -rf /", ""),
    ("hidden_act", None, ""),
    ("rms_norm_eps", "tiny", "rms_norm_eps"),
    ("rope_parameters", {"rope_type": "banana", "rope_theta": 1e4}, ""),
    ("rope_parameters", [], ""),
    ("rope_parameters", {"rope_type": "default", "rope_theta": float("nan")}, "rope_parameters holds NaN"),
    ("rms_norm_eps", float("inf"), "rms_norm_eps holds NaN or an infinity"),
    *(("max_position_embeddings", value, "max_position_embeddings") for value in (0, -1, "x", 10**9, 1 << 60)),
    ("dtype", "float99", ""),
    ("pad_token_id", "none", "pad_token_id"),
)
_NOISE: tuple[tuple[str, Any], ...] = (
    *(("num_samples", value) for value in (0, -1, 2.5, "ten", None, True, 10**12)),
    *(("bayes_sigma", value) for value in (-0.1, "x", None, float("nan"), float("inf"), [0.1])),
    *(("bayes_noise", value) for value in ("left", "banana", None, 7)),
    *(("basis_idx", value) for value in ([], [0, 0], [-1], ["a"], None, 3, [0, 1], [0.5])),
    *((key, value) for key in ("sample", "use_tfb_for_generation") for value in ("yes", 1, None)),
)
_HARMLESS: tuple[tuple[str, Any, str], ...] = (
    ("max_position_embeddings", 100_000, "only bounds the length of a text"),
    ("rope_parameters", {"rope_type": "default", "rope_theta": 1e300}, "a number, though not a good one"),
    ("unheard_of", {"a": [1, 2, 3]}, "transformers keeps keys that it does not know"),
    ("note", "x" * 1_000_000, "transformers keeps keys that it does not know"),
    ("auto_map", {"AutoModelForCausalLM": "evil.Evil"}, "no code of a checkpoint runs unless it is asked for"),
    ("_name_or_path", "../../../etc/passwd", "only shown"),
)


def _vocabulary_twice(folder: Path) -> None:
    path = folder / CONFIG_FILE
    path.write_text(path.read_text().replace('"vocab_size":', '"vocab_size": 4, "vocab_size":'))


def _named(says: str) -> tuple[str, ...]:
    return (says,) if says.startswith("model.") else (CONFIG_FILE, says)


def config_mutations() -> list[Mutation]:
    """Those that the base model and the TFB model share, then those of the noise."""
    return [
        *(
            Mutation(f"config {name}", text(CONFIG_FILE, value), (CONFIG_FILE, says), stock=_STOCK_VLLM)
            for name, (value, says) in _TEXTS.items()
        ),
        *(
            Mutation(f"config {key}={str(value)[:60]}", config(**{key: value}), _named(says), stock=_STOCK_VLLM)
            for key, value, says in _WRONG
        ),
        *(
            Mutation(f"config {key}={str(value)[:60]}", config(**{key: value}), accepted=accepted(why))
            for key, value, why in _HARMLESS
        ),
        *_of_models(),
        Mutation("config with a key twice", _vocabulary_twice, (CONFIG_FILE, "'vocab_size' occurs twice")),
        Mutation(
            "config of a terabyte",
            lambda folder: os.truncate(folder / CONFIG_FILE, 1 << 40),
            (CONFIG_FILE, "bytes"),
            stages=(CONVERT, LOAD),  # vLLM would read it before the plugin is asked
        ),
        *(
            Mutation(f"config {key}={value}", config(**{key: value}), (key,), stages=(LOAD, VLLM))
            for key, value in _NOISE
        ),
        Mutation(
            "config basis_idx=a million",
            config(basis_idx=list(range(1_000_000))),
            ("basis_vectors", "bayes_noise and basis_idx"),
            stages=(LOAD, VLLM),
        ),
    ]


def _of_models() -> list[Mutation]:
    """Which model it is: of interest to the conversion, as AutoModel finds no TFB model else."""
    only = (CONVERT,)
    types = ("tfb_llama", "gpt2", "", None, 7, ["llama"], "LLAMA")
    return [
        *(
            Mutation(f"config model_type={value!r}", config(model_type=value), (CONFIG_FILE, "model_type"), stages=only)
            for value in types
        ),
        Mutation("config without model_type", json_file(CONFIG_FILE, lambda c: c.pop("model_type")), ("model_type",)),
        Mutation("config quantized", config(quantization_config={"bits": 4}), (CONFIG_FILE, "quantised"), stages=only),
        Mutation(
            "config transformers_weights",
            config(transformers_weights="model-00001-of-00002.safetensors"),
            (CONFIG_FILE, "transformers_weights"),
        ),
        Mutation(
            "config architectures of junk",
            config(architectures=["os.system"]),
            accepted=accepted("the conversion writes its own; transformers goes by model_type", CONVERT, LOAD),
            stock={VLLM: "vLLM knows no such architecture"},
        ),
    ]
