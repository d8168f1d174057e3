"""TokUR: token-level uncertainty of LLMs from low-rank noise on q_proj and v_proj.

Importing the package registers the TFB model types with transformers. It imports neither transformers nor torch: the
registration runs when transformers is imported, or at once if it is there already. The vLLM side registers itself
through the `vllm.general_plugins` entry point and needs no import.
"""

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

from .transformers_hook import register_with_transformers

if TYPE_CHECKING:
    from .config import NoiseConfig
    from .hf_overrides import tfb
    from .model import BayesianForCausalLMModel, BayesianLMConfig
    from .uncertainty import TokenUncertainty, Uncertainty, token_uncertainty

__all__ = [
    "BayesianForCausalLMModel",
    "BayesianLMConfig",
    "NoiseConfig",
    "TokenUncertainty",
    "Uncertainty",
    "tfb",
    "token_uncertainty",
]
__version__ = "0.1.0"

_HOMES = {  # of the public names, imported when they are asked for (PEP 562)
    "BayesianForCausalLMModel": "model",
    "BayesianLMConfig": "model",
    "NoiseConfig": "config",
    "register_configs": "config",
    "register_models": "vllm_models.tfb_llama",
    "tfb": "hf_overrides",
    "TokenUncertainty": "uncertainty",
    "Uncertainty": "uncertainty",
    "token_uncertainty": "uncertainty",
}


def __getattr__(name: str) -> Any:
    """A public name, or a module of the package that nobody has imported yet."""
    if name in _HOMES:
        return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    if not name.startswith("_") and importlib.util.find_spec(f"{__name__}.{name}"):
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


register_with_transformers()
