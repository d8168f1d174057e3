"""All that TFB models do not run with, and why; docs/limits.md is made of these tables.

Refused is what is untested with particle rows or known to lose them: wrong numbers look like right ones. The tables of
settings are applied in `engine_config.TFBModelConfig`, when an engine starts; those of attention_refusals.py when its
layers are made. No option of a single request is refused.
"""

from typing import Any

import torch
from vllm import envs
from vllm.config import CompilationMode, CUDAGraphMode
from vllm.platforms import current_platform
from vllm.v1.attention.backends.registry import AttentionBackendEnum

from ..architectures import architecture_of, is_plain
from ..checkpoint import quantization
from .attention_refusals import Refusal

_CACHE_DTYPES = ("auto", "bfloat16", "float16", "float32")
# They hand a model whole tensors under the names of its checkpoint, but dummy, whose weights are made up.
_LOAD_FORMATS = ("auto", "hf", "safetensors", "fastsafetensors", "instanttensor", "runai_streamer", "dummy")
_WITHOUT_BIAS = ("qwen3", "qwen3_moe", "gemma")  # of o_proj, in vLLM
# Of checkpoints, as vLLM 0.30 to 0.33 call them, and of plain weights while they are loaded. Whatever they do to a
# weight, a layer's input reaches its hook as it is, in the dtype of the model, and its output is in that dtype.
QUANTIZATIONS = (
    "awq", "auto_awq", "awq_marlin", "gptq", "auto_gptq", "gptq_marlin", "compressed-tensors", "fp8",
    "online", "fp8_per_tensor", "fp8_per_block", "fp8_per_channel",
)  # fmt: skip
_GRAPH_MODES = (None, CUDAGraphMode.NONE, CUDAGraphMode.FULL_DECODE_ONLY)


def _unread_window(config: Any) -> int:
    """Tokens of a sliding window in the config of a family that has none in vLLM or in transformers; 0 without one."""
    hf_config = config.model_config.hf_config
    kinds, window = getattr(hf_config, "layer_types", None), getattr(hf_config, "sliding_window", None)
    if architecture_of(hf_config.model_type).windows or not window or (kinds and "sliding_attention" not in kinds):
        return 0
    return window if window < config.model_config.max_model_len else 0


def _rope_of_the_batch(config: Any) -> str:
    """The kinds of RoPE whose frequencies transformers chooses by the longest text of a forward, where vLLM runs it."""
    hf_config = config.model_config.hf_config
    parameters = getattr(hf_config, "rope_parameters", None) or {}
    kinds = [kind.get("rope_type") for kind in (parameters, *parameters.values()) if isinstance(kind, dict)]
    through_transformers = architecture_of(hf_config.model_type).transformers_backend
    return " and ".join(sorted({"dynamic", "longrope"}.intersection(kinds))) if through_transformers else ""


def _experts(config: Any) -> bool:
    return architecture_of(config.model_config.hf_config.model_type).experts


SETTINGS = (
    Refusal(
        "pipeline_parallel_size > 1",
        "vLLM passes only the scheduled rows from stage to stage, which loses the particle rows.",
        lambda c: c.parallel_config.pipeline_parallel_size > 1,
    ),
    Refusal(
        "decode_context_parallel_size > 1",
        "Each rank would hold a part of a context; particle rows attend to all of it.",
        lambda c: c.parallel_config.decode_context_parallel_size > 1,
    ),
    Refusal(
        "prefill_context_parallel_size > 1",
        "Each rank would hold a part of a context; particle rows attend to all of it.",
        lambda c: c.parallel_config.prefill_context_parallel_size > 1,
    ),
    Refusal(
        "enable_dbo or ubatch_size > 1",
        "A batch would be split, and where its particle rows begin is known for the whole batch only.",
        lambda c: c.parallel_config.use_ubatching,
    ),
    Refusal(
        "a worker_cls of your own",
        "The statistics are computed in this package's worker.",
        lambda c: c.parallel_config.worker_cls != "auto",
    ),
    Refusal(
        "a scheduler_cls of your own",
        "The statistics reach the output through a lane that this package's scheduler switches on.",
        lambda c: c.scheduler_config.scheduler_cls is not None,
    ),
    Refusal(
        "enable_lora",
        "vLLM's layer with adapters passes by the hook that adds the noise, and gives adapters to scheduled rows, "
        "which particle rows are not. Merge the adapter.",
        lambda c: c.lora_config is not None,
    ),
    Refusal(
        "speculative_config",
        "The particle rows of a step belong to one token of each request.",
        lambda c: c.speculative_config is not None,
    ),
    Refusal(
        "weight_transfer_config",
        "Not tested. To an engine on a TFB model a trainer would have to send basis vectors with the weights.",
        lambda c: getattr(c, "weight_transfer_config", None) is not None,
    ),
    Refusal(
        "kv_transfer_config",
        "Not tested with keys and values that come from elsewhere.",
        lambda c: c.kv_transfer_config is not None,
    ),
    Refusal(
        "kv_offloading_size",
        "vLLM turns it into a kv_transfer_config.",  # only after this hook
        lambda c: c.cache_config.kv_offloading_size is not None,
    ),
    Refusal(
        "quantization={}",
        "Of other methods it is not known whether a layer's input and output keep the dtype of the model.",
        lambda c: c.model_config.quantization not in (None, *QUANTIZATIONS) and c.model_config.quantization,
        listed=f"a quantization other than {', '.join(QUANTIZATIONS)}",
    ),
    Refusal(
        "transform_config of a quantised checkpoint",
        "Its weights are rotated, and their singular vectors are not those of the unquantised model.",
        lambda c: quantization(vars(c.model_config.hf_config)).get("transform_config"),
    ),
    Refusal(
        "kv_cache_scheme of a quantised checkpoint (choose a kv_cache_dtype of 16 bits)",
        "The attention of the particle rows does not read a cache of fp8, which it asks for where none is chosen.",
        lambda c: (
            c.cache_config.cache_dtype == "auto" and quantization(vars(c.model_config.hf_config)).get("kv_cache_scheme")
        ),
    ),
    Refusal(
        "load_format={} of a plain checkpoint (convert it, or choose auto)",
        "Basis vectors are computed from whole tensors by their names in the checkpoint, which this format passes by.",
        lambda c: (
            is_plain(c.model_config.hf_config.model_type)
            and c.load_config.load_format not in _LOAD_FORMATS
            and c.load_config.load_format
        ),
        listed=f"a load_format other than {', '.join(_LOAD_FORMATS)} of a plain checkpoint",
    ),
    Refusal("enable_prompt_embeds", "Not tested.", lambda c: c.model_config.enable_prompt_embeds),
    Refusal(
        "return_sampling_mask",
        "The statistics travel where vLLM would send the sampling masks.",
        lambda c: c.model_config.return_sampling_mask,
    ),
    Refusal(
        "a pooling runner or convert",
        "A pooled output has no next token to be uncertain about.",
        lambda c: c.model_config.runner_type != "generate",
    ),
    Refusal(
        "kv_cache_dtype={}",
        "The attention of the particle rows does not read other formats, fp8 among them.",
        lambda c: c.cache_config.cache_dtype not in _CACHE_DTYPES and c.cache_config.cache_dtype,
        listed="a kv_cache_dtype other than auto, bfloat16, float16 or float32",
    ),
    Refusal(
        "a sliding window of {} tokens in this family (choose a max_model_len that is no longer)",
        "vLLM and transformers read it in different ways, or not at all.",
        _unread_window,
        listed="a sliding window shorter than max_model_len in a family without windows",
    ),
    Refusal(
        "dtype=float16 with {}",
        "Its numbers leave the range of float16. vLLM refuses its base model too, which it knows by its model type.",
        lambda c: (
            c.model_config.dtype == torch.float16
            and architecture_of(c.model_config.hf_config.model_type).needs_range
            and c.model_config.hf_config.model_type
        ),
        listed="dtype=float16 with Gemma 2 and Gemma 3",
    ),
    Refusal(
        "attention_bias with {}",
        "vLLM leaves out the bias of o_proj, which transformers adds.",
        lambda c: (
            architecture_of(model_type := c.model_config.hf_config.model_type).base_model_type in _WITHOUT_BIAS
            and getattr(c.model_config.hf_config, "attention_bias", False)
            and model_type
        ),
        listed="attention_bias with Qwen3, Qwen3-MoE and Gemma 1",
    ),
    Refusal(
        "rope_type={} in a family that vLLM runs through transformers (choose linear, yarn or llama3)",
        "Its frequencies would follow the longest text of each batch.",
        _rope_of_the_batch,
        listed="rope_type dynamic or longrope with OLMo 2, OLMo 3, SmolLM3 and Starcoder2",
    ),
    Refusal(
        "dual_chunk_attention_config",
        "Qwen2.5-1M's attention in chunks differs from that of the particle rows.",
        lambda c: getattr(c.model_config.hf_config, "dual_chunk_attention_config", None) is not None,
    ),
    Refusal(
        "compilation mode STOCK_TORCH_COMPILE",
        "It compiles the model as a whole, and would cut particle rows off where those of the traced batch ended.",
        lambda c: c.compilation_config.mode == CompilationMode.STOCK_TORCH_COMPILE,
    ),
    Refusal(
        "is_causal=false or use_bidirectional_attention",
        "Particle rows attend to earlier tokens only.",
        lambda c: (
            not getattr(c.model_config.hf_config, "is_causal", True)
            or getattr(c.model_config.hf_config, "use_bidirectional_attention", None)
        ),
    ),
    Refusal(
        "VLLM_USE_V2_MODEL_RUNNER=1",
        "The statistics are computed in vLLM's V1 model runner, which TFB models choose by themselves.",
        lambda c: c.use_v2_model_runner,
    ),
    Refusal(
        "VLLM_USE_RUST_FRONTEND=1",
        "It reads what the engine sends by itself, and does not know the statistics.",
        lambda _: getattr(envs, "VLLM_USE_RUST_FRONTEND", False),
    ),
    Refusal(
        "the {} platform",
        "Particle rows have an attention for CPUs and for CUDA.",
        lambda c: not (current_platform.is_cpu() or current_platform.is_cuda()) and current_platform.device_name,
        listed="a platform other than CPU and CUDA",
    ),
    Refusal(
        "enable_expert_parallel or enable_eplb with experts",
        "Ranks exchange rows by numbers of tokens that leave out the particle rows, in sequence-parallel experts too.",
        lambda c: _experts(c) and (c.parallel_config.enable_expert_parallel or c.parallel_config.enable_eplb),
    ),
    Refusal(
        "data_parallel_size > 1 with experts",
        "Ranks would wait for each other at every step, with numbers of tokens that leave out the particle rows.",
        lambda c: _experts(c) and c.parallel_config.data_parallel_size > 1,
    ),
    Refusal(
        "hidden_act={} with experts",
        "vLLM's experts compute silu whatever is asked for.",
        lambda c: _experts(c) and (act := c.model_config.hf_config.hidden_act) != "silu" and act,
        listed="a hidden_act other than silu with experts",
    ),
)

GPU_SETTINGS = (
    Refusal(
        "attention backends but FLASH_ATTN ({})",
        "Particle rows use FlashAttention's varlen kernel, which returns the log-sum-exp of its scores.",
        lambda c: _other_backends(c.attention_config),
        listed="attention backends but FLASH_ATTN",
    ),
    Refusal(
        "dtype=float32 on a GPU (FLASH_ATTN takes bfloat16 and float16)",
        "FLASH_ATTN takes bfloat16 and float16.",
        lambda c: c.model_config.dtype == torch.float32,
        listed="dtype=float32",
    ),
    Refusal(
        "cudagraph_mode={} (choose FULL_DECODE_ONLY or NONE)",
        "Other graphs are chosen by the number of tokens, which does not settle the number of particle rows.",
        lambda c: (mode := c.compilation_config.cudagraph_mode) not in _GRAPH_MODES and mode.name,
        listed="a cudagraph_mode other than FULL_DECODE_ONLY and NONE",
    ),
)  # see attention/gpu.py


def _other_backends(attention: Any) -> str:
    """Names of the attention backends that were asked for and are not FLASH_ATTN."""
    backends = {attention.backend, *attention.backend_per_kind.values()} - {None, AttentionBackendEnum.FLASH_ATTN}
    return ", ".join(sorted(backend.name for backend in backends))
