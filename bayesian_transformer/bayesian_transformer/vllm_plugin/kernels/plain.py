"""The plain torch formulas of the particle rows' noise and attention, which the kernels compute faster.

Those of the statistics are in ../../uncertainty.py.

Row (s - 1) * B + b of P = (S - 1) * B particle rows is weight sample s of request b.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...noise import standard_normal

WHOLE_CONTEXT = 1 << 62  # a window that no text fills


class Part(NamedTuple):
    """Where the outputs of a noisy projection lie in a row [q + k + v]."""

    begin: int  # the first of them in the row
    size: int
    start: int = 0  # index of the first within the whole projection, of which a tensor-parallel rank has a share


def draw_noise(out: Tensor, seeds: Tensor, positions: Tensor, sites: Tensor) -> None:
    """Fill `out` [layers, P, N, width], float32, with the right noise of the N noisy projections of all layers.

    Args:
        seeds, positions: int64 [B].
        sites: int64 [layers, N], numbers of the noise sites.
    """
    seed, position, sample = (t[:, None] for t in _row_counters(seeds, positions, out.shape[1]))
    out.copy_(standard_normal(seed, position, sites[:, None], sample, out.shape[3]))


def add_right_noise(qkv: Tensor, x: Tensor, basis: Tensor, z: Tensor, sigma: float, parts: Sequence[Part]) -> None:
    """Perturb the N noisy parts of `qkv` in place: += sigma * ||x||_2 * basis @ z, computed in float32.

    Args:
        qkv: [P, q + k + v]; x: [P, hidden].
        basis: [N * rank, q + k + v], the basis of one part over that of the next, zero elsewhere.
        z: float32 [P, N * rank].
        parts: N of them, which this function does not need.
    """
    scale = sigma * torch.linalg.vector_norm(x.float(), dim=-1, keepdim=True)
    qkv.add_((scale * z) @ basis.float())


def add_left_noise(
    qkv: Tensor, scale: Tensor, seeds: Tensor, positions: Tensor, sites: Tensor, parts: Sequence[Part]
) -> None:
    """Perturb the N noisy `parts` of `qkv` [P, q + k + v] in place: += scale * z, z drawn here, one value per output.

    Args:
        scale: float32 [P, N].
        seeds, positions: int64 [B].
        sites: int64 [N], numbers of the noise sites.
    """
    seed, position, sample = _row_counters(seeds, positions, len(qkv))
    for index, part in enumerate(parts):
        z = standard_normal(seed, position, sites[index], sample, part.size, part.start)
        qkv[:, part.begin : part.begin + part.size] += scale[:, index, None] * z


def _row_counters(seeds: Tensor, positions: Tensor, rows: int) -> tuple[Tensor, Tensor, Tensor]:
    """Noise seed, position and weight sample of each particle row, int64 [P]."""
    noisy_samples = rows // len(seeds)
    sample = torch.arange(1, noisy_samples + 1, device=seeds.device).repeat_interleave(len(seeds))
    return seeds.repeat(noisy_samples), positions.repeat(noisy_samples), sample


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
    """Attention of the particle rows in float32, request by request.

    Args:
        query, output: [P, heads, D]; key, value: [P, KV heads, D]. Row (s - 1) * B + b is weight sample s of request b.
        cache: [blocks, KV heads, block size, 2 * D], packed.
        block_table: int [B, blocks per request]; seq_lens: int [B], the current token included.
        packing: how the numbers lie in a block, a CachePacking.
        scale: factor of the scores.
        window: how many tokens a row sees, its own included, at least 1. Blocks without one of them are not read.
        soft_cap: scores become soft_cap * tanh(score / soft_cap); 0 leaves them as they are.
    """
    requests, heads = len(seq_lens), cache.shape[1]
    packed = cache.view(*cache.shape[:2], 2, -1)
    for request, length in enumerate((seq_lens - 1).tolist()):  # of the prefix
        first_block = max(0, length + 1 - window) // packing.block_size
        blocks = block_table[request, first_block : -(-length // packing.block_size)].long()
        keys, values = packing.unpack(packed[blocks])
        seen = slice(max(0, length + 1 - window), length)
        seen = slice(*(position - first_block * packing.block_size for position in (seen.start, seen.stop)))
        # [KV heads, noisy samples, query heads per KV head, D]
        q, own_key, own_value = (
            rows[request::requests].float().unflatten(1, (heads, -1)).transpose(0, 1) for rows in (query, key, value)
        )
        q = q * scale
        scores = (q.flatten(1, 2) @ keys[..., seen]).unflatten(1, q.shape[1:3])
        scores = torch.cat([scores, (q * own_key).sum(-1, keepdim=True)], dim=-1)
        weights = (soft_cap * (scores / soft_cap).tanh() if soft_cap else scores).softmax(-1)
        out = (weights[..., :-1].flatten(1, 2) @ values[:, seen]).view(q.shape) + weights[..., -1:] * own_value
        output[request::requests] = out.transpose(0, 1).flatten(1, 2).to(output.dtype)


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
    """Add each row's own token to its attention over the prefix, in float32.

    Args:
        query, prefix_out: [noisy_samples, B, KV heads, G, D].
        key, value: [noisy_samples, B, KV heads, D].
        prefix_lse: float32 [noisy_samples, B, KV heads, G], natural logarithm.
        lengths: int [B]; where it is 0, `prefix_out` and `prefix_lse` may hold anything, NaN included.
        scale: factor of the scores.
        output: [noisy_samples, B, KV heads, G, D], written.
        soft_cap: as in `attend`, of the own score; `prefix_lse` is that of capped scores.
    """
    own_score = scale * (query.float() * key.float().unsqueeze(-2)).sum(-1)
    own_score = soft_cap * (own_score / soft_cap).tanh() if soft_cap else own_score
    value = value.float().unsqueeze(-2)
    difference = (prefix_lse.float() - own_score).unsqueeze(-1)
    merged = difference.sigmoid() * prefix_out.float() + (-difference).sigmoid() * value
    output.copy_(torch.where((lengths > 0)[:, None, None, None], merged, value))
