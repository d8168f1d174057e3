"""What a TFB checkpoint's config.json says, as config classes of transformers. Importing this registers them."""

from dataclasses import dataclass
from os import PathLike
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import (
    AutoConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    Olmo2Config,
    Olmo3Config,
    Phi3Config,
    Qwen2Config,
    Qwen2MoeConfig,
    Qwen3Config,
    Qwen3MoeConfig,
    SmolLM3Config,
    Starcoder2Config,
)

from .architectures import ARCHITECTURES, Architecture
from .noise_config import DEFAULT_RANK, NOISE_KINDS, PROJECTIONS, NoiseConfig, check_kind

__all__ = [
    "ARCHITECTURES",
    "DEFAULT_RANK",
    "NOISE_KINDS",
    "Architecture",
    "NoiseConfig",
    "NoiseKeys",
    "TFBGemma2Config",
    "TFBGemma3Config",
    "TFBGemmaConfig",
    "TFBGraniteConfig",
    "TFBKeys",
    "TFBLlamaConfig",
    "TFBMistralConfig",
    "TFBMixtralConfig",
    "TFBOlmo2Config",
    "TFBOlmo3Config",
    "TFBPhi3Config",
    "TFBQwen2Config",
    "TFBQwen2MoeConfig",
    "TFBQwen3Config",
    "TFBQwen3MoeConfig",
    "TFBSmolLM3Config",
    "TFBStarcoder2Config",
    "check_kind",
    "register_configs",
]


@dataclass(kw_only=True)
class NoiseKeys:
    """The keys of NoiseConfig as fields of a transformers config class.

    Only NoiseConfig checks them: transformers' own check by type refuses a whole number for sigma, with no ValueError.
    """

    bayes_sigma: Any = NoiseConfig.bayes_sigma
    bayes_noise: Any = NoiseConfig.bayes_noise
    basis_idx: Any = NoiseConfig.basis_idx
    num_samples: Any = NoiseConfig.num_samples
    sample: Any = NoiseConfig.sample
    use_tfb_for_generation: Any = NoiseConfig.use_tfb_for_generation


@dataclass(kw_only=True)
class TFBKeys(NoiseKeys):
    """The TFB keys of config.json, for mixing into the config class of a model family."""

    bayes_projections: Any = PROJECTIONS
    lowrank: bool = True
    init_basis_vectors: bool = True
    base_lm_path: str | None = None

    def to_diff_dict(self) -> dict[str, Any]:
        """What config.json holds. The default projections are left out, as in files from before there were others."""
        keys: dict[str, Any] = super().to_diff_dict()  # type: ignore[misc]
        if keys["bayes_projections"] in (PROJECTIONS, [*PROJECTIONS]):
            del keys["bayes_projections"]
        return keys

    def save_pretrained(self, save_directory: str | PathLike[str], **kwargs: Any) -> None:
        """Write config.json. `architectures` keeps the published name, whatever class the model in memory has."""
        published = {a.config_class: a.vllm_architecture for a in ARCHITECTURES.values()}
        self.architectures = [published[type(self)]]  # type: ignore[index]
        super().save_pretrained(save_directory, **kwargs)  # type: ignore[misc]


@strict
class TFBLlamaConfig(TFBKeys, LlamaConfig):
    """LlamaConfig plus the TFB keys."""

    model_type = "tfb_llama"


@strict
class TFBQwen2Config(TFBKeys, Qwen2Config):
    """Qwen2Config plus the TFB keys."""

    model_type = "tfb_qwen2"


@strict
class TFBQwen3Config(TFBKeys, Qwen3Config):
    """Qwen3Config plus the TFB keys."""

    model_type = "tfb_qwen3"


@strict
class TFBMistralConfig(TFBKeys, MistralConfig):
    """MistralConfig plus the TFB keys."""

    model_type = "tfb_mistral"


@strict
class TFBGraniteConfig(TFBKeys, GraniteConfig):
    """GraniteConfig plus the TFB keys."""

    model_type = "tfb_granite"


@strict
class TFBGemmaConfig(TFBKeys, GemmaConfig):
    """GemmaConfig plus the TFB keys."""

    model_type = "tfb_gemma"


@strict
class TFBGemma2Config(TFBKeys, Gemma2Config):
    """Gemma2Config plus the TFB keys."""

    model_type = "tfb_gemma2"


@strict
class TFBGemma3Config(TFBKeys, Gemma3TextConfig):
    """Gemma3TextConfig plus the TFB keys."""

    model_type = "tfb_gemma3_text"


@strict
class TFBPhi3Config(TFBKeys, Phi3Config):
    """Phi3Config plus the TFB keys."""

    model_type = "tfb_phi3"


@strict
class TFBOlmo2Config(TFBKeys, Olmo2Config):
    """Olmo2Config plus the TFB keys."""

    model_type = "tfb_olmo2"


@strict
class TFBOlmo3Config(TFBKeys, Olmo3Config):
    """Olmo3Config plus the TFB keys."""

    model_type = "tfb_olmo3"


@strict
class TFBSmolLM3Config(TFBKeys, SmolLM3Config):
    """SmolLM3Config plus the TFB keys."""

    model_type = "tfb_smollm3"


@strict
class TFBStarcoder2Config(TFBKeys, Starcoder2Config):
    """Starcoder2Config plus the TFB keys."""

    model_type = "tfb_starcoder2"


@strict
class TFBQwen2MoeConfig(TFBKeys, Qwen2MoeConfig):
    """Qwen2MoeConfig plus the TFB keys."""

    model_type = "tfb_qwen2_moe"


@strict
class TFBQwen3MoeConfig(TFBKeys, Qwen3MoeConfig):
    """Qwen3MoeConfig plus the TFB keys."""

    model_type = "tfb_qwen3_moe"


@strict
class TFBMixtralConfig(TFBKeys, MixtralConfig):
    """MixtralConfig plus the TFB keys."""

    model_type = "tfb_mixtral"


def register_configs() -> None:
    """Make AutoConfig and AutoTokenizer know the TFB model types. Safe to call again."""
    for architecture in ARCHITECTURES.values():
        AutoConfig.register(architecture.model_type, architecture.config_class, exist_ok=True)


register_configs()
