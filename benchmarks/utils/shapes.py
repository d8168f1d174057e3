"""Model shapes to benchmark without weights, and what one decode step must read and compute at least."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import (
    AutoConfig,
    Gemma3TextConfig,
    LlamaConfig,
    Phi3Config,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from bayesian_transformer.config import ARCHITECTURES, DEFAULT_RANK

_LLAMA_3 = {"vocab_size": 128256, "rms_norm_eps": 1e-5, "max_position_embeddings": 131072}
_LLAMA_3_ROPE = {"rope_type": "default", "rope_theta": 500000.0}

# The sizes in the published config.json files. "tiny" is for tests.
SHAPES: dict[str, PreTrainedConfig] = {
    "llama-3.2-1b": LlamaConfig(
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=16,
        num_attention_heads=32,
        num_key_value_heads=8,
        tie_word_embeddings=True,
        rope_parameters=_LLAMA_3_ROPE,
        **_LLAMA_3,
    ),
    "qwen2.5-3b": Qwen2Config(
        vocab_size=151936,
        hidden_size=2048,
        intermediate_size=11008,
        num_hidden_layers=36,
        num_attention_heads=16,
        num_key_value_heads=2,
        max_position_embeddings=32768,
        rms_norm_eps=1e-6,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 1000000.0},
    ),
    "llama-3.1-8b": LlamaConfig(
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        tie_word_embeddings=False,
        rope_parameters=_LLAMA_3_ROPE,
        **_LLAMA_3,
    ),
    "smollm2-135m": LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=8192,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 100000.0},
    ),
    "qwen3-0.6b": Qwen3Config(
        vocab_size=151936,
        hidden_size=1024,
        intermediate_size=3072,
        num_hidden_layers=28,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        max_position_embeddings=40960,
        rms_norm_eps=1e-6,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 1000000.0},
    ),
    "gemma-3-1b": Gemma3TextConfig(
        vocab_size=262144,
        hidden_size=1152,
        intermediate_size=6912,
        num_hidden_layers=26,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=256,
        max_position_embeddings=32768,
        sliding_window=512,
        layer_types=["full_attention" if layer % 6 == 5 else "sliding_attention" for layer in range(26)],
        query_pre_attn_scalar=256,
        tie_word_embeddings=True,
    ),
    "phi-4-mini": Phi3Config(
        vocab_size=200064,
        hidden_size=3072,
        intermediate_size=8192,
        num_hidden_layers=32,
        num_attention_heads=24,
        num_key_value_heads=8,
        max_position_embeddings=4096,  # where its long factors begin, which cost nothing more
        original_max_position_embeddings=4096,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=199999,
        eos_token_id=199999,
        pad_token_id=199999,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.75},
    ),
    "tiny": LlamaConfig(
        vocab_size=512,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
    ),
}
DTYPE_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}
_BASE_ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
    "phi3": "Phi3ForCausalLM",
}


def write_pair(shape: str, folder: Path, layers: int | None = None) -> tuple[Path, Path]:
    """Write config.json of the base model and of its TFB model of a named shape; returns their folders.

    layers: keep so many layers only, the first ones.
    """
    config = SHAPES[shape]
    values = config.to_dict()
    values.pop("model_type")
    if layers:
        values["num_hidden_layers"] = min(layers, config.num_hidden_layers)
        if values.get("layer_types"):
            values["layer_types"] = values["layer_types"][:layers]
    family = ARCHITECTURES[config.model_type]
    base, tfb = folder / "base", folder / "tfb"
    type(config)(**values | {"architectures": [_BASE_ARCHITECTURES[config.model_type]]}).save_pretrained(base)
    family.config_class(**values).save_pretrained(tfb)
    return base, tfb


@dataclass(frozen=True)
class Cost:
    """The least that a decode step must read (bytes) and compute (floating-point operations)."""

    read: int
    compute: int

    def seconds(self, machine: Mapping[str, Any]) -> float:
        """Duration on a machine that reaches its measured bandwidth or its measured matmul rate, the slower one."""
        return max(self.read / machine["bytes_per_second"], self.compute / machine["flops_per_second"])


@dataclass(frozen=True)
class Shape:
    """What the costs depend on."""

    layers: int
    matmul_weights: int  # elements of all matrices that every row is multiplied with, output embedding included
    basis_elements: int  # of the q and v bases of a TFB model, right noise
    query_width: int  # query heads * head size
    kv_width: int  # KV heads * head size
    vocab_size: int
    embedding_weights: int  # input embedding, 0 where it is tied to the output
    dtype_bytes: int
    window: int = 0  # tokens that layers with a sliding window see
    windowed_layers: int = 0

    @classmethod
    def from_path(cls, model_path: Path, dtype: str) -> "Shape":
        """Shape of a checkpoint of one of these families. ValueError if its config cannot be read."""
        config = AutoConfig.from_pretrained(model_path, local_files_only=True)
        if config.model_type not in _BASE_ARCHITECTURES:
            raise ValueError(
                f"{model_path}: model type {config.model_type!r}; give a base model of {', '.join(_BASE_ARCHITECTURES)}"
            )
        hidden, heads = config.hidden_size, config.num_attention_heads
        head_size = getattr(config, "head_dim", None) or hidden // heads
        query, kv = heads * head_size, config.num_key_value_heads * head_size
        layer = hidden * (2 * query + 2 * kv) + 3 * hidden * config.intermediate_size
        embedding = hidden * config.vocab_size
        return cls(
            layers=config.num_hidden_layers,
            matmul_weights=config.num_hidden_layers * layer + embedding,
            basis_elements=config.num_hidden_layers * DEFAULT_RANK * (query + kv),
            query_width=query,
            kv_width=kv,
            vocab_size=config.vocab_size,
            embedding_weights=0 if config.tie_word_embeddings else embedding,
            dtype_bytes=DTYPE_BYTES[dtype],
            window=getattr(config, "sliding_window", None) or 0,
            windowed_layers=(getattr(config, "layer_types", None) or []).count("sliding_attention"),
        )

    @property
    def kv_token_bytes(self) -> int:
        """K and V of one token in all layers."""
        return 2 * self.layers * self.kv_width * self.dtype_bytes

    def seen(self, context: int) -> int:
        """Tokens whose K/V a step reads, summed over the layers."""
        return self.layers * context - self.windowed_layers * max(0, context - self.window)

    @property
    def weight_bytes(self) -> int:
        return (self.matmul_weights + self.embedding_weights) * self.dtype_bytes

    def step_cost(self, sequences: int, context: int, num_samples: int = 1) -> Cost:
        """One token for each of `sequences`, each with its own K/V of `context` tokens, in all its weight samples.

        Every weight and every cached K/V is read once; rows = sequences * num_samples. Activations, norms, softmax and
        the statistics count as nothing.
        """
        rows = sequences * num_samples
        weights = self.matmul_weights + (self.basis_elements if num_samples > 1 else 0)
        attention = 4 * rows * self.seen(context) * self.query_width  # q k^T and the weighted sum of v
        noise = 2 * (rows - sequences) * self.basis_elements
        return Cost(
            read=weights * self.dtype_bytes + sequences * self.seen(context) * self.kv_token_bytes // self.layers,
            compute=2 * rows * self.matmul_weights + attention + noise,
        )
