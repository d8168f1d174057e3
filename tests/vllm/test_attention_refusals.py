"""Kinds of attention that particle rows cannot follow are refused by name, on a CPU and on a GPU, layer by layer."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("vllm")
from vllm.config import VllmConfig, set_current_vllm_config
from vllm.engine.arg_utils import EngineArgs
from vllm.model_executor.layers.attention import Attention
from vllm.model_executor.models import llama
from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackendImpl
from vllm.v1.attention.backends.flash_attn import FlashAttentionImpl

from bayesian_transformer.vllm_plugin import attention
from bayesian_transformer.vllm_plugin.attention.cpu import CpuParticleAttention
from bayesian_transformer.vllm_plugin.attention.gpu import GpuParticleAttention
from bayesian_transformer.vllm_plugin.attention_refusals import ATTENTION, GPU_ATTENTION, refuse_attention
from tests.helpers.prompt_models import save_model_without_weights
from tests.helpers.vllm_engines import engine

HEADS, KV_HEADS, HEAD = 4, 2, 32
KINDS: list[tuple[dict[str, Any], str]] = [
    ({"alibi_slopes": [0.5] * HEADS}, "ALiBi"),
    ({"sinks": torch.zeros(HEADS)}, "sink"),
    ({"kv_sharing_target_layer_name": "model.layers.0.self_attn.attn"}, "cross-layer shared"),
]
KINDS_ON_A_GPU: list[tuple[dict[str, Any], str]] = [
    ({"sliding_window": 1}, "one-token window"),
]
CASES = [(device, *kind) for device in ("cpu", "cuda") for kind in KINDS]
CASES += [("cuda", *kind) for kind in KINDS_ON_A_GPU]
MIXINS = {"cpu": CpuParticleAttention, "cuda": GpuParticleAttention}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> VllmConfig:
    folder = save_model_without_weights(tmp_path_factory.mktemp("tiny") / "TFB-tiny", "llama")
    return EngineArgs(model=str(folder), max_model_len=256).create_engine_config()


def layer(device: str, config: VllmConfig, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Any:
    """vLLM's own attention implementation of a layer on a device; none of it runs."""
    monkeypatch.setattr("vllm.v1.attention.backends.flash_attn.flash_attn_supports_sinks", lambda: True, raising=False)
    arguments = {"alibi_slopes": None, "sliding_window": None, "kv_cache_dtype": "auto", "num_kv_heads": KV_HEADS}
    implementation: Any = CPUAttentionBackendImpl if device == "cpu" else FlashAttentionImpl
    with set_current_vllm_config(config):
        return implementation(HEADS, HEAD, HEAD**-0.5, **arguments | options)


@pytest.mark.parametrize(("device", "options", "said"), CASES)
def test_each_kind_is_refused_by_name(
    device: str, options: dict[str, Any], said: str, config: VllmConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through `install`, which every layer of a TFB model passes."""
    platform = SimpleNamespace(is_cuda=lambda: device == "cuda")
    monkeypatch.setattr(attention, "current_platform", platform)
    particles: Any = SimpleNamespace(num_tokens=0, noisy_samples=2)
    refused = SimpleNamespace(impl=layer(device, config, monkeypatch, **options))
    refusal = pytest.raises(ValueError, match=f"^TFB models do not support {said} attention.*; choose another model")
    with refusal:
        attention.install(refused, particles)
    accepted = SimpleNamespace(impl=layer(device, config, monkeypatch))
    attention.install(accepted, particles)
    assert isinstance(accepted.impl, MIXINS[device])


def test_every_kind_of_the_tables_has_a_test() -> None:
    assert {refusal.name for refusal in ATTENTION} == {said for _, said in KINDS}
    tested = {said for _, said in KINDS_ON_A_GPU} | {"256-wide Blackwell"}  # of a GPU's processor
    assert {refusal.name for refusal in GPU_ATTENTION} == tested


def test_several_kinds_are_named_at_once(config: VllmConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    stock = layer("cuda", config, monkeypatch, sinks=torch.zeros(HEADS), sliding_window=1)
    with pytest.raises(ValueError, match="do not support sink, one-token window attention on a GPU; choose"):
        refuse_attention(stock, FlashAttentionImpl, GPU_ATTENTION)


@pytest.mark.parametrize("device", MIXINS)
def test_windows_and_soft_caps_are_accepted(device: str, config: VllmConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "current_platform", SimpleNamespace(is_cuda=lambda: device == "cuda"))
    particles: Any = SimpleNamespace(num_tokens=0, noisy_samples=2)
    for window in (None, 2, 255):
        limited = layer(device, config, monkeypatch, sliding_window=window, logits_soft_cap=30.0)
        accepted = SimpleNamespace(impl=limited)
        attention.install(accepted, particles)
        assert isinstance(accepted.impl, MIXINS[device])


def test_another_implementation_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="need vLLM's FlashAttentionImpl, the attention of this layer is SimpleNamesp"):
        refuse_attention(SimpleNamespace(), FlashAttentionImpl)


@pytest.mark.engine
def test_one_layer_of_a_model_is_enough(tiny_llama_tfb_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model whose second layer alone has ALiBi does not start."""

    def biased(*arguments: Any, prefix: str, **options: Any) -> Any:
        slopes = [0.5] * arguments[0] if ".layers.1." in f".{prefix}" else None
        return Attention(*arguments, prefix=prefix, alibi_slopes=slopes, **options)

    monkeypatch.setattr(llama, "Attention", biased)
    refusal = pytest.raises(ValueError, match="TFB models do not support ALiBi attention; choose another model")
    with refusal, engine(tiny_llama_tfb_path, in_process=True):
        pass
