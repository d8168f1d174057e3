"""What a TFB checkpoint's config.json says about its noise, and the transformers config classes that carry it."""

import math
from dataclasses import dataclass, fields, replace
from os import PathLike
from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers import CONFIG_MAPPING, AutoConfig, LlamaConfig, PreTrainedConfig, Qwen2Config
from transformers.models.auto import tokenization_auto

from .layers import NOISE_KINDS, check_kind

DEFAULT_RANK = 8


@dataclass(frozen=True)
class NoiseConfig:
    """The noise keys of a TFB model config, validated; absent keys take the published defaults."""

    bayes_sigma: float = 0.1  # scale of the Gaussian noise, >= 0
    bayes_noise: str = "right"  # direction of the low-rank noise, see layers.py
    basis_idx: tuple[int, ...] = tuple(range(DEFAULT_RANK))  # which singular directions, by descending singular value
    num_samples: int = 10  # weight samples per token, the noise-free one included
    sample: bool = True  # False runs the noise-free model only
    use_tfb_for_generation: bool = False  # draw tokens from the mean of all samples, not from the noise-free one
    kinds: ClassVar[tuple[str, ...]] = NOISE_KINDS

    @classmethod
    def from_model_config(cls, config: Any) -> "NoiseConfig":
        """Read the keys from a transformers config (or anything with these attributes); ValueError names a bad key."""
        noise = cls(**{name: getattr(config, name, default) for name, default in _defaults().items()})
        noise._validate()
        return replace(noise, bayes_sigma=float(noise.bayes_sigma), basis_idx=tuple(noise.basis_idx))

    def replaced(self, **changes: Any) -> "NoiseConfig":
        """A validated copy with some keys changed."""
        noise = replace(self, **changes)
        noise._validate()
        return noise

    @property
    def effective_samples(self) -> int:
        """Weight samples that are computed: 1 when sampling is switched off."""
        return self.num_samples if self.sample else 1

    @property
    def rank(self) -> int:
        return len(self.basis_idx)

    def _validate(self) -> None:
        check_kind(self.bayes_noise, self.kinds)
        sigma, indices = self.bayes_sigma, self.basis_idx
        if not isinstance(sigma, int | float) or isinstance(sigma, bool) or not 0 <= sigma < math.inf:
            raise ValueError(f"bayes_sigma must be a finite number >= 0; got {sigma!r}")
        if not _is_integer(self.num_samples) or self.num_samples < 1:
            raise ValueError(f"num_samples must be an integer >= 1; got {self.num_samples!r}")
        if not isinstance(indices, list | tuple) or not indices or any(not _is_integer(i) or i < 0 for i in indices):
            raise ValueError(f"basis_idx must list integers >= 0, at least one; got {indices!r}")
        if len(set(indices)) != len(indices):
            raise ValueError(f"basis_idx must not repeat an index; got {list(indices)!r}")
        for key in ("sample", "use_tfb_for_generation"):
            if not isinstance(getattr(self, key), bool):
                raise ValueError(f"{key} must be true or false; got {getattr(self, key)!r}")


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _defaults() -> dict[str, Any]:
    return {field.name: field.default for field in fields(NoiseConfig)}


@dataclass(kw_only=True)
class NoiseKeys:
    """The keys of NoiseConfig as fields of a transformers config class.

    Only NoiseConfig checks them: transformers' own check by type refuses a whole number for sigma and is no ValueError.
    """

    bayes_sigma: Any = 0.1
    bayes_noise: Any = "right"
    basis_idx: Any = tuple(range(DEFAULT_RANK))
    num_samples: Any = 10
    sample: Any = True
    use_tfb_for_generation: Any = False


@dataclass(kw_only=True)
class TFBKeys(NoiseKeys):
    """The TFB keys of config.json, for mixing into the config class of a model family."""

    lowrank: bool = True
    init_basis_vectors: bool = True
    base_lm_path: str | None = None

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


@dataclass(frozen=True)
class Architecture:
    """One supported model family."""

    config_class: type[PreTrainedConfig]
    base_model_type: str  # `model_type` of the base checkpoint
    vllm_architecture: str  # the published name in `architectures`


ARCHITECTURES = {
    "llama": Architecture(TFBLlamaConfig, "llama", "VllmTFBLLamaForCausalLM"),
    "qwen2": Architecture(TFBQwen2Config, "qwen2", "VllmTFBQwen2ForCausalLM"),
}


def register_configs() -> None:
    """Make AutoConfig and AutoTokenizer know the TFB model types. Safe to call again."""
    for architecture in ARCHITECTURES.values():
        AutoConfig.register(architecture.config_class.model_type, architecture.config_class, exist_ok=True)
        _register_tokenizer(architecture)


def _register_tokenizer(architecture: Architecture) -> None:
    """Give a TFB model type the tokenizer of its base.

    AutoTokenizer knows the class where a checkpoint names none, and overrules the `tokenizer_class` of some model types
    whose checkpoints are known to name a wrong one. It looks both up by model type.
    """
    base, ours = architecture.base_model_type, architecture.config_class.model_type
    names = tokenization_auto.TOKENIZER_MAPPING_NAMES
    if names.get(base) is not None:
        names[ours] = names[base]
        mapping = tokenization_auto.TOKENIZER_MAPPING
        mapping.register(architecture.config_class, mapping[CONFIG_MAPPING[base]], exist_ok=True)
    overruled: set[str] = getattr(tokenization_auto, "MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS", set())
    if base in overruled:
        overruled.add(ours)
