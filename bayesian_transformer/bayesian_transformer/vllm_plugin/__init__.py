"""TFB models in unmodified vLLM: one forward for all weight samples, uncertainties on every completion.

Reading order: particles.py (noise -> particle rows), attention.py (what a particle row attends to), model.py (rows ->
logits), worker.py (logits -> statistics), outputs.py (statistics -> `outputs[i].uncertainties`). substitutions.py
checks vLLM's version and changes its methods; config.py decides which settings are supported. The plain formulas are
in plain_noise.py, attention.py and ../uncertainty.py; kernels.py picks what is faster: cpu_kernels.py with cpu/ (C++),
or noise_kernels.py, fused_statistics.py and merge_kernel.py (Triton), the last under cuda_attention.py.
"""

from ..config import ARCHITECTURES

_MODEL_CLASSES = {
    "VllmTFBLLamaForCausalLM": "bayesian_transformer.vllm_models.tfb_llama_vllm:VllmTFBLLamaForCausalLM",
    "VllmTFBQwen2ForCausalLM": "bayesian_transformer.vllm_models.tfb_qwen2_vllm:VllmTFBQwen2ForCausalLM",
}


def register() -> None:
    """Entry point `vllm.general_plugins`: vLLM calls it in each of its processes, possibly more than once."""
    from .substitutions import refuse_tfb_models, substitute, unsupported_reason

    if unsupported_reason():  # before anything else: other versions need not have what the rest imports
        return refuse_tfb_models()
    from vllm import ModelRegistry
    from vllm.model_executor.models.config import MODELS_CONFIG_MAP

    from .config import TFBModelConfig

    for architecture in ARCHITECTURES.values():
        ModelRegistry.register_model(architecture.vllm_architecture, _MODEL_CLASSES[architecture.vllm_architecture])
        MODELS_CONFIG_MAP[architecture.vllm_architecture] = TFBModelConfig
    substitute()
