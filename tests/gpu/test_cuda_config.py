"""What the engine configuration becomes on a GPU, and what is refused there; no engine runs, and no GPU is needed."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("vllm")
from vllm.config import CompilationConfig, CompilationMode, CUDAGraphMode
from vllm.engine.arg_utils import EngineArgs

from bayesian_transformer.vllm_plugin import engine_config as plugin_config
from bayesian_transformer.vllm_plugin import particles  # noqa: F401  (registers the operator)
from tests.helpers.prompt_models import save_model_without_weights


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A TFB model of two noisy samples, with the plugin believing in a GPU."""
    gpu = SimpleNamespace(is_cuda=lambda: True, is_cpu=lambda: False, device_name="cuda")
    monkeypatch.setattr(plugin_config, "current_platform", gpu)
    return save_model_without_weights(tmp_path / "TFB-tiny", "llama")


def engine_config(path: Path, **options: Any) -> Any:
    return EngineArgs(model=str(path), max_model_len=256, dtype="bfloat16", **options).create_engine_config()


def test_the_gpu_gets_what_particle_rows_need(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes = []
    prepare = plugin_config.prepare_for_gpu

    def spy(config: Any) -> None:
        prepare(config)
        modes.append(config.compilation_config.cudagraph_mode)  # the platform, a CPU after all, resets it later

    monkeypatch.setattr(plugin_config, "prepare_for_gpu", spy)
    config = engine_config(tiny, max_num_batched_tokens=512, max_num_seqs=8)
    assert modes == [CUDAGraphMode.FULL_DECODE_ONLY]
    assert config.attention_config.backend.name == "FLASH_ATTN"
    assert config.scheduler_config.max_num_scheduled_tokens == 512
    assert config.scheduler_config.max_num_batched_tokens == 512 + 2 * 8
    assert config.compilation_config.get_compile_ranges()[-1].end == 512 + 2 * 8
    engine_config(tiny, optimization_level=0)
    engine_config(tiny, compilation_config={"cudagraph_mode": "NONE"})
    assert modes[1:] == [None, CUDAGraphMode.NONE]
    by_default = CompilationConfig(mode=CompilationMode.VLLM_COMPILE)
    by_default.set_splitting_ops_for_v1("naive", 1)
    ours = set(config.compilation_config.splitting_ops) - set(by_default.splitting_ops)
    assert ours == {"bayesian_transformer::add_qkv_noise"}
    assert hasattr(torch.ops.bayesian_transformer, "add_qkv_noise")


def test_without_particle_rows_the_gpu_runs_as_stock(tiny: Path) -> None:
    config = engine_config(tiny, hf_overrides={"num_samples": 1}, max_num_batched_tokens=512)
    assert config.attention_config.backend is None
    assert config.scheduler_config.max_num_batched_tokens == 512
    assert config.scheduler_config.max_num_scheduled_tokens is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"compilation_config": {"cudagraph_mode": "PIECEWISE"}}, "cudagraph_mode=PIECEWISE"),
        ({"compilation_config": {"cudagraph_mode": "FULL_AND_PIECEWISE"}}, "cudagraph_mode=FULL_AND_PIECEWISE"),
        ({"attention_config": {"backend": "TRITON_ATTN"}}, r"attention backends but FLASH_ATTN \(TRITON_ATTN\)"),
        ({"dtype": "float32"}, "dtype=float32 on a GPU"),
    ],
)
def test_what_the_gpu_cannot_do_is_named(tiny: Path, options: dict[str, Any], said: str) -> None:
    arguments = {"dtype": "bfloat16", "max_model_len": 256, **options}
    with pytest.raises(ValueError, match=f"TFB models do not support: .*{said}"):
        EngineArgs(model=str(tiny), **arguments).create_engine_config()
