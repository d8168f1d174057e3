"""Attention of particle rows on an NVIDIA GPU, over vLLM's FlashAttention implementation.

The ordinary rows go through stock attention first, which writes nothing that the particle rows would see: their part
of the cache ends before the current token. Then one call of FlashAttention's varlen kernel, non-causal, lets all
particle rows of a request attend to that part, read once for all of them, and returns the log-sum-exp of their scores.
Last, each row's own k and v join by the exact formula, in float32:
out = (1 - w) * out_prefix + w * v, with w = 1 / (1 + exp(lse_prefix - scale * q.k)), and w = 1 for an empty prefix.

A layer with a sliding window of W tokens lets a row see W - 1 cached tokens and its own, as it does the ordinary rows.
Soft-capped scores are c tanh(s / c), in the kernel as in the own score.

FlashAttention 2 splits the keys among processors for a query length of 1 only, so there a request's weight samples are
extra query heads of a single query row; versions 3 and 4 take them as that many query rows. Not so with a window: the
kernel counts it from the place of a query row among the others, and all particle rows stand at one place.

Nothing here reads a value on the host, and shapes depend on the number of requests alone. On the replay of a captured
graph no Python runs, and a request that only pads the batch (sequence length 0) attends to itself.

Never yet run on a GPU: the calls of FlashAttention (written from the signature and the stock calls in vLLM 0.30 and
0.32), windows and soft caps among them, the capture and replay of a graph, and the compiled merge kernel, which has
been compiled for compute capability 9.0 and run in Triton's interpreter. The tests drive this module on the CPU with a
stand-in for FlashAttention.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from vllm.utils.torch_utils import canonicalize_singleton_dim_strides
from vllm.v1.attention.backends import fa_utils
from vllm.v1.attention.backends.flash_attn import FlashAttentionImpl

from ..kernels import merge_own_token
from ..particles import Particles

_SPLIT_ROWS = 32 * 512  # query rows times splits that the kernel's float32 workspace may hold: those of vLLM's defaults


@dataclass(frozen=True)
class PrefixPlan:
    """The arguments of the varlen kernel that are the same for all layers of a forward."""

    lengths: Tensor  # int32 [B], number of tokens before each request's current one
    cu_seqlens: Tensor  # int32 [B + 1], each request's first query row
    query_rows: int  # of each request
    max_length: int  # upper bound of `lengths`; under capture, the model's maximum
    num_splits: int  # at most so many parts of a prefix are worked on at a time; 0 leaves the choice to the kernel

    @classmethod
    def from_metadata(cls, metadata: Any, noisy_samples: int, as_heads: bool) -> "PrefixPlan":
        """The plan for FlashAttentionMetadata and `noisy_samples` particle rows of each request."""
        lengths = (metadata.seq_lens - 1).clamp_min_(0)
        requests, query_rows = len(lengths), 1 if as_heads else noisy_samples
        starts = torch.arange(0, query_rows * requests + 1, query_rows, dtype=torch.int32, device=lengths.device)
        splits = metadata.max_num_splits
        if splits > 1:
            splits = min(splits, max(1, _SPLIT_ROWS // (noisy_samples * requests)))
        return cls(lengths, starts, query_rows, metadata.max_seq_len, splits)


class GpuParticleAttention:
    """Mixin over FlashAttentionImpl; `particles` is set by `install`."""

    over: ClassVar[type] = FlashAttentionImpl
    particles: Particles

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
        if attn_metadata is None:  # profiling
            output[first:].fill_(0)
        elif len(query) > first:
            self._attend(query[first:], key[first:], value[first:], kv_cache, attn_metadata, output[first:])
        return output

    def _attend(
        self, query: Tensor, key: Tensor, value: Tensor, kv_cache: Tensor, metadata: Any, output: Tensor
    ) -> None:
        """Fill the particle rows of `output` [P, heads, head size]."""
        impl: Any = self
        noisy_samples, kv_heads = self.particles.noisy_samples, impl.num_kv_heads
        window = prefix_window(impl.sliding_window)
        as_heads = impl.vllm_flash_attn_version == 2 or window is not None
        plan = plan_of(metadata, noisy_samples, as_heads)
        keys, values = cache_views(kv_cache, impl.head_size)
        query, output = (split_rows(t, noisy_samples, kv_heads) for t in (query, output))
        prefix_out, prefix_lse = fa_utils.flash_attn_varlen_func(
            q=pack_queries(query, as_heads),
            k=keys,
            v=values,
            cu_seqlens_q=plan.cu_seqlens,
            max_seqlen_q=plan.query_rows,
            seqused_k=plan.lengths,
            max_seqlen_k=plan.max_length,
            softmax_scale=impl.scale,
            causal=False,
            window_size=window,
            softcap=impl.logits_soft_cap,
            block_table=metadata.block_table,
            return_softmax_lse=True,
            num_splits=plan.num_splits,
            fa_version=impl.vllm_flash_attn_version,
        )
        prefix_out, prefix_lse = unpack_result(prefix_out, prefix_lse, query.shape, as_heads)
        key, value = (t.unflatten(0, (noisy_samples, -1)) for t in (key, value))
        soft_cap = impl.logits_soft_cap
        merge_own_token(query, key, value, prefix_out, prefix_lse, plan.lengths, impl.scale, output, soft_cap)


def plan_of(metadata: Any, noisy_samples: int, as_heads: bool) -> PrefixPlan:
    """The plan of a forward, made once: it has metadata of its own, shared by layers with a window and without."""
    plans = vars(metadata).setdefault("particle_plans", {})
    if as_heads not in plans:
        plans[as_heads] = PrefixPlan.from_metadata(metadata, noisy_samples, as_heads)
    plan: PrefixPlan = plans[as_heads]
    return plan


def prefix_window(window: tuple[int, int]) -> list[int] | None:
    """What of a prefix a single query row sees, as the kernel is told: how many tokens before and after its last one.

    window: vLLM's for the ordinary rows, how many tokens a row sees before its own, -1 for all, and after it. The
    row's own token is not in its prefix, so the last one there already is one of those before it. One at least is
    before it: a window of the own token alone is refused, as -1 would let the kernel see all.
    """
    earlier = window[0]
    return None if earlier < 0 else [earlier - 1, 0]


def cache_views(kv_cache: Tensor, head_size: int) -> tuple[Tensor, Tensor]:
    """Keys and values [blocks, block size, KV heads, D] of a cache [blocks, KV heads, block size, 2 * D]."""
    keys, values = kv_cache.transpose(1, 2).split(head_size, dim=-1)
    # The kernel's bulk loads want regular strides on dimensions of size 1 too.
    return canonicalize_singleton_dim_strides(keys), canonicalize_singleton_dim_strides(values)


def split_rows(rows: Tensor, noisy_samples: int, kv_heads: int) -> Tensor:
    """Particle rows [P, heads, D], sample by sample, as a view [noisy_samples, B, KV heads, heads per KV head, D]."""
    return rows.unflatten(0, (noisy_samples, -1)).unflatten(2, (kv_heads, -1))


def pack_queries(query: Tensor, as_heads: bool) -> Tensor:
    """Queries [noisy_samples, B, KV heads, G, D] request by request, for the varlen kernel.

    With `as_heads` [B, KV heads * noisy_samples * G, D], so that a KV head serves adjacent heads; else
    [B * noisy_samples, KV heads * G, D].
    """
    if as_heads:
        return query.permute(1, 2, 0, 3, 4).flatten(1, 3)
    return query.transpose(0, 1).flatten(2, 3).flatten(0, 1)


def unpack_result(out: Tensor, lse: Tensor, shape: torch.Size, as_heads: bool) -> tuple[Tensor, Tensor]:
    """The kernel's output and its LSE [heads, query rows] as views of `shape` and of `shape` without D."""
    noisy_samples, requests, kv_heads, group, _ = shape
    if as_heads:
        out = out.unflatten(1, (kv_heads, noisy_samples, group)).permute(2, 0, 1, 3, 4)
        return out, lse.unflatten(0, (kv_heads, noisy_samples, group)).permute(1, 3, 0, 2)
    out = out.unflatten(0, (requests, noisy_samples)).unflatten(2, (kv_heads, group)).transpose(0, 1)
    return out, lse.unflatten(1, (requests, noisy_samples)).unflatten(0, (kv_heads, group)).permute(3, 2, 0, 1)
