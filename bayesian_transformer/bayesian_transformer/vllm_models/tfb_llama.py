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
    Phi3ForCausalLM,
    PreTrainedConfig,
    Qwen2ForCausalLM,
    Qwen3ForCausalLM,
)

from ..architectures import ARCHITECTURES
from ..config import (
    TFBGemma2Config,
    TFBGemma3Config,
    TFBGemmaConfig,
    TFBGraniteConfig,
    TFBLlamaConfig,
    TFBMistralConfig,
    TFBPhi3Config,
    TFBQwen2Config,
    TFBQwen3Config,
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


def register_models() -> None:
    """Make AutoModelForCausalLM know the TFB models, and the Auto classes the wrapper. Safe to call again."""
    AutoConfig.register(BayesianLMConfig.model_type, BayesianLMConfig, exist_ok=True)
    for model in (*(architecture.model_class for architecture in ARCHITECTURES.values()), BayesianForCausalLMModel):
        AutoModelForCausalLM.register(model.config_class, model, exist_ok=True)


register_models()
