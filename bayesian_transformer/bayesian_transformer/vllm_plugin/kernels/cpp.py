"""The hot loops on a CPU, in C++: particle attention, noise and statistics.

At small batches a decode step of a small model is bound by the number of torch operators, of which the plain formulas
take some thirty per layer. The sources (cpp/) need no headers but the compiler's own, so they compile in seconds, once
per machine, when an engine starts. Where that fails the plain torch formulas compute the same numbers.
"""

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...quantities import FIELDS
from ...uncertainty import TokenUncertainty
from .cpp_library import DTYPES, LANES, AttentionShape, NoiseShape, OfProjections, library
from .plain import WHOLE_CONTEXT, Part

_DTYPE_CODES = {dtype: code for code, dtype in enumerate(DTYPES.values())}


def supports(*tensors: Tensor) -> bool:
    """Whether the kernels are there and take these tensors: on the CPU, of one dtype, last dimension contiguous."""
    dtype = tensors[0].dtype
    return (
        dtype in _DTYPE_CODES
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


def _functions() -> Any:
    """The library for a caller who has asked `supports`; RuntimeError where there is none."""
    functions = library()
    if functions is None:
        raise RuntimeError("there are no C++ kernels on this machine (the log says why); use the plain formulas")
    return functions


def _check_rows(rows: tuple[Tensor, ...], cache: Tensor) -> None:
    """ValueError unless tensors [rows, heads, head size] still are what `supports_attention` has seen once."""
    head_size = cache.shape[3] // 2
    for tensor in rows:
        if tensor.dtype != cache.dtype or tensor.stride()[1:] != (head_size, 1) or tensor.shape[2] != head_size:
            raise ValueError(
                f"attention rows must be {cache.dtype} with heads of {head_size} side by side, got {tensor.dtype} "
                f"{[*tensor.shape]} with strides {[*tensor.stride()]}"
            )


def _checked(name: str, tensor: Tensor, dtype: torch.dtype, *shape: int) -> int:
    """Address of a contiguous tensor; a wrong one must end in an error, not in somebody else's memory."""
    if tensor.dtype != dtype or tensor.shape != shape or not tensor.is_contiguous():
        raise ValueError(f"{name} must be a contiguous {dtype} {[*shape]}, got {tensor.dtype} {[*tensor.shape]}")
    return tensor.data_ptr()


def _order(name: str, order: Tensor | None, *shape: int) -> int | None:
    return None if order is None else _checked(name, order, torch.int64, *shape)


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
    window: int = WHOLE_CONTEXT,
    soft_cap: float = 0.0,
) -> None:
    """`plain.attend`; block_table and seq_lens are int32."""
    rows = (query, key, value, output)
    _check_rows(rows, cache)
    shape = _attention_shape(rows, cache, block_table, packing)
    head_size, block_size = shape.head_size, shape.block_size
    _functions().particle_attention(
        shape=shape,
        dtype=_DTYPE_CODES[query.dtype],
        query=query.data_ptr(),
        key=key.data_ptr(),
        value=value.data_ptr(),
        cache=cache.data_ptr(),
        block_table=_checked("block_table", block_table, torch.int32, shape.requests, shape.max_blocks),
        lengths=_checked("seq_lens", seq_lens, torch.int32, shape.requests),
        key_order=_order("key_order", packing.key_order, head_size, block_size),
        value_order=_order("value_order", packing.value_order, block_size, head_size),
        scale=scale,
        window=window,
        soft_cap=soft_cap,
        output=output.data_ptr(),
        threads=torch.get_num_threads(),
    )


def _attention_shape(
    rows: tuple[Tensor, Tensor, Tensor, Tensor], cache: Tensor, block_table: Tensor, packing: Any
) -> AttentionShape:
    query, key, value, output = rows
    kv_heads, block_size, width = cache.shape[1:]
    requests, max_blocks = block_table.shape
    key_step, value_step = packing.steps
    return AttentionShape(
        requests=requests,
        noisy_samples=query.shape[0] // requests,
        kv_heads=kv_heads,
        group=query.shape[1] // kv_heads,
        head_size=width // 2,
        block_size=block_size,
        max_blocks=max_blocks,
        query_stride=query.stride(0),
        key_stride=key.stride(0),
        value_stride=value.stride(0),
        output_stride=output.stride(0),
        block_stride=cache.stride(0),
        key_step=key_step,
        value_step=value_step,
    )


def draw_noise(out: Tensor, seeds: Tensor, positions: Tensor, sites: Tensor) -> None:
    """`plain.draw_noise`; all contiguous."""
    layers, rows, projections, width = out.shape
    requests = len(seeds)
    noisy_samples = rows // requests
    _functions().draw_noise(
        seeds=_checked("seeds", seeds, torch.int64, requests),
        positions=_checked("positions", positions, torch.int64, requests),
        sites=_checked("sites", sites, torch.int64, layers, projections),
        layers=layers,
        noisy_samples=noisy_samples,
        requests=requests,
        projections=projections,
        width=width,
        z=_checked("out", out, torch.float32, layers, noisy_samples * requests, projections, width),
        threads=torch.get_num_threads(),
    )


def add_right_noise(qkv: Tensor, x: Tensor, basis: Tensor, z: Tensor, sigma: float, parts: Sequence[Part]) -> None:
    """`plain.add_right_noise`; qkv, x and basis have one dtype, basis and z are contiguous."""
    rows, width = qkv.shape
    rank = len(basis) // len(parts)
    _functions().add_right_noise(
        shape=_noise_shape(qkv, rows, parts, hidden=x.shape[1], x_stride=x.stride(0)),
        dtype=_DTYPE_CODES[qkv.dtype],
        x=x.data_ptr(),
        basis=_checked("basis", basis, qkv.dtype, len(parts) * rank, width),
        z=_checked("z", z, torch.float32, rows, len(parts) * rank),
        rank=rank,
        sigma=sigma,
        qkv=qkv.data_ptr(),
        threads=torch.get_num_threads(),
    )


def add_left_noise(
    qkv: Tensor, scale: Tensor, seeds: Tensor, positions: Tensor, sites: Tensor, parts: Sequence[Part]
) -> None:
    """`plain.add_left_noise`; all but qkv contiguous."""
    requests = len(seeds)
    _functions().add_left_noise(
        shape=_noise_shape(qkv, requests, parts),
        dtype=_DTYPE_CODES[qkv.dtype],
        scale=_checked("scale", scale, torch.float32, len(qkv), len(parts)),
        seeds=_checked("seeds", seeds, torch.int64, requests),
        positions=_checked("positions", positions, torch.int64, requests),
        sites=_checked("sites", sites, torch.int64, len(parts)),
        qkv=qkv.data_ptr(),
        threads=torch.get_num_threads(),
    )


@functools.cache
def _arrays(parts: tuple[Part, ...]) -> list[Any]:
    """Where the parts begin, their sizes and where their noise starts, as the shape holds them."""
    return [OfProjections(*values) for values in zip(*parts, strict=True)]


def _noise_shape(qkv: Tensor, requests: int, parts: Sequence[Part], **more: int) -> NoiseShape:
    """The shape; `more` is what right noise has only: `hidden` and `x_stride`."""
    rows, width = qkv.shape
    begins, sizes, starts = _arrays(tuple(parts))
    return NoiseShape(
        requests=requests,
        noisy_samples=rows // requests,
        width=width,
        qkv_stride=qkv.stride(0),
        projections=len(parts),
        begins=begins,
        sizes=sizes,
        starts=starts,
        **more,
    )


def token_uncertainty(logits: Tensor, token_ids: Tensor | None = None) -> TokenUncertainty:
    """`uncertainty.token_uncertainty`; a token id out of range gives NaN."""
    num_samples, tokens, vocabulary = logits.shape
    out = torch.empty(tokens, len(FIELDS), dtype=torch.float32)
    ids = None if token_ids is None else token_ids.to(torch.int64).contiguous()
    if ids is not None and ids.shape != (tokens,):
        raise ValueError(f"token_ids must have shape [{tokens}], got {[*ids.shape]}")
    _functions().token_uncertainties(
        dtype=_DTYPE_CODES[logits.dtype],
        logits=logits.data_ptr(),
        sample_stride=logits.stride(0),
        token_stride=logits.stride(1),
        num_samples=num_samples,
        tokens=tokens,
        size=vocabulary,
        token_ids=None if ids is None else ids.data_ptr(),
        out=out.data_ptr(),
        threads=torch.get_num_threads(),
    )
    return TokenUncertainty.from_table(out)
