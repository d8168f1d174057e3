"""The TFB models of transformers: the library's own classes with basis vectors on `bayes_projections`.

Where a family's checkpoints fuse the projections, they lie on the q, k or v rows of qkv_proj.
"""

from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    GemmaForCausalLM,
    GraniteForCausalLM,
    LlamaForCausalLM,
    MistralForCausalLM,
    MixtralForCausalLM,
    Olmo2ForCausalLM,
    Olmo3ForCausalLM,
    Phi3ForCausalLM,
    PreTrainedConfig,
    Qwen2ForCausalLM,
    Qwen2MoeForCausalLM,
    Qwen3ForCausalLM,
    Qwen3MoeForCausalLM,
    SmolLM3ForCausalLM,
    Starcoder2ForCausalLM,
)
from transformers.conversion_mapping import get_checkpoint_conversion_mapping, register_checkpoint_conversion_mapping

from ..architectures import ARCHITECTURES
from ..config import (
    TFBGemma2Config,
    TFBGemma3Config,
    TFBGemmaConfig,
    TFBGraniteConfig,
    TFBLlamaConfig,
    TFBMistralConfig,
    TFBMixtralConfig,
    TFBOlmo2Config,
    TFBOlmo3Config,
    TFBPhi3Config,
    TFBQwen2Config,
    TFBQwen2MoeConfig,
    TFBQwen3Config,
    TFBQwen3MoeConfig,
    TFBSmolLM3Config,
    TFBStarcoder2Config,
)
from ..hf.projections import NoisyProjection, stored_projections
from ..model import BayesianForCausalLMModel, BayesianLMConfig, NoisyModelMixin
from ..noisy_weights import noisy_weights


class TFBModel(NoisyModelMixin):
    """Put before a `...ForCausalLM` of transformers, some of whose projections then carry noise: NoisyModelMixin."""

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)  # type: ignore[call-arg]
        self._attach_basis()

    @property
    def noisy_projections(self) -> list[NoisyProjection]:
        return stored_projections(self.causal_lm, noisy_weights(self.config.to_dict(), self.noise.bayes_projections))


class TFBLlamaForCausalLM(TFBModel, LlamaForCausalLM):
    """LlamaForCausalLM with uncertainties."""

    config_class = TFBLlamaConfig


class TFBQwen2ForCausalLM(TFBModel, Qwen2ForCausalLM):
    """Qwen2ForCausalLM with uncertainties."""

    config_class = TFBQwen2Config


class TFBQwen3ForCausalLM(TFBModel, Qwen3ForCausalLM):
    """Qwen3ForCausalLM with uncertainties."""

    config_class = TFBQwen3Config


class TFBMistralForCausalLM(TFBModel, MistralForCausalLM):
    """MistralForCausalLM with uncertainties."""

    config_class = TFBMistralConfig


class TFBGraniteForCausalLM(TFBModel, GraniteForCausalLM):
    """GraniteForCausalLM with uncertainties."""

    config_class = TFBGraniteConfig


class TFBGemmaForCausalLM(TFBModel, GemmaForCausalLM):
    """GemmaForCausalLM with uncertainties."""

    config_class = TFBGemmaConfig


class TFBGemma2ForCausalLM(TFBModel, Gemma2ForCausalLM):
    """Gemma2ForCausalLM with uncertainties. Its attention is `eager`: that of `sdpa` leaves out the soft cap."""

    config_class = TFBGemma2Config
    _supports_sdpa = False
    _supports_flex_attn = False


class TFBGemma3ForCausalLM(TFBModel, Gemma3ForCausalLM):
    """Gemma3ForCausalLM with uncertainties."""

    config_class = TFBGemma3Config


class TFBPhi3ForCausalLM(TFBModel, Phi3ForCausalLM):
    """Phi3ForCausalLM with uncertainties."""

    config_class = TFBPhi3Config


class TFBOlmo2ForCausalLM(TFBModel, Olmo2ForCausalLM):
    """Olmo2ForCausalLM with uncertainties."""

    config_class = TFBOlmo2Config


class TFBOlmo3ForCausalLM(TFBModel, Olmo3ForCausalLM):
    """Olmo3ForCausalLM with uncertainties."""

    config_class = TFBOlmo3Config


class TFBSmolLM3ForCausalLM(TFBModel, SmolLM3ForCausalLM):
    """SmolLM3ForCausalLM with uncertainties."""

    config_class = TFBSmolLM3Config


class TFBStarcoder2ForCausalLM(TFBModel, Starcoder2ForCausalLM):
    """Starcoder2ForCausalLM with uncertainties."""

    config_class = TFBStarcoder2Config


class TFBExpertsModel(TFBModel):
    """TFBModel for a model with experts."""

    @classmethod
    def _can_set_experts_implementation(cls) -> bool:
        """As the base class can; transformers looks for experts in the source of a class, which is this file."""
        return True


class TFBQwen2MoeForCausalLM(TFBExpertsModel, Qwen2MoeForCausalLM):
    """Qwen2MoeForCausalLM with uncertainties."""

    config_class = TFBQwen2MoeConfig


class TFBQwen3MoeForCausalLM(TFBExpertsModel, Qwen3MoeForCausalLM):
    """Qwen3MoeForCausalLM with uncertainties."""

    config_class = TFBQwen3MoeConfig


class TFBMixtralForCausalLM(TFBExpertsModel, MixtralForCausalLM):
    """MixtralForCausalLM with uncertainties."""

    config_class = TFBMixtralConfig


def register_models() -> None:
    """Make AutoModelForCausalLM know the TFB models, and the Auto classes the wrapper. Safe to call again."""
    AutoConfig.register(BayesianLMConfig.model_type, BayesianLMConfig, exist_ok=True)
    for model in (*(architecture.model_class for architecture in ARCHITECTURES.values()), BayesianForCausalLMModel):
        AutoModelForCausalLM.register(model.config_class, model, exist_ok=True)
    for family in (architecture for architecture in ARCHITECTURES.values() if architecture.experts):
        # The experts are apart in a checkpoint and together in memory; which are which goes by model type.
        experts = get_checkpoint_conversion_mapping(family.base_model_type)
        register_checkpoint_conversion_mapping(family.model_type, experts, overwrite=True)


register_models()
