"""Inputs for the comparisons of kernels, from fixed seeds, on the CPU. Shapes as in the plugin, sizes small and odd."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...noise import site_index
from ...noise_config import PROJECTIONS, QKV
from ...vllm_plugin.kernels.plain import Part

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SEEDS = torch.tensor([3, -(2**40) - 1, 2**62 + 5])  # noise seeds of three requests, of every kind
POSITIONS = torch.tensor([0, 77, 131_071])
NOISY_SAMPLES = 4  # particle rows of each request
LAYERS = 2
# Samples, dtype, vocabulary. Kernels are compiled for each of the first two, and grow with the third.
_LOGITS = (
    (1, torch.float32, 50_257),
    (5, torch.bfloat16, 151_936),
    (5, torch.float16, 32_000),
    (10, torch.float32, 5_003),
)


def rounding(dtype: torch.dtype) -> float:
    """Relative tolerance of a number that was computed in float32 and rounded to `dtype`, to nearest or not."""
    return 1e-5 if dtype == torch.float32 else 2 * torch.finfo(dtype).eps


def short(dtype: torch.dtype) -> str:
    """`float32` for `torch.float32`."""
    return str(dtype).removeprefix("torch.")


def logits_cases() -> Iterator[tuple[str, Tensor, Tensor]]:
    """Names, logits [S, N, V] and token ids [N]: vocabularies of models, a small one, and values at the edges."""
    generator = torch.Generator().manual_seed(0)
    for samples, dtype, vocabulary in _LOGITS:
        common = 4 * torch.randn(1, 3, vocabulary, generator=generator)
        logits = (common + 0.3 * torch.randn(samples, 3, vocabulary, generator=generator)).to(dtype)
        yield f"{short(dtype)}, {samples} x {vocabulary}", logits, torch.tensor([0, 4_096, vocabulary - 1])
    yield "a small vocabulary", torch.randn(5, 2, 7, generator=generator), torch.tensor([6, 0])
    masked = torch.full((3, 4, 5_000), -torch.inf)
    masked[:, 0, 4_999] = 5.0  # all masked but one token
    masked[:, 1] = -100.0
    masked[[0, 1, 2], 1, [0, 70, 4_999]] = 100.0  # three certain samples that disagree
    masked[:, 2, 64:128] = torch.randn(3, 64, generator=generator)  # whole chunks masked
    masked[:, 3] = torch.randn(3, 5_000, generator=generator)
    masked[1, 3, 4_000] = torch.nan
    yield "masked and bad values", masked, torch.tensor([4_999, 70, 0, 1])
    ties = torch.randint(3, (2, 2, 5_000), generator=generator).to(torch.bfloat16)
    yield "ties among the largest", ties, torch.tensor([0, 4_999])


@dataclass(frozen=True)
class NoiseCase:
    """Particle rows at the end of a token batch, and what their noise is made of."""

    qkv: Tensor  # [T + P, q + k + v], T ordinary rows before the particle rows
    x: Tensor  # [T + P, hidden]
    basis: Tensor  # [N * rank, q + k + v]
    z: Tensor  # float32 [P, N * rank]
    scale: Tensor  # float32 [P, N], of left noise
    sites: Tensor  # int64 [LAYERS, N]
    parts: tuple[Part, ...]  # N of them
    ordinary: int = 2  # T


def noise_cases() -> Iterator[tuple[str, NoiseCase]]:
    """Sizes that are multiples of a kernel's steps, and some that are not; two noisy projections, and all three."""
    generator = torch.Generator().manual_seed(1)
    rows = NOISY_SAMPLES * len(SEEDS)
    for q_size, kv_size, hidden, rank, names in ((256, 64, 256, 8, PROJECTIONS), (300, 100, 1_500, 5, QKV)):
        width, v_begin = q_size + 2 * kv_size, q_size + kv_size
        all_parts = (Part(0, q_size, q_size), Part(q_size, kv_size, 2 * kv_size), Part(v_begin, kv_size, 2 * kv_size))
        parts = tuple(part for name, part in zip(QKV, all_parts, strict=True) if name in names)
        sites = torch.tensor([[site_index(layer, name) for name in names] for layer in range(LAYERS)])
        for dtype in DTYPES:
            qkv, x = (torch.randn(2 + rows, size, generator=generator).to(dtype) for size in (width, hidden))
            basis = torch.zeros(len(parts), rank, width)
            for vectors, (begin, size, _) in zip(basis, parts, strict=True):
                vectors[:, begin : begin + size] = torch.randn(rank, size, generator=generator) * size**-0.5
            z = torch.randn(rows, len(parts) * rank, generator=generator)
            scale = torch.rand(rows, len(parts), generator=generator)
            case = NoiseCase(qkv, x, basis.flatten(0, 1).to(dtype), z, scale, sites, parts)
            yield f"{short(dtype)}, {q_size} + {kv_size}", case


@dataclass(frozen=True)
class MergeCase:
    """The arguments of `merge_own_token` but the output."""

    query: Tensor  # [noisy_samples, B, KV heads, G, D]
    key: Tensor  # [noisy_samples, B, KV heads, D]
    value: Tensor
    prefix_out: Tensor  # as query
    prefix_lse: Tensor  # float32 [noisy_samples, B, KV heads, G], garbage where there is no prefix
    lengths: Tensor  # int32 [B]
    scale: float
    soft_cap: float

    def arguments(self, device: str) -> tuple[Any, ...]:
        """All of them in order, the tensors on a device."""
        tensors = (self.query, self.key, self.value, self.prefix_out, self.prefix_lse, self.lengths)
        return (*(tensor.to(device) for tensor in tensors), self.scale)


def merge_cases() -> Iterator[tuple[str, MergeCase]]:
    """Empty prefixes with everything that a kernel may leave for them, and scores of hundreds."""
    generator = torch.Generator().manual_seed(2)
    lengths = torch.tensor([9, 0, 1, 0, 0], dtype=torch.int32)
    garbage = torch.tensor([0.0, torch.inf, 0.0, -torch.inf, torch.nan])
    for dtype in DTYPES:
        for kv_heads, group, size, scale, soft_cap in (
            (2, 4, 64, 0.125, 0.0),
            (1, 3, 24, 20.0, 0.0),
            (1, 3, 24, 2.0, 5.0),
        ):
            shape = (NOISY_SAMPLES, len(lengths), kv_heads, group, size)
            query, prefix_out = torch.randn(2, *shape, generator=generator).to(dtype)
            key, value = torch.randn(2, *shape[:3], size, generator=generator).to(dtype)
            lse = 3 * torch.randn(shape[:4], generator=generator)
            empty = (lengths == 0)[:, None, None]
            lse = torch.where(empty, garbage[:, None, None], lse)
            prefix_out = torch.where(empty[..., None], garbage[:, None, None, None].to(dtype), prefix_out)
            case = MergeCase(query, key, value, prefix_out, lse, lengths, scale, soft_cap)
            yield f"{short(dtype)}, heads of {size}, soft cap {soft_cap}", case
