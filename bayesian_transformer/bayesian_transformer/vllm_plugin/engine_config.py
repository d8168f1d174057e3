"""What the engine configuration of a TFB model must look like; runs before vLLM resolves its own defaults."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vllm.config import CUDAGraphMode
from vllm.model_executor.models.config import VerifyAndUpdateConfig
from vllm.platforms import current_platform
from vllm.v1.attention.backends.registry import AttentionBackendEnum

from ..architectures import ARCHITECTURES, architecture_of, is_plain
from ..checkpoint import is_quantised, read_config, reads_single_file
from ..fitting import check_fit
from ..noise_config import NoiseConfig
from . import kernels
from .attention_refusals import refused
from .refusals import GPU_SETTINGS, SETTINGS
from .stopping import REQUEST_CHECK

if TYPE_CHECKING:
    from vllm.config import VllmConfig

_CHECKED_FORMATS = ("auto", "hf", "safetensors")  # dummy weights, for one, are in no file
_PACKAGE = "bayesian_transformer.vllm_plugin"
_CACHE_OPERATORS = ("vllm::unified_kv_cache_update", "vllm::unified_mla_kv_cache_update")  # split at by vLLM's default
_NOISE_OPERATOR = "bayesian_transformer::add_qkv_noise"


class TFBModelConfig(VerifyAndUpdateConfig):
    """vLLM's per-architecture configuration hook for TFB models."""

    @staticmethod
    def verify_and_update_config(vllm_config: "VllmConfig") -> None:
        """Check the noise keys, refuse what would give wrong numbers, and name our worker and scheduler."""
        kernels.read_mode()  # refuses a TOKUR_KERNELS that there is not, before processes are started
        check_architecture(vllm_config.model_config)
        noise = NoiseConfig.from_model_config(vllm_config.model_config.hf_config)
        problems = refused(SETTINGS, vllm_config)
        if noise.noisy_samples and current_platform.is_cuda():
            problems += refused(GPU_SETTINGS, vllm_config)
        if problems:
            raise ValueError(f"TFB models do not support: {'; '.join(problems)}. Start the engine without.")
        if noise.noisy_samples:
            check_bases(vllm_config.model_config)
        check_weights(vllm_config)
        if noise.noisy_samples:
            make_room(vllm_config, noise.noisy_samples)
            if current_platform.is_cuda():
                prepare_for_gpu(vllm_config)
        vllm_config.parallel_config.worker_cls = f"{_PACKAGE}.worker.TFBWorker"
        vllm_config.scheduler_config.scheduler_cls = f"{_PACKAGE}.stopping.uncertainty_scheduler"
        model = vllm_config.model_config
        model.logits_processors = [*(model.logits_processors or ()), REQUEST_CHECK]


def check_architecture(model_config: Any) -> None:
    """ValueError unless the TFB architecture that was asked for, maybe for a plain checkpoint, is that of the model."""
    config = model_config.hf_config
    try:
        expected = architecture_of(config.model_type, vars(config)).vllm_architecture
    except ValueError as error:
        raise ValueError(f"{model_config.model}: {error}") from error
    if model_config.architectures != [expected]:
        raise ValueError(
            f"{model_config.model}: architectures is {model_config.architectures}, where a {config.model_type} has "
            f"{[expected]}; correct it in hf_overrides or config.json"
        )


def check_bases(model_config: Any) -> None:
    """ValueError for a quantised checkpoint without basis vectors, and for a TFB model that shall get others."""
    config = model_config.hf_config.to_dict()
    basis_path = config.get("basis_path")
    if not isinstance(basis_path, str | None):
        raise ValueError(f"basis_path must be the name of a file; got {basis_path!r}")
    if basis_path is not None and not is_plain(config["model_type"]):
        raise ValueError(f"{model_config.model}: a TFB model has basis vectors of its own; leave out basis_path")
    if is_plain(config["model_type"]) and is_quantised(config) and basis_path is None:
        raise ValueError(
            f"{model_config.model}: a quantised checkpoint has no weights to compute basis vectors from; make them of "
            "the unquantised model (tokur convert --bases-only --model-path MODEL --output-path bases.safetensors), "
            "and start the engine with that file as basis_path in hf_overrides"
        )


def check_weights(vllm_config: "VllmConfig") -> None:
    """ValueError if the folder of the model does not hold what its config asks for, before memory is allocated for it.

    A folder without weights is left to vLLM, and so is a name on the hub, which is not downloaded yet.
    """
    folder, load_format = Path(vllm_config.model_config.model), vllm_config.load_config.load_format
    if load_format not in _CHECKED_FORMATS or not any(folder.glob("*.safetensors")):
        return
    read_config(folder)  # refuses what other readers may take in two ways
    check_fit(folder, vllm_config.model_config.hf_config.to_dict())
    consolidated = sorted(folder.glob("consolidated*.safetensors"))
    if load_format == "auto" and consolidated and not reads_single_file(folder):
        raise ValueError(
            f"{consolidated[0]}: vLLM would read it in place of what transformers reads; "
            "move it away, or start the engine with load_format='safetensors'"
        )


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
