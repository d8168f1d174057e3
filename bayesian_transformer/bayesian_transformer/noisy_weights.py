"""Which tensors of a checkpoint hold the weights that carry noise, by its config.json."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .architectures import architecture_of
from .checkpoint import BASIS
from .noise import site_index
from .noise_config import PROJECTIONS, QKV

FUSED = "qkv_proj"


@dataclass(frozen=True)
class NoisyWeight:
    """The weight of a noisy projection in a checkpoint."""

    prefix: str  # of the projection, for example `model.layers.0.self_attn.q_proj`
    tensor: str  # name of the tensor that holds the weight
    rows: slice  # those of the tensor that are the weight
    site: int  # number of the noise site

    @property
    def basis(self) -> str:
        """Name of the tensor that holds the basis vectors."""
        return f"{self.prefix}.{BASIS}"


def noisy_weights(config: Mapping[str, Any], projections: Sequence[str] = PROJECTIONS) -> list[NoisyWeight]:
    """The weights of the noisy `projections`, in layer order, for a config.json that a model can be made of."""
    fused = architecture_of(config["model_type"]).fused_qkv
    rows = fused_rows(config) if fused else dict.fromkeys(QKV, slice(None))
    return [
        NoisyWeight(
            prefix=f"{_attention_block(layer)}.{projection}",
            tensor=f"{_attention_block(layer)}.{FUSED if fused else projection}.weight",
            rows=rows[projection],
            site=site_index(layer, projection),
        )
        for layer in range(config["num_hidden_layers"])
        for projection in projections
    ]


def noisy_tensors(config: Mapping[str, Any], layer: int) -> list[str]:
    """Names of the tensors that can hold noisy weights in a decoder layer; the config needs no more than its type."""
    names = (FUSED,) if architecture_of(config["model_type"]).fused_qkv else QKV
    return [f"{_attention_block(layer)}.{name}.weight" for name in names]


def fused_rows(config: Mapping[str, Any]) -> dict[str, slice]:
    """Which rows of a fused weight belong to q_proj, k_proj and v_proj: q lies over k, and k over v."""
    for key in ("num_attention_heads", "hidden_size"):
        if key not in config:
            raise ValueError(
                f"config.json lacks {key}, which says where q_proj, k_proj and v_proj lie in {FUSED}; add it"
            )
    heads = config["num_attention_heads"]
    head_size = config.get("head_dim") or config["hidden_size"] // heads
    q, kv = heads * head_size, (config.get("num_key_value_heads") or heads) * head_size
    return {"q_proj": slice(0, q), "k_proj": slice(q, q + kv), "v_proj": slice(q + kv, q + 2 * kv)}


def _attention_block(layer: int) -> str:
    return f"model.layers.{layer}.self_attn"
