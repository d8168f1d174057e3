"""TOKUR_KERNELS: with `plain` no kernel of ours runs, on a CPU and on a GPU; what else it may say is refused.

That an engine's numbers stay the same is in test_vllm_exact.py.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("vllm")
from vllm.engine.arg_utils import EngineArgs

from bayesian_transformer import uncertainty
from bayesian_transformer.vllm_plugin import kernels
from bayesian_transformer.vllm_plugin.kernels import cpp, plain
from tests.helpers.prompt_models import save_model_without_weights

PACKAGE = kernels.__name__
TRITON = [f"{PACKAGE}.{name}" for name in ("triton_noise", "triton_statistics", "triton_merge")]
PLAIN = [{"TOKUR_KERNELS": "plain"}, {"TOKUR_CPU_KERNELS": "0"}, {"TOKUR_KERNELS": "auto", "TOKUR_CPU_KERNELS": "0"}]


class OnGPU(torch.Tensor):
    """A tensor that says it is on a GPU."""

    is_cuda = True


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """No variable is set, and the choice is made anew within a test and after it."""
    for name in ("TOKUR_KERNELS", "TOKUR_CPU_KERNELS"):
        monkeypatch.delenv(name, raising=False)
    kernels.mode.cache_clear()
    yield monkeypatch
    kernels.mode.cache_clear()


@pytest.fixture(params=PLAIN, ids=lambda variables: " ".join(f"{k}={v}" for k, v in variables.items()))
def plain_only(request: pytest.FixtureRequest, environment: pytest.MonkeyPatch) -> None:
    """Nothing compiles, loads or imports a kernel of ours: it would fail."""

    def refuse() -> None:
        raise AssertionError("the C++ library was asked for")

    for name, value in request.param.items():
        environment.setenv(name, value)
    for module in ("kernels.cpp", "kernels.cpp_library"):
        environment.setattr(f"bayesian_transformer.vllm_plugin.{module}.library", refuse)
    for module in TRITON:
        environment.setitem(sys.modules, module, None)  # type: ignore[arg-type]  # importing it fails


def attention_case() -> tuple[torch.Tensor, ...]:
    """Query, key, value, cache and output that the kernel in C++ takes."""
    rows = torch.zeros(4, 2, 32)
    return rows, rows, rows, torch.zeros(3, 2, 16, 64), rows.clone()


def merge_case(kind: type[torch.Tensor]) -> list[Any]:
    torch.manual_seed(0)
    query, own, lse = torch.randn(2, 3, 2, 4, 16), torch.randn(2, 3, 2, 16), torch.randn(2, 3, 2, 4)
    lengths = torch.tensor([0, 2, 5], dtype=torch.int32)
    tensors = (query, own, own + 1, query + 1, lse, lengths)
    return [*(t.as_subclass(kind) for t in tensors), 0.5, torch.empty_like(query).as_subclass(kind)]


def test_auto_takes_the_kernels(environment: pytest.MonkeyPatch) -> None:
    """So that the tests of `plain` compare with something."""
    assert kernels.mode() == "auto"
    assert kernels.noise_functions(torch.zeros(1)) is cpp
    assert kernels.attention_function(*attention_case()) is cpp.attend


@pytest.mark.skipif(not kernels.HAS_TRITON, reason="triton is not installed")
def test_auto_takes_the_kernels_of_a_gpu(environment: pytest.MonkeyPatch) -> None:
    from bayesian_transformer.vllm_plugin.kernels import triton_merge, triton_noise, triton_statistics

    asked: list[str] = []
    for module, name in (
        (triton_statistics, "fused_token_uncertainty"),
        (triton_statistics, "fused_mixture_logits"),
        (triton_merge, "merge"),
    ):
        environment.setattr(module, name, lambda *arguments, name=name: asked.append(name))
    logits = torch.randn(3, 2, 9).as_subclass(OnGPU)
    assert kernels.noise_functions(logits) is triton_noise
    kernels.token_uncertainty(logits)
    kernels.mixture_logits(logits)
    kernels.merge_own_token(*merge_case(OnGPU))
    assert asked == ["fused_token_uncertainty", "fused_mixture_logits", "merge"]


@pytest.mark.parametrize("kind", [torch.Tensor, OnGPU])
def test_plain_leaves_out_every_kernel(plain_only: None, kind: type[torch.Tensor]) -> None:
    assert kernels.mode() == "plain"
    kernels.prepare()
    logits, token_ids = torch.randn(3, 4, 50), torch.arange(4)
    assert kernels.noise_functions(logits.as_subclass(kind)) is plain
    assert kernels.attention_function(*(t.as_subclass(kind) for t in attention_case())) is plain.attend
    expected = uncertainty.token_uncertainty(logits, token_ids).stack()
    assert torch.equal(kernels.token_uncertainty(logits.as_subclass(kind), token_ids).stack(), expected)
    assert torch.equal(kernels.mixture_logits(logits.as_subclass(kind)), uncertainty.mixture_logits(logits))
    merged, wanted = merge_case(kind), merge_case(torch.Tensor)
    kernels.merge_own_token(*merged)
    plain.merge_own_token(*wanted)
    assert torch.equal(merged[-1], wanted[-1])


def test_prepare_compiles_where_there_is_no_gpu(environment: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    environment.setattr(cpp, "library", lambda: asked.append("library"))
    for is_available in (True, False):
        environment.setattr(torch.cuda, "is_available", lambda found=is_available: found)
        kernels.prepare()
    assert asked == ["library"]


def test_another_value_is_refused_when_an_engine_starts(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = save_model_without_weights(tmp_path / "TFB-tiny", "llama")
    options: Any = {"model": str(path), "max_model_len": 256, "dtype": "float32"}
    EngineArgs(**options).create_engine_config()
    environment.setenv("TOKUR_KERNELS", "fast")  # in the same process, which has read another
    with pytest.raises(ValueError, match="TOKUR_KERNELS must be one of auto, plain; got 'fast'"):
        EngineArgs(**options).create_engine_config()
    environment.setenv("TOKUR_KERNELS", "plain")
    EngineArgs(**options).create_engine_config()
    assert kernels.mode() == "plain"
    environment.setenv("TOKUR_KERNELS", "")
    with pytest.raises(ValueError, match=r"^TOKUR_KERNELS must be one of auto, plain; got ''$"):
        kernels.read_mode()
