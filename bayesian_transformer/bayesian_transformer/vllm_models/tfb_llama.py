"""The TFB models of transformers: the library's own classes with basis vectors on q_proj and v_proj."""

from transformers import AutoConfig, AutoModelForCausalLM, LlamaForCausalLM, Qwen2ForCausalLM

from ..architectures import ARCHITECTURES
from ..config import TFBLlamaConfig, TFBQwen2Config
from ..model import BayesianForCausalLMModel, BayesianLMConfig, NoisyModelMixin


class TFBLlamaForCausalLM(NoisyModelMixin, LlamaForCausalLM):
    """LlamaForCausalLM with uncertainties; see NoisyModelMixin."""

    config_class = TFBLlamaConfig

    def __init__(self, config: TFBLlamaConfig) -> None:
        super().__init__(config)
        self._attach_basis()


class TFBQwen2ForCausalLM(NoisyModelMixin, Qwen2ForCausalLM):
    """Qwen2ForCausalLM with uncertainties; see NoisyModelMixin."""

    config_class = TFBQwen2Config

    def __init__(self, config: TFBQwen2Config) -> None:
        super().__init__(config)
        self._attach_basis()


def register_models() -> None:
    """Make AutoModelForCausalLM know the TFB models, and the Auto classes the wrapper. Safe to call again."""
    AutoConfig.register(BayesianLMConfig.model_type, BayesianLMConfig, exist_ok=True)
    for model in (*(architecture.model_class for architecture in ARCHITECTURES.values()), BayesianForCausalLMModel):
        AutoModelForCausalLM.register(model.config_class, model, exist_ok=True)


register_models()
