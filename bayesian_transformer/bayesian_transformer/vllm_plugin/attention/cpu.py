"""Attention of particle rows on a CPU: the request's clean cache before the current token, plus the row's own k and v.

The ordinary attention runs first, on the ordinary rows, and writes this step's clean K/V. Then, in float32, the cached
blocks (read once per request, whatever the number of weight samples) and the own token share one softmax:
out = (sum_t e^(s_t - m) v_t + e^(s_own - m) v_own) / (sum_t e^(s_t - m) + e^(s_own - m)), with m the largest score.

A layer with a sliding window of W tokens lets a row see the last W - 1 before its own, as it does the ordinary rows.
vLLM's block table holds no blocks before them. Soft-capped scores are c tanh(s / c), the own one too.
"""

import functools
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from vllm import _custom_ops as ops
from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackendImpl

from ..kernels import AttentionFunction, attention_function
from ..kernels.cpp import LANES
from ..kernels.plain import WHOLE_CONTEXT
from ..particles import Particles


class CpuParticleAttention:
    """Mixin over the CPU attention implementation; `particles` is set by `install`."""

    over: ClassVar[type] = CPUAttentionBackendImpl
    particles: Particles
    logits_soft_cap: float | None  # of vLLM's class
    packing: "CachePacking | None" = None  # learned at the first step
    attend: AttentionFunction

    def forward(
        self,
        layer: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        kv_cache: Tensor,
        attn_metadata: Any,
        output: Tensor,
        *args: Any,
        **kwargs: Any,
    ) -> Tensor:
        """Stock attention for the ordinary rows, ours for the rest of `query` [rows, heads, head size]."""
        first = self.particles.num_tokens
        stock = super().forward  # type: ignore[misc]
        stock(
            layer, query[:first], key[:first], value[:first], kv_cache, attn_metadata, output[:first], *args, **kwargs
        )
        if attn_metadata is None:  # profiling and warm-up: any output of the right shape
            output[first:] = query[first:]
        else:
            self._attend(layer, query[first:], key[first:], value[first:], kv_cache, attn_metadata, output[first:])
        return output

    def do_kv_cache_update(
        self, layer: Any, key: Tensor, value: Tensor, kv_cache: Tensor, slot_mapping: Tensor
    ) -> None:
        """Write the ordinary rows only: the kernel would write as many rows as `key` has."""
        count = slot_mapping.shape[0]
        super().do_kv_cache_update(layer, key[:count], value[:count], kv_cache, slot_mapping)  # type: ignore[misc]

    def _attend(
        self, layer: Any, query: Tensor, key: Tensor, value: Tensor, kv_cache: Tensor, metadata: Any, output: Tensor
    ) -> None:
        """Write the output of the particle rows: [P, heads, head size]."""
        if self.packing is None:  # the first time; dtypes and layouts stay what they are
            self.packing = CachePacking.probe(layer.isa, kv_cache.dtype, kv_cache.shape[2], kv_cache.shape[3] // 2)
            self.attend = attention_function(query, key, value, kv_cache, output)
        arguments = (metadata.block_table, metadata.seq_lens, self.packing, self.scale)  # type: ignore[attr-defined]
        window, soft_cap = layer.sliding_window or WHOLE_CONTEXT, self.logits_soft_cap or 0.0
        self.attend(query, key, value, kv_cache, *arguments, output, window, soft_cap)


@dataclass(frozen=True)
class CachePacking:
    """How the CPU kernels lay out one block of K [D, block size] and V [block size, D] for one head.

    The layout depends on the instruction set and is not documented, so it is learned by writing coded values
    through the official operator. `key_order[d, t]` and `value_order[t, d]` are places in the packed block; None means
    that the packed block already is that matrix.
    """

    block_size: int
    head_size: int
    key_order: Tensor | None
    value_order: Tensor | None

    @functools.cached_property
    def steps(self) -> tuple[int, int]:
        """How far apart the neighbours in a row of K and of V lie, in vectors of `LANES`; 0 where that differs."""
        return _step(self.key_order), _step(self.value_order)

    @classmethod
    def probe(cls, isa: str, dtype: torch.dtype, block_size: int, head_size: int) -> "CachePacking":
        """Learn the layout of an instruction set."""
        code = torch.arange(block_size * head_size).view(block_size, 1, head_size)
        digits = 7  # a value of 7 bits is exact in every supported dtype
        places = torch.zeros(2, block_size * head_size, dtype=torch.int64)
        for shift in range(0, (code.numel() - 1).bit_length(), digits):
            cache = torch.zeros(1, 1, 2 * block_size, head_size, dtype=dtype)
            value = (code >> shift & (1 << digits) - 1).to(dtype)
            ops.cpu_attn_reshape_and_cache(value, value, *cache.chunk(2, dim=2), torch.arange(block_size), isa)
            places += cache.view(2, -1).long() << shift
        key_order = places[0].argsort().view(block_size, head_size).T.contiguous()
        value_order = places[1].argsort().view(block_size, head_size)
        orders = [None if torch.equal(order.flatten(), code.flatten()) else order for order in (key_order, value_order)]
        return cls(block_size, head_size, *orders)

    def unpack(self, packed: Tensor) -> tuple[Tensor, Tensor]:
        """float32 keys [heads, D, n * block size] and values [heads, n * block size, D].

        packed: n blocks, [n, heads, 2, block size * D].
        """
        keys, values = packed.float().unbind(2)
        keys = keys if self.key_order is None else keys[..., self.key_order.flatten()]
        values = values if self.value_order is None else values[..., self.value_order.flatten()]
        keys = keys.unflatten(-1, (self.head_size, self.block_size)).permute(1, 2, 0, 3).flatten(2)
        return keys, values.unflatten(-1, (self.block_size, self.head_size)).transpose(0, 1).flatten(1, 2)


def _step(order: Tensor | None) -> int:
    if order is None:
        return 1
    vectors = order.flatten()[: order.numel() // LANES * LANES].unflatten(0, (-1, LANES))
    steps = vectors.diff(dim=-1).unique().tolist()
    return steps[0] if len(steps) == 1 else 0
