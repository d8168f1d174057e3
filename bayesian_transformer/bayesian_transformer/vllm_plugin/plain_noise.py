"""The noise of the particle rows in plain torch: what cpu_kernels.py and noise_kernels.py compute faster.

Row (s - 1) * B + b of P = (S - 1) * B particle rows is weight sample s of request b.
"""

import torch
from torch import Tensor

from ..noise import PROJECTIONS, site_index, standard_normal

Pair = tuple[int, int]  # of the q and the v part


def draw_noise(out: Tensor, seeds: Tensor, positions: Tensor) -> None:
    """Fill `out` [layers, P, 2, width], float32, with the right noise of all layers; seeds, positions: int64 [B]."""
    layers, rows, projections, width = out.shape
    sites = torch.arange(layers * projections, device=out.device).view(layers, 1, projections)
    seed, position, sample = (t[:, None] for t in _row_counters(seeds, positions, rows))
    out.copy_(standard_normal(seed, position, sites, sample, width))


def add_right_noise(qkv: Tensor, x: Tensor, basis: Tensor, z: Tensor, sigma: float, sizes: Pair) -> None:
    """Perturb the q and v parts of `qkv` in place: += sigma * ||x||_2 * basis @ z, computed in float32.

    Args:
        qkv: [P, q + k + v]; x: [P, hidden].
        basis: [2 * rank, q + k + v], the q basis over the v basis, zero elsewhere.
        z: float32 [P, 2 * rank].
        sizes: widths of the q and v parts, which this function does not need.
    """
    scale = sigma * torch.linalg.vector_norm(x.float(), dim=-1, keepdim=True)
    qkv.add_((scale * z) @ basis.float())


def add_left_noise(
    qkv: Tensor, scale: Tensor, seeds: Tensor, positions: Tensor, layer: int, sizes: Pair, starts: Pair
) -> None:
    """Perturb the q and v parts of `qkv` [P, q + k + v] in place: += scale * z, z drawn here, one value per output.

    Args:
        scale: float32 [P, 2].
        seeds, positions: int64 [B].
        sizes: widths of the q and v parts.
        starts: index of each part's first output within the whole projection (a tensor-parallel rank has a share).
    """
    seed, position, sample = _row_counters(seeds, positions, len(qkv))
    parts = (qkv[:, : sizes[0]], qkv[:, -sizes[1] :])
    for projection, part in zip(range(len(PROJECTIONS)), parts, strict=True):
        site = torch.tensor(site_index(layer, projection), device=qkv.device)
        z = standard_normal(seed, position, site, sample, sizes[projection], starts[projection])
        part += scale[:, projection, None] * z


def _row_counters(seeds: Tensor, positions: Tensor, rows: int) -> tuple[Tensor, Tensor, Tensor]:
    """Noise seed, position and weight sample of each particle row, int64 [P]."""
    samples = rows // len(seeds)
    sample = torch.arange(1, samples + 1, device=seeds.device).repeat_interleave(len(seeds))
    return seeds.repeat(samples), positions.repeat(samples), sample
