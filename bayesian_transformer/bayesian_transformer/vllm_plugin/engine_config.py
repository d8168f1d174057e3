"""What the engine configuration of a TFB model must look like; runs before vLLM resolves its own defaults."""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from vllm.config import CompilationMode, CUDAGraphMode
from vllm.model_executor.models.config import VerifyAndUpdateConfig
from vllm.platforms import current_platform
from vllm.v1.attention.backends.registry import AttentionBackendEnum

from ..architectures import ARCHITECTURES
from ..noise_config import NoiseConfig
from . import kernels

if TYPE_CHECKING:
    from vllm.config import VllmConfig

_PACKAGE = "bayesian_transformer.vllm_plugin"
_GRAPH_MODES = (None, CUDAGraphMode.NONE, CUDAGraphMode.FULL_DECODE_ONLY)
_CACHE_OPERATORS = ("vllm::unified_kv_cache_update", "vllm::unified_mla_kv_cache_update")  # split at by vLLM's default
_NOISE_OPERATOR = "bayesian_transformer::add_qkv_noise"


class TFBModelConfig(VerifyAndUpdateConfig):
    """vLLM's per-architecture configuration hook for TFB models."""

    @staticmethod
    def verify_and_update_config(vllm_config: "VllmConfig") -> None:
        """Check the noise keys, refuse what would give wrong numbers, and name our worker and scheduler."""
        kernels.read_mode()  # refuses a TOKUR_KERNELS that there is not, before processes are started
        noise = NoiseConfig.from_model_config(vllm_config.model_config.hf_config)
        problems = unsupported_settings(vllm_config)
        if noise.noisy_samples and current_platform.is_cuda():
            problems += unsupported_on_gpu(vllm_config)
        if problems:
            raise ValueError(f"TFB models do not support: {'; '.join(problems)}. Start the engine without.")
        if noise.noisy_samples:
            make_room(vllm_config, noise.noisy_samples)
            if current_platform.is_cuda():
                prepare_for_gpu(vllm_config)
        vllm_config.parallel_config.worker_cls = f"{_PACKAGE}.worker.TFBWorker"
        vllm_config.scheduler_config.scheduler_cls = f"{_PACKAGE}.outputs.uncertainty_scheduler"


def unsupported_settings(vllm_config: "VllmConfig") -> list[str]:
    """Settings of this engine that are untested with particle rows or known to lose them, by their option's name."""
    model, cache = vllm_config.model_config, vllm_config.cache_config
    parallel, scheduler = vllm_config.parallel_config, vllm_config.scheduler_config
    hf_config, compilation = model.hf_config, vllm_config.compilation_config
    refused = {
        "pipeline_parallel_size > 1": parallel.pipeline_parallel_size > 1,
        "data_parallel_size > 1 (start one engine per replica)": parallel.data_parallel_size > 1,
        "decode_context_parallel_size > 1": parallel.decode_context_parallel_size > 1,
        "prefill_context_parallel_size > 1": parallel.prefill_context_parallel_size > 1,
        "enable_dbo or ubatch_size > 1": parallel.use_ubatching,
        "a worker_cls of your own": parallel.worker_cls != "auto",
        "a scheduler_cls of your own": scheduler.scheduler_cls is not None,
        "enable_lora": vllm_config.lora_config is not None,
        "speculative_config": vllm_config.speculative_config is not None,
        "kv_transfer_config": vllm_config.kv_transfer_config is not None,
        "kv_offloading_size": cache.kv_offloading_size is not None,  # becomes a kv_transfer_config after this hook
        "quantization": model.quantization is not None,
        "enable_prompt_embeds": model.enable_prompt_embeds,
        "return_sampling_mask": model.return_sampling_mask,
        "a pooling runner or convert": model.runner_type != "generate",
        f"kv_cache_dtype={cache.cache_dtype}": cache.cache_dtype not in ("auto", "bfloat16", "float16", "float32"),
        "sliding-window attention": cache.sliding_window is not None or _has_sliding_layer(hf_config),
        "dual_chunk_attention_config": getattr(hf_config, "dual_chunk_attention_config", None) is not None,
        # Compiles the model as a whole, and the compiled graph would cut particle rows off where the last batch ended.
        "compilation mode STOCK_TORCH_COMPILE": compilation.mode == CompilationMode.STOCK_TORCH_COMPILE,
        "is_causal=false": not getattr(hf_config, "is_causal", True),
        "VLLM_USE_V2_MODEL_RUNNER=1": vllm_config.use_v2_model_runner,
        f"the {current_platform.device_name} platform": not (current_platform.is_cpu() or current_platform.is_cuda()),
    }
    return [name for name, present in refused.items() if present]


def unsupported_on_gpu(vllm_config: "VllmConfig") -> list[str]:
    """Settings that particle rows cannot work with on a GPU, see attention/gpu.py."""
    attention, dtype = vllm_config.attention_config, vllm_config.model_config.dtype
    backends = {attention.backend, *attention.backend_per_kind.values()} - {None, AttentionBackendEnum.FLASH_ATTN}
    mode = vllm_config.compilation_config.cudagraph_mode
    refused = {
        f"attention backends but FLASH_ATTN ({', '.join(sorted(b.name for b in backends))})": backends,
        "dtype=float32 on a GPU (FLASH_ATTN takes bfloat16 and float16)": dtype == torch.float32,
        # Other graphs are chosen by the number of tokens, which does not settle the number of particle rows.
        f"cudagraph_mode={mode and mode.name} (choose FULL_DECODE_ONLY or NONE)": mode not in _GRAPH_MODES,
    }
    return [name for name, present in refused.items() if present]


def make_room(vllm_config: "VllmConfig", noisy_samples: int) -> None:
    """Let a forward have `noisy_samples` more rows for each request, while what is scheduled stays the same.

    Compiled code, workspaces and the profiling of memory are made for at most max_num_batched_tokens rows.
    """
    scheduler = vllm_config.scheduler_config
    if scheduler.max_num_scheduled_tokens is None:
        scheduler.max_num_scheduled_tokens = scheduler.max_num_batched_tokens
    scheduler.max_num_batched_tokens += noisy_samples * scheduler.max_num_seqs


def prepare_for_gpu(vllm_config: "VllmConfig") -> None:
    """Choose the attention and the CUDA graphs that particle rows need."""
    compilation = vllm_config.compilation_config
    vllm_config.attention_config.backend = AttentionBackendEnum.FLASH_ATTN
    if compilation.cudagraph_mode is None and vllm_config.optimization_level > 0:
        compilation.cudagraph_mode = CUDAGraphMode.FULL_DECODE_ONLY
    # The operator names its layer. Were it compiled with its surroundings, each layer would be compiled by itself.
    if compilation.splitting_ops is None:
        compilation.splitting_ops = [*compilation._attention_ops, *_CACHE_OPERATORS, _NOISE_OPERATOR]


def naming_tfb_models(stock: Callable[["VllmConfig"], list[str]]) -> Callable[["VllmConfig"], list[str]]:
    """Add TFB models to what vLLM knows its V2 model runner cannot do, so that they get the V1."""

    @functools.wraps(stock)
    def with_tfb_models(self: "VllmConfig") -> list[str]:
        names = {architecture.vllm_architecture for architecture in ARCHITECTURES.values()}
        is_tfb = self.model_config is not None and not names.isdisjoint(self.model_config.architectures)
        return stock(self) + (["TFB models"] if is_tfb else [])

    return with_tfb_models


def _has_sliding_layer(hf_config: object) -> bool:
    return "sliding_attention" in (getattr(hf_config, "layer_types", None) or [])


def refuse_attention(stock: Any) -> None:
    """ValueError if particle rows cannot attend with the attention implementation `stock` of a layer on a GPU."""
    from vllm.v1.attention.backends.flash_attn import FlashAttentionImpl

    if not isinstance(stock, FlashAttentionImpl):
        raise ValueError(
            f"TFB models need vLLM's FLASH_ATTN attention on a GPU, this layer has {type(stock).__name__}; "
            "leave attention_backend unset"
        )
    present = {
        "ALiBi": stock.alibi_slopes is not None,
        "sliding-window": stock.sliding_window != (-1, -1),
        "soft-capped": bool(stock.logits_soft_cap),
        "sink": stock.sinks is not None,
        "cross-layer shared": stock.kv_sharing_target_layer_name is not None,
        "256-wide Blackwell": getattr(stock, "fa4_hd256", False),
    }
    if kinds := [kind for kind, is_present in present.items() if is_present]:
        raise ValueError(f"TFB models do not support {', '.join(kinds)} attention on a GPU; choose another model")
