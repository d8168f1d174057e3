"""The hot loops on a CPU, in C++: particle attention, noise and statistics.

At small batches a decode step of a small model is bound by the number of torch operators, of which the plain formulas
take some thirty per layer. The sources (cpp/) need no headers but the compiler's own, so they compile in seconds, once
per machine, when an engine starts. Where that fails the plain torch formulas compute the same numbers.
"""

import ctypes
import functools
import hashlib
import logging
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...files import atomic_path, cache_dir
from ...noise import PROJECTIONS
from ...uncertainty import FIELDS, TokenUncertainty

logger = logging.getLogger(__name__)

_SOURCES = Path(__file__).with_name("cpp")
# The two -fno give up errno and floating-point exceptions, which nobody reads, and change no result.
_FLAGS = ["-std=c++20", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-shared", "-fPIC"]
_DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
LANES = 16  # as in cpp/common.h
_Index = ctypes.c_int64


class _AttentionShape(ctypes.Structure):
    """`AttentionShape` in attention.h."""

    _fields_ = [
        (name, _Index)
        for name in (
            *("requests", "samples", "kv_heads", "group", "head_size", "block_size", "max_blocks"),
            *("query_stride", "key_stride", "value_stride", "output_stride", "block_stride"),
            *("key_step", "value_step"),
        )
    ]


class _NoiseShape(ctypes.Structure):
    """`NoiseShape` in noise.h."""

    _fields_ = [
        *((name, _Index) for name in ("requests", "samples", "hidden", "width", "x_stride", "qkv_stride")),
        *((name, _Index * len(PROJECTIONS)) for name in ("sizes", "offsets", "starts")),
    ]


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels, or None (said once in the log) where there is no compiler that can make them."""
    try:
        return ctypes.CDLL(str(_build()))
    except (OSError, subprocess.SubprocessError) as error:
        detail = getattr(error, "stderr", None) or str(error)
        logger.warning("TFB models decode slower: the CPU kernels cannot be compiled (%s)", detail.strip()[-300:])
        return None


def _build() -> Path:
    """Path of the shared library for this processor, compiler and source; compiled if it is not there."""
    compiler = os.environ.get("CXX", "g++")
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True).stdout
    sources = sorted(_SOURCES.iterdir())
    parts = [version, *_FLAGS, _processor(), *(path.read_text() for path in sources)]
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    target = cache_dir() / f"cpu_kernels_{digest}.so"
    if not target.exists():
        with atomic_path(target) as made:
            command = [compiler, *_FLAGS, str(_SOURCES / "kernels.cpp"), "-o", str(made)]
            subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    return target


def _processor() -> str:
    """What `-march=native` depends on; a home folder may be shared between machines."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else [platform.processor()]
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))


def supports(*tensors: Tensor) -> bool:
    """Whether the kernels are there and take these tensors: on the CPU, of one dtype, last dimension contiguous."""
    dtype = tensors[0].dtype
    return (
        dtype in _DTYPES
        and all(t.device.type == "cpu" and t.dtype == dtype and t.stride(-1) == 1 for t in tensors)
        and library() is not None
    )


def supports_attention(query: Tensor, key: Tensor, value: Tensor, cache: Tensor, output: Tensor) -> bool:
    """Whether `attend` takes these: the heads of a row side by side, blocks of whole vectors."""
    rows = (query, key, value, output)
    return (
        supports(*rows, cache)
        and all(t.stride(1) == t.shape[2] for t in rows)
        and cache[0].is_contiguous()
        and cache.shape[2] % LANES == 0
        and cache.shape[3] % (2 * LANES) == 0
    )


def _check_rows(rows: tuple[Tensor, ...], cache: Tensor) -> None:
    """ValueError unless tensors [rows, heads, head size] still are what `supports_attention` has seen once."""
    head_size = cache.shape[3] // 2
    for tensor in rows:
        if tensor.dtype != cache.dtype or tensor.stride()[1:] != (head_size, 1) or tensor.shape[2] != head_size:
            raise ValueError(
                f"attention rows must be {cache.dtype} with heads of {head_size} side by side, got {tensor.dtype} "
                f"{[*tensor.shape]} with strides {[*tensor.stride()]}"
            )


def _checked(name: str, tensor: Tensor, dtype: torch.dtype, *shape: int) -> ctypes.c_void_p:
    """Address of a contiguous tensor; a wrong one must end in an error, not in somebody else's memory."""
    if tensor.dtype != dtype or tensor.shape != shape or not tensor.is_contiguous():
        raise ValueError(f"{name} must be a contiguous {dtype} {[*shape]}, got {tensor.dtype} {[*tensor.shape]}")
    return _pointer(tensor)


def _pointer(tensor: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cache: Tensor,
    block_table: Tensor,
    seq_lens: Tensor,
    packing: Any,
    scale: float,
    output: Tensor,
) -> None:
    """`plain.attend`; block_table and seq_lens are int32."""
    _check_rows((query, key, value, output), cache)
    heads, block_size, width = cache.shape[1:]
    requests, blocks = block_table.shape
    shape = _AttentionShape(
        *(requests, query.shape[0] // requests, heads, query.shape[1] // heads, width // 2, block_size),
        *(blocks, query.stride(0), key.stride(0), value.stride(0), output.stride(0), cache.stride(0)),
        *packing.steps,
    )
    lib = library()
    assert lib is not None
    lib.particle_attention(
        *(ctypes.byref(shape), _Index(_DTYPES[query.dtype]), *map(_pointer, (query, key, value, cache))),
        _checked("block_table", block_table, torch.int32, requests, blocks),
        _checked("seq_lens", seq_lens, torch.int32, requests),
        *map(_pointer, (packing.key_order, packing.value_order)),
        *(ctypes.c_float(scale), _pointer(output), torch.get_num_threads()),
    )


def draw_noise(out: Tensor, seeds: Tensor, positions: Tensor) -> None:
    """`plain.draw_noise`; all contiguous."""
    layers, rows, _, width = out.shape
    requests = len(seeds)
    lib = library()
    assert lib is not None
    lib.draw_noise(
        _checked("seeds", seeds, torch.int64, requests),
        _checked("positions", positions, torch.int64, requests),
        *map(_Index, (layers, rows // requests, requests, width)),
        _checked("out", out, torch.float32, layers, rows // requests * requests, len(PROJECTIONS), width),
        torch.get_num_threads(),
    )


def add_right_noise(qkv: Tensor, x: Tensor, basis: Tensor, z: Tensor, sigma: float, sizes: tuple[int, int]) -> None:
    """`plain.add_right_noise`; qkv, x and basis have one dtype, basis and z are contiguous."""
    rows, width = qkv.shape
    rank = len(basis) // len(PROJECTIONS)
    lib = library()
    assert lib is not None
    lib.add_right_noise(
        *(ctypes.byref(_noise_shape(qkv, x, rows, sizes, (0, 0))), _Index(_DTYPES[qkv.dtype]), _pointer(x)),
        _checked("basis", basis, qkv.dtype, len(PROJECTIONS) * rank, width),
        _checked("z", z, torch.float32, rows, len(PROJECTIONS) * rank),
        *(_Index(rank), ctypes.c_float(sigma), _pointer(qkv), torch.get_num_threads()),
    )


def add_left_noise(
    qkv: Tensor,
    scale: Tensor,
    seeds: Tensor,
    positions: Tensor,
    layer: int,
    sizes: tuple[int, int],
    starts: tuple[int, int],
) -> None:
    """`plain.add_left_noise`; all but qkv contiguous."""
    requests = len(seeds)
    lib = library()
    assert lib is not None
    lib.add_left_noise(
        *(ctypes.byref(_noise_shape(qkv, None, requests, sizes, starts)), _Index(_DTYPES[qkv.dtype])),
        _checked("scale", scale, torch.float32, len(qkv), len(PROJECTIONS)),
        _checked("seeds", seeds, torch.int64, requests),
        _checked("positions", positions, torch.int64, requests),
        *(_Index(layer), _pointer(qkv), torch.get_num_threads()),
    )


def _noise_shape(
    qkv: Tensor, x: Tensor | None, requests: int, sizes: tuple[int, int], starts: tuple[int, int]
) -> _NoiseShape:
    pair = _Index * len(PROJECTIONS)
    return _NoiseShape(
        *(requests, qkv.shape[0] // requests, 0 if x is None else x.shape[1], qkv.shape[1]),
        *(0 if x is None else x.stride(0), qkv.stride(0)),
        *(pair(*sizes), pair(0, qkv.shape[1] - sizes[1]), pair(*starts)),
    )


def token_uncertainty(logits: Tensor, token_ids: Tensor | None = None) -> TokenUncertainty:
    """`uncertainty.token_uncertainty`; a token id out of range gives NaN."""
    samples, tokens, vocabulary = logits.shape
    out = torch.empty(tokens, len(FIELDS), dtype=torch.float32)
    ids = None if token_ids is None else token_ids.to(torch.int64).contiguous()
    if ids is not None and ids.shape != (tokens,):
        raise ValueError(f"token_ids must have shape [{tokens}], got {[*ids.shape]}")
    lib = library()
    assert lib is not None
    lib.token_uncertainties(
        *(_Index(_DTYPES[logits.dtype]), _pointer(logits), *map(_Index, logits.stride()[:2])),
        *(*map(_Index, (samples, tokens, vocabulary)), _pointer(ids), _pointer(out), torch.get_num_threads()),
    )
    return TokenUncertainty(*out.unbind(1))
