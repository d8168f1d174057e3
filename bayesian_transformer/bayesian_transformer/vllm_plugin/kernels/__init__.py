"""Which code computes: Triton on a GPU, C++ on a CPU, else the plain torch formulas. The one place that
chooses between them; attention/ only follows the attention that vLLM has chosen for the platform.

    plain.py                      noise and attention in plain torch; the statistics are in ../../uncertainty.py
    cpp.py with cpp_library.py    C++ (cpp/), compiled at the first start of an engine and checked when it is loaded
    triton_noise.py, triton_merge.py, triton_statistics.py with its device code in triton_statistics_*.py

Where there is no C++ compiler, `cpp_library.library` says so once in the log and is None; plain torch then runs.
TOKUR_KERNELS=plain leaves out all kernels of ours, on a CPU and on a GPU. TOKUR_CPU_KERNELS=0 is its older name.
"""

import functools
import importlib.util
import os
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from ... import uncertainty
from ...uncertainty import TokenUncertainty
from . import cpp, plain

HAS_TRITON = importlib.util.find_spec("triton") is not None
MODES = ("auto", "plain")


class NoiseFunctions(Protocol):
    """What plain.py, cpp.py and triton_noise.py all have; plain.py says what the arguments are."""

    def draw_noise(self, out: Tensor, seeds: Tensor, positions: Tensor, sites: Tensor) -> None: ...

    def add_right_noise(
        self, qkv: Tensor, x: Tensor, basis: Tensor, z: Tensor, sigma: float, parts: Sequence[plain.Part]
    ) -> None: ...

    def add_left_noise(
        self,
        qkv: Tensor,
        scale: Tensor,
        seeds: Tensor,
        positions: Tensor,
        sites: Tensor,
        parts: Sequence[plain.Part],
    ) -> None: ...


class AttentionFunction(Protocol):
    """What `plain.attend` and `cpp.attend` both are."""

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        cache: Tensor,
        block_table: Tensor,
        seq_lens: Tensor,
        packing: Any,
        scale: float,
        output: Tensor,
        window: int = plain.WHOLE_CONTEXT,
        soft_cap: float = 0.0,
    ) -> None: ...


@functools.cache
def mode() -> str:
    """What TOKUR_KERNELS asks for, read once in a process; ValueError if it is not one of MODES."""
    asked = os.environ.get("TOKUR_KERNELS", "auto")
    if asked not in MODES:
        raise ValueError(f"TOKUR_KERNELS must be one of {', '.join(MODES)}; got {asked!r}")
    return "plain" if os.environ.get("TOKUR_CPU_KERNELS") == "0" else asked


def read_mode() -> None:
    """Read TOKUR_KERNELS anew, for an engine that starts in a process that has had another; ValueError as above."""
    mode.cache_clear()
    mode()


def prepare() -> None:
    """Compile the C++ kernels now rather than in the first request, if they are wanted and there is no GPU."""
    if mode() == "auto" and not torch.cuda.is_available():
        cpp.library()


def noise_functions(*tensors: Tensor) -> NoiseFunctions:
    """The module whose draw_noise, add_right_noise and add_left_noise are the best for these tensors."""
    if _use_triton(tensors[0]):
        from . import triton_noise  # imported where it can work only

        return triton_noise
    if _use_cpp(*tensors):
        return cpp
    return plain


def attention_function(query: Tensor, key: Tensor, value: Tensor, cache: Tensor, output: Tensor) -> AttentionFunction:
    """`plain.attend` by the best means at hand, for tensors like these on a CPU."""
    is_fast = mode() == "auto" and cpp.supports_attention(query, key, value, cache, output)
    return cpp.attend if is_fast else plain.attend


def merge_own_token(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    prefix_out: Tensor,
    prefix_lse: Tensor,
    lengths: Tensor,
    scale: float,
    output: Tensor,
    soft_cap: float = 0.0,
) -> None:
    """`plain.merge_own_token` by the best means at hand."""
    merge = plain.merge_own_token
    if _use_triton(query):
        from .triton_merge import merge
    merge(query, key, value, prefix_out, prefix_lse, lengths, scale, output, soft_cap)


def token_uncertainty(logits: Tensor, token_ids: Tensor | None = None) -> TokenUncertainty:
    """`uncertainty.token_uncertainty` by the best means at hand."""
    if _use_triton(logits):
        from .triton_statistics import fused_token_uncertainty

        return fused_token_uncertainty(logits, token_ids)
    if _use_cpp(logits):
        return cpp.token_uncertainty(logits, token_ids)
    return uncertainty.token_uncertainty(logits, token_ids)


def mixture_logits(logits: Tensor) -> Tensor:
    """`uncertainty.mixture_logits` by the best means at hand."""
    if not _use_triton(logits):
        return uncertainty.mixture_logits(logits)
    from .triton_statistics import fused_mixture_logits

    return fused_mixture_logits(logits)


def _use_triton(tensor: Tensor) -> bool:
    return HAS_TRITON and tensor.is_cuda and mode() == "auto"


def _use_cpp(*tensors: Tensor) -> bool:
    return mode() == "auto" and cpp.supports(*tensors)
