"""TFB models in unmodified vLLM: one forward for all weight samples, uncertainties on every completion.

Reading order: particles.py (noise -> particle rows), attention/ (what a particle row attends to), model_mixin.py (rows
-> logits), worker.py (logits -> statistics), outputs.py (statistics -> `outputs[i].uncertainties`). substitutions.py
checks vLLM's version and changes its methods. refusals.py holds all that is refused, and engine_config.py prepares the
engine's settings. kernels/ holds the loops, plain and fast, and chooses between them.
"""

from ..architectures import ARCHITECTURES


def register() -> None:
    """Entry point `vllm.general_plugins`: vLLM calls it in each of its processes, possibly more than once."""
    from .substitutions import refuse_tfb_models, substitute, unsupported_reason

    if unsupported_reason():  # before anything else: other versions need not have what the rest imports
        return refuse_tfb_models()
    from vllm import ModelRegistry
    from vllm.model_executor.models.config import MODELS_CONFIG_MAP

    from .engine_config import TFBModelConfig

    for architecture in ARCHITECTURES.values():
        ModelRegistry.register_model(architecture.vllm_architecture, architecture.vllm_model_path)
        MODELS_CONFIG_MAP[architecture.vllm_architecture] = TFBModelConfig
    substitute()
