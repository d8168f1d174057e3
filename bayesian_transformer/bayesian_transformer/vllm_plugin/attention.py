"""Attention of particle rows: the request's clean cache before the current token, plus the row's own k and v.

The ordinary attention runs first, on the ordinary rows, and writes this step's clean K/V. Then, in float32, partial
softmaxes over the cached blocks (read once per request, whatever the number of particles) are merged with the
own-token term: out = sum_i e^(m_i - m) o_i / sum_i e^(m_i - m) s_i over the parts i, each with maximum m_i, sum s_i of
its exponentials and unnormalised output o_i.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from vllm import _custom_ops as ops

from .particles import Particles

_CHUNK_ELEMENTS = 1 << 21  # bounds the float32 copies of gathered K and V blocks


@dataclass(frozen=True)
class Prefix:
    """The cache blocks that hold the tokens before each request's current one, M in all."""

    block: Tensor  # int64 [M], block number in the cache
    request: Tensor  # int64 [M], ascending
    mask: Tensor  # float32 [M, block size], 0 for a token of the prefix and -inf for others

    @classmethod
    def from_metadata(cls, metadata: Any, block_size: int) -> "Prefix":
        length = metadata.seq_lens.long() - 1
        num_blocks = (length + block_size - 1) // block_size
        number = torch.arange(int(num_blocks.max()), device=length.device)
        used = number < num_blocks[:, None]
        request, number = used.nonzero(as_tuple=True)
        position = number[:, None] * block_size + torch.arange(block_size, device=length.device)
        mask = torch.zeros(position.shape, device=length.device)
        mask.masked_fill_(position >= length[request, None], -torch.inf)
        return cls(metadata.block_table[request, number].long(), request, mask)


class ParticleAttention:
    """Mixin over the CPU attention implementation; `particles` and `packing` are set by `install`."""

    particles: Particles
    packing: "CachePacking | None"

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
        rows = (query[first:], key[first:], value[first:])
        output[first:] = rows[0] if attn_metadata is None else self._attend(layer, *rows, kv_cache, attn_metadata)
        return output

    def do_kv_cache_update(
        self, layer: Any, key: Tensor, value: Tensor, kv_cache: Tensor, slot_mapping: Tensor
    ) -> None:
        """Write the ordinary rows only: the kernel would write as many rows as `key` has."""
        count = slot_mapping.shape[0]
        super().do_kv_cache_update(layer, key[:count], value[:count], kv_cache, slot_mapping)  # type: ignore[misc]

    def _attend(self, layer: Any, query: Tensor, key: Tensor, value: Tensor, kv_cache: Tensor, metadata: Any) -> Tensor:
        """Output of the particle rows, float32 [P, heads, head size]."""
        blocks, heads, block_size, head_size = *kv_cache.shape[:3], kv_cache.shape[3] // 2
        if self.packing is None:
            self.packing = CachePacking.probe(layer.isa, kv_cache.dtype, block_size, head_size)
        if self.particles.prefix is None:
            self.particles.prefix = Prefix.from_metadata(metadata, block_size)
        caches = kv_cache.view(blocks, heads, 2, block_size * head_size).unbind(2)

        # From rows, sample by sample, to [B, KV heads, samples, query heads per KV head, head size].
        samples = self.particles.per_request
        query = query.float() * self.scale  # type: ignore[attr-defined]
        query = query.unflatten(0, (samples, -1)).unflatten(2, (heads, -1)).permute(1, 2, 0, 3, 4)
        key, value = (t.float().unflatten(0, (samples, -1)).permute(1, 2, 0, 3).unsqueeze(3) for t in (key, value))
        own_score = (query * key).sum(-1).flatten(2)
        own_value = value.expand(query.shape).flatten(2, 3)
        merged = attend_prefix(query.flatten(2, 3), own_score, own_value, caches, self.particles.prefix, self.packing)
        return merged.unflatten(2, (samples, -1)).permute(2, 0, 1, 3, 4).flatten(2, 3).flatten(0, 1)


def attend_prefix(
    query: Tensor,
    own_score: Tensor,
    own_value: Tensor,
    caches: tuple[Tensor, ...],
    prefix: Prefix,
    packing: "CachePacking",
) -> Tensor:
    """Merge attention over the prefix blocks with the own-token term.

    Args:
        query: scaled queries, float32 [B, h, R, D].
        own_score: float32 [B, h, R]; own_value: float32 [B, h, R, D].
        caches: key and value cache, each [blocks, h, block size * D], packed.

    Returns float32 [B, h, R, D].
    """
    parts = []
    step = max(1, _CHUNK_ELEMENTS // caches[0][0].numel())
    for i in range(0, len(prefix.block), step):
        block, request = prefix.block[i : i + step], prefix.request[i : i + step]
        score = query[request] @ packing.keys(caches[0][block]) + prefix.mask[i : i + step, None, None]
        top = score.amax(-1)
        weight = (score - top.unsqueeze(-1)).exp_()
        parts.append((top, weight.sum(-1), weight @ packing.values(caches[1][block])))
    if not parts:
        return own_value
    part_top, part_sum, part_out = (torch.cat(column) for column in zip(*parts, strict=True))
    into_request = prefix.request[:, None, None].expand_as(part_top)
    top = own_score.scatter_reduce(0, into_request, part_top, "amax")
    own_weight = (own_score - top).exp()
    part_weight = (part_top - top[prefix.request]).exp_()
    total = own_weight.index_add(0, prefix.request, part_weight * part_sum)
    out = (own_weight.unsqueeze(-1) * own_value).index_add_(0, prefix.request, part_weight.unsqueeze(-1) * part_out)
    return out / total.unsqueeze(-1)


@dataclass(frozen=True)
class CachePacking:
    """How the CPU kernels lay out one block of K [D, block size] and V [block size, D] for one head.

    The layout depends on the instruction set and is no documented interface, so it is learned by writing coded values
    through the official operator. `key_order[d, t]` and `value_order[t, d]` are places in the packed block; None means
    that the packed block already is that matrix.
    """

    block_size: int
    head_size: int
    key_order: Tensor | None
    value_order: Tensor | None

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
        plain = torch.arange(block_size * head_size)
        return cls(
            block_size,
            head_size,
            None if torch.equal(key_order.flatten(), plain) else key_order,
            None if torch.equal(value_order.flatten(), plain) else value_order,
        )

    def keys(self, packed: Tensor) -> Tensor:
        """float32 [m, h, D, block size] from packed blocks [m, h, block size * D]."""
        if self.key_order is None:
            return packed.view(*packed.shape[:2], self.head_size, self.block_size).float()
        return packed[..., self.key_order].float()

    def values(self, packed: Tensor) -> Tensor:
        """float32 [m, h, block size, D] from packed blocks [m, h, block size * D]."""
        if self.value_order is None:
            return packed.view(*packed.shape[:2], self.block_size, self.head_size).float()
        return packed[..., self.value_order].float()


def install(attention: Any, particles: Particles) -> None:
    """Give vLLM's attention layer `attention` the particle rows' attention.

    Which implementation class a layer gets is the platform's choice, made inside its constructor; so the mixin is put
    over whatever class that is.
    """
    stock = attention.impl
    particle_class: Any = type(f"Particle{type(stock).__name__}", (ParticleAttention, type(stock)), {})
    impl = particle_class.__new__(particle_class)
    vars(impl).update(vars(stock), particles=particles, packing=None)
    attention.impl = impl
