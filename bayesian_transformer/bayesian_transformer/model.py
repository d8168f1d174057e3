"""Any causal LM of transformers with noisy projections: what all such models share, and the general wrapper.

    model = BayesianForCausalLMModel.wrap(AutoModelForCausalLM.from_pretrained(path), target_modules=("qkv_proj",))
    output = model.generate(**inputs, output_uncertainties=True, noise_seed=7)
    output.uncertainties.epistemic                     # float32 [batch, new tokens]

The plain forward is the noise-free base model. Noise exists only in the particle rows of generation and scoring.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar
from weakref import WeakSet

import torch
from huggingface_hub.dataclasses import strict
from safetensors import safe_open
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GenerationConfig,
    GenerationMixin,
    PreTrainedConfig,
    PreTrainedModel,
)

from .checkpoint import BASIS, check_weight, is_quantised, is_tfb, read_config, tensor_files
from .config import DEFAULT_RANK, NoiseConfig, NoiseKeys
from .fitting import check_fit
from .hf.generation import Seeds, generate_with_uncertainties
from .hf.noisy_forward import FULL_RANK_KINDS
from .hf.projections import NoisyProjection, find_projections
from .noise_config import NOISE_KINDS, PROJECTIONS


@dataclass(frozen=True)
class WrapperNoiseConfig(NoiseConfig):
    """NoiseConfig that also knows full-rank noise."""

    kinds: ClassVar[tuple[str, ...]] = (*NOISE_KINDS, *FULL_RANK_KINDS)


class NoisyModelMixin:
    """Noise settings, checked loading, and generate with uncertainties, for a causal LM or a wrapper around one."""

    config: Any
    noise_class: ClassVar[type[NoiseConfig]] = NoiseConfig

    @property
    def causal_lm(self) -> PreTrainedModel:
        """The model that runs: itself noise-free, with noisy projections inside."""
        return self  # type: ignore[return-value]

    @property
    def noise(self) -> NoiseConfig:
        """The noise settings of the config, validated."""
        return self.noise_class.from_model_config(self.config)

    @property
    def noisy_projections(self) -> list[NoisyProjection]:
        """The linear layers that carry noise, in model order."""
        return find_projections(self.causal_lm, self.config.target_modules)

    @property
    def num_samples(self) -> int:
        """Weight samples per token, the noise-free one included."""
        return self.noise.num_samples

    def set_sample(self, sample: bool) -> None:
        """Switch the noisy weight samples on or off; off leaves the quantities of the noise-free model."""
        self.config.sample = bool(sample)

    def set_sigma(self, sigma: float) -> None:
        """Set the noise scale, >= 0."""
        self.config.bayes_sigma = self.noise.replaced(bayes_sigma=sigma).bayes_sigma

    def compute_basis(self) -> None:
        """Set all basis vectors from the weights as they are now (one SVD for each noisy projection).

        A model made by `from_config` has random weights and a basis of zeros, so no low-rank noise, until this ran.
        """
        for projection in self.noisy_projections:
            projection.compute_basis(self.noise.basis_idx, self.noise.bayes_noise)

    def _attach_basis(self) -> None:
        if self.noise.bayes_noise in NOISE_KINDS:
            for projection in self.noisy_projections:
                projection.attach_basis(self.noise.rank, self.noise.bayes_noise)

    @classmethod
    def from_pretrained(cls, path: Any, *args: Any, output_loading_info: bool = False, **kwargs: Any) -> Any:
        """Load a checkpoint as transformers does; ValueError names a basis tensor that is missing or wrong."""
        if path is not None and Path(path).is_dir() and not kwargs.keys() & {"subfolder", "variant"}:
            _check_folder(Path(path), **{key: kwargs[key] for key in ("config", *_OF_BASES) if key in kwargs})
        kwargs |= {"output_loading_info": True, "ignore_mismatched_sizes": True}
        model, info = super().from_pretrained(path, *args, **kwargs)  # type: ignore[misc]
        for name in sorted(info["missing_keys"]):
            raise ValueError(f"{path}: tensor {name} is missing; convert or download the model again")
        for name, found, expected in sorted(info["mismatched_keys"]):
            raise ValueError(
                f"{path}: tensor {name} has shape {list(found)} where config.json asks for {list(expected)}; "
                "convert the model again, or set bayes_noise and basis_idx as it was converted"
            )
        if model.noise.bayes_noise in NOISE_KINDS:
            for projection in model.noisy_projections:
                projection.check_basis(model.noise.rank, model.noise.bayes_noise)
        return (model, info) if output_loading_info else model

    def generate(
        self,
        inputs: Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        *,
        output_uncertainties: bool = False,
        noise_seed: Seeds | None = None,
        **kwargs: Any,
    ) -> Any:
        """As in transformers. With `output_uncertainties` the result is a GenerateUncertaintyOutput.

        Args:
            noise_seed: one integer for each sequence, or one that counts up over the batch; default: torch's seed.
        """
        plain = self.causal_lm.generate if self.causal_lm is not self else super().generate  # type: ignore[misc]
        noise = self.noise
        if not output_uncertainties and not (noise.use_tfb_for_generation and noise.effective_samples > 1):
            return plain(inputs, generation_config, **kwargs)
        output = generate_with_uncertainties(
            self.causal_lm, plain, self.noisy_projections, noise, noise_seed, inputs, generation_config, **kwargs
        )
        configs = [config for config in (generation_config, self.causal_lm.generation_config) if config]
        asked = [kwargs.get("return_dict_in_generate"), *(config.return_dict_in_generate for config in configs)]
        as_dict = output_uncertainties or next((value for value in asked if value is not None), False)
        return output if as_dict else output.sequences


@strict
class BayesianLMConfig(NoiseKeys, PreTrainedConfig):
    """Config of the wrapper: the base model's config as `text_config`, the noisy modules, and the noise keys.

    `bayes_noise` is right or left (low rank), std (N(0, sigma) added to each weight) or self-scaling (std times the
    weight). Full-rank noise is drawn once for each seed and weight sample, the same at all positions, and kept while
    a call runs: S - 1 copies of the noisy weights for each sequence.
    """

    model_type = "bayesian_lm"
    sub_configs: ClassVar = {"text_config": AutoConfig}

    text_config: dict[str, Any] | PreTrainedConfig | None = None
    target_modules: list[str] | tuple[str, ...] = PROJECTIONS
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        if isinstance(self.text_config, dict):
            self.text_config = AutoConfig.for_model(**self.text_config)
        self.tie_word_embeddings = getattr(self.text_config, "tie_word_embeddings", False)
        super().__post_init__(**kwargs)


class BayesianForCausalLMModel(NoisyModelMixin, PreTrainedModel, GenerationMixin):
    """A causal LM of transformers, `lm`, whose modules named in `config.target_modules` carry noise.

    A module that fuses several projections (`qkv_proj`) carries noise in all its outputs, keys included.
    """

    config_class = BayesianLMConfig
    base_model_prefix = "lm"
    noise_class = WrapperNoiseConfig
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True

    def __init__(self, config: BayesianLMConfig, lm: PreTrainedModel | None = None) -> None:
        super().__init__(config)
        if config.text_config is None:
            raise ValueError("BayesianLMConfig needs text_config, the config of the base model")
        self.lm = AutoModelForCausalLM.from_config(config.text_config) if lm is None else lm
        self._attach_basis()
        self.post_init()
        _WRAPPERS.add(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copy, which comes this way instead of through `__init__`, is a wrapper like any other."""
        super().__setstate__(state)
        _WRAPPERS.add(self)

    @classmethod
    def wrap(
        cls,
        lm: PreTrainedModel,
        target_modules: str | Sequence[str] = PROJECTIONS,
        *,
        rank: int = DEFAULT_RANK,
        basis: Mapping[str, Tensor] | None = None,
        **noise: Any,
    ) -> "BayesianForCausalLMModel":
        """Wrap `lm`, which is used as it is, not copied. ValueError if it is noisy already or has unusable weights.

        Args:
            target_modules: last names of the linear modules that carry noise, for example ("qkv_proj",), or one name.
            rank: how many singular directions carry low-rank noise.
            basis: basis vectors by name, "model.layers.0.self_attn.q_proj.basis_vectors"; default: computed by SVD.
            noise: the other keys of NoiseConfig, `bayes_noise` for example.
        """
        keys = [field.name for field in fields(NoiseConfig)]
        if unknown := sorted(noise.keys() - keys):
            raise ValueError(f"unknown noise key {unknown[0]}; the keys are {', '.join(keys)}")
        if isinstance(lm, NoisyModelMixin) or any(wrapper.lm is lm for wrapper in _WRAPPERS):
            raise ValueError(
                "the model carries noise already, as a TFB model or in another wrapper, whose basis would be lost; use "
                "that one, or load the base model again"
            )
        for module in lm.modules():
            module._buffers.pop(BASIS, None)  # what a wrapper that is gone left behind
        names = [target_modules] if isinstance(target_modules, str) else list(target_modules)
        for projection in find_projections(lm, names):
            projection.check_weight()
        base: dict[str, Any] = {"text_config": copy.deepcopy(lm.config), "target_modules": names}
        model = cls(BayesianLMConfig(**base, **{"basis_idx": list(range(rank))} | noise), lm)
        _WRAPPERS.discard(model)  # until it has its basis, which may fail
        if basis is not None:
            for projection in model.noisy_projections:
                projection.set_basis(basis, model.noise.rank, model.noise.bayes_noise)
        elif model.noise.bayes_noise in NOISE_KINDS:
            model.compute_basis()
        _WRAPPERS.add(model)
        return model

    @property
    def causal_lm(self) -> PreTrainedModel:
        return self.lm

    @property
    def generation_config(self) -> GenerationConfig:
        """That of the base model, which generates."""
        return self.lm.generation_config

    @generation_config.setter
    def generation_config(self, value: GenerationConfig) -> None:
        if "lm" in self._modules:  # transformers sets one before there is a base model
            self.lm.generation_config = value

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The noise-free forward of the base model."""
        return self.lm(*args, **kwargs)

    def get_input_embeddings(self) -> torch.nn.Module:
        return self.lm.get_input_embeddings()

    def get_output_embeddings(self) -> torch.nn.Module:
        return self.lm.get_output_embeddings()


_WRAPPERS: WeakSet[BayesianForCausalLMModel] = WeakSet()  # all that are alive


# Keys of a config that the bases must fit, as arguments too.
_OF_BASES = ("bayes_noise", "basis_idx", "bayes_projections")


def _check_folder(path: Path, config: object = None, **given: object) -> None:
    """ValueError, naming file and tensor, for a checkpoint that does not fit its config, the one given or its own."""
    if isinstance(config, PreTrainedConfig):
        keys = config.to_dict()
    else:
        keys = read_config(Path(config) if isinstance(config, str | Path) and Path(config).is_dir() else path) | given
    if is_tfb(keys):
        if is_quantised(keys):
            raise ValueError(f"{path}: a quantised TFB model runs in vLLM only; load the unquantised one")
        check_fit(path, keys)
    for name, vectors in load_basis(path).items():
        check_weight(f"{path}: tensor {name}", vectors)  # loading casts them, integers too


def load_basis(path: Path) -> dict[str, Tensor]:
    """The basis vectors of a TFB checkpoint folder by name, for `BayesianForCausalLMModel.wrap`."""
    basis = {}
    for name, file in tensor_files(path).items():
        if name.endswith(f".{BASIS}"):
            with safe_open(path / file, framework="pt") as tensors:
                basis[name] = tensors.get_tensor(name)
    return basis
