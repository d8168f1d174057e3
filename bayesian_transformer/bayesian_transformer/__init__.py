"""TokUR: token-level uncertainty of LLMs from low-rank noise on q_proj and v_proj.

Importing the package registers the TFB model types with transformers. The vLLM side registers itself through the
`vllm.general_plugins` entry point and needs no import.
"""

from .config import NoiseConfig, register_configs
from .model import BayesianForCausalLMModel, BayesianLMConfig
from .uncertainty import TokenUncertainty, Uncertainty, token_uncertainty
from .vllm_models.tfb_llama import register_models

__all__ = [
    "BayesianForCausalLMModel",
    "BayesianLMConfig",
    "NoiseConfig",
    "TokenUncertainty",
    "Uncertainty",
    "token_uncertainty",
]
__version__ = "0.1.0"

register_configs()
register_models()
