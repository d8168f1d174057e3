"""The noise of noise.py and its addition to a projection's output, as Triton kernels.

Right noise is narrow: `draw_noise` makes that of all layers in one launch per step, and `add_right_noise` replaces a
layer's norm, scaling, cast and matmul. Left noise is as wide as the projections: `add_left_noise` draws it where it is
added, so that it never lies in memory.

Particle row (s - 1) * B + b carries weight sample s of request b, as in particles.py. The random words are those of
noise.py bit for bit; the normals differ from its by the rounding of log, cos and sin.
"""

import math
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from .plain import Part

_UNIT = tl.constexpr(2.0**-24)
_ANGLE = tl.constexpr(2.0 * math.pi * 2.0**-24)
_DRAW_BLOCKS = 128
_ROWS = 4  # particle rows and output columns of one program
_COLUMNS = 128
_HIDDEN = 1024  # width of one step of the norm


def draw_noise(out: Tensor, seeds: Tensor, positions: Tensor, sites: Tensor) -> None:
    """Fill `out` with the standard normals of every layer, particle row and projection of a step.

    Args:
        out: float32 [layers, rows, projections, width], contiguous; rows is a multiple of B.
        seeds: int64 [B], noise seed of each request.
        positions: int64 [B], position of the current token of each request.
        sites: int64 [layers, projections], contiguous, numbers of the noise sites.
    """
    layers, rows, projections, width = out.shape
    _check_rows(rows, seeds, positions)
    _check_sites(sites, layers, projections)
    if out.dtype != torch.float32 or not out.is_contiguous():
        raise ValueError(f"out must be a contiguous float32 [layers, rows, {projections}, width]")
    total = layers * rows * projections * triton.cdiv(width, 4)
    if total:
        _draw[(triton.cdiv(total, _DRAW_BLOCKS),)](
            *(out, seeds, positions, sites, len(seeds), rows, total),
            PROJECTIONS=projections,
            WIDTH=width,
            BLOCKS=_DRAW_BLOCKS,
        )


def add_right_noise(qkv: Tensor, x: Tensor, basis: Tensor, z: Tensor, sigma: float, parts: Sequence[Part]) -> None:
    """Perturb the N noisy parts of particle rows in place: += sigma * ||x||_2 * basis @ z, computed in float32.

    Args:
        qkv: [P, q + k + v], any floating dtype and row stride.
        x: [P, hidden], the layer's input rows.
        basis: [N * rank, q + k + v], the basis of one part over that of the next (transposed, zeros elsewhere).
        z: float32 [P, N, rank] or [P, N * rank], contiguous.
        parts: N of them.
    """
    rows = _check_qkv(qkv, parts)
    rank = basis.shape[0] // len(parts)
    if z.numel() != rows * basis.shape[0] or z.dtype != torch.float32 or not z.is_contiguous():
        raise ValueError(f"z must be a contiguous float32 [{rows}, {basis.shape[0]}], got {z.dtype} {[*z.shape]}")
    if x.shape[0] != rows or x.stride(1) != 1 or basis.shape[1] != qkv.shape[1] or basis.stride(1) != 1:
        raise ValueError(f"qkv {[*qkv.shape]}, x {[*x.shape]} and basis {[*basis.shape]} do not belong together")
    if rows:
        _add_right[(triton.cdiv(rows, _ROWS), _column_programs(parts))](
            *(qkv, qkv.stride(0), x, x.stride(0), basis, basis.stride(0), z, sigma),
            *(rows, x.shape[1], *_columns_of(parts)),
            RANK=rank,
            ROWS=_ROWS,
            COLUMNS=_COLUMNS,
            HIDDEN=_HIDDEN,
        )


def add_left_noise(
    qkv: Tensor,
    scale: Tensor,
    seeds: Tensor,
    positions: Tensor,
    sites: Tensor,
    parts: Sequence[Part],
) -> None:
    """Perturb the N noisy parts of particle rows in place: += scale * z, z standard normal, computed in float32.

    Args:
        qkv: [P, q + k + v], any floating dtype and row stride.
        scale: float32 [P, N], sigma * ||basis^T x||_2 of each part.
        seeds, positions: int64 [B], as for `draw_noise`.
        sites: int64 [N], contiguous, numbers of the noise sites.
        parts: N of them; their noise starts at multiples of 4.
    """
    rows = _check_qkv(qkv, parts)
    _check_rows(rows, seeds, positions)
    _check_sites(sites, len(parts))
    if any(part.start % 4 for part in parts):
        raise ValueError(f"noise index must start at a multiple of 4, got {[part.start for part in parts]}")
    if scale.shape != (rows, len(parts)) or scale.dtype != torch.float32 or not scale.is_contiguous():
        raise ValueError(
            f"scale must be a contiguous float32 [{rows}, {len(parts)}], got {scale.dtype} {[*scale.shape]}"
        )
    if rows:
        _add_left[(triton.cdiv(rows, _ROWS), _column_programs(parts))](
            *(qkv, qkv.stride(0), scale, seeds, positions, sites, len(seeds)),
            *(rows, *_columns_of(parts), tuple(part.start // 4 for part in parts)),
            ROWS=_ROWS,
            COLUMNS=_COLUMNS,
        )


def _check_rows(rows: int, seeds: Tensor, positions: Tensor) -> None:
    for name, tensor in (("seeds", seeds), ("positions", positions)):
        if tensor.shape != seeds.shape or tensor.dtype != torch.int64 or not tensor.is_contiguous():
            raise ValueError(f"{name} must be a contiguous int64 [{len(seeds)}], got {tensor.dtype} {[*tensor.shape]}")
    if rows % max(1, len(seeds)):
        raise ValueError(f"{rows} particle rows cannot belong to {len(seeds)} requests")


def _check_sites(sites: Tensor, *shape: int) -> None:
    if sites.shape != shape or sites.dtype != torch.int64 or not sites.is_contiguous():
        raise ValueError(f"sites must be a contiguous int64 {[*shape]}, got {sites.dtype} {[*sites.shape]}")


def _check_qkv(qkv: Tensor, parts: Sequence[Part]) -> int:
    """The number of rows."""
    end = max(part.begin + part.size for part in parts)
    if qkv.dim() != 2 or qkv.shape[1] < end or qkv.stride(1) != 1:
        raise ValueError(f"qkv must be [rows, {end} or more] with adjacent columns, got {[*qkv.shape]}")
    return qkv.shape[0]


def _column_programs(parts: Sequence[Part]) -> int:
    return sum(triton.cdiv(part.size, _COLUMNS) for part in parts)


def _columns_of(parts: Sequence[Part]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Where the parts begin, and their sizes."""
    return tuple(part.begin for part in parts), tuple(part.size for part in parts)


@triton.jit
def random_words(
    seed: tl.tensor, position: tl.tensor, site: tl.tensor, sample: tl.tensor, block: tl.tensor
) -> tl.tensor:
    """Philox4x32-10 of the counter (block, position, site, sample), keyed by the 64-bit seed: four uint32 words."""
    return tl.philox(seed, block.to(tl.uint32), position.to(tl.uint32), site.to(tl.uint32), sample.to(tl.uint32))


@triton.jit
def _box_muller(a: tl.tensor, b: tl.tensor) -> tl.tensor:
    """Two independent standard normals from two 32-bit words, of which the top 24 bits are used."""
    radius = tl.sqrt_rn(-2.0 * tl.log(((a >> 8) + 1).to(tl.float32) * _UNIT))
    angle = (b >> 8).to(tl.float32) * _ANGLE
    return radius * tl.cos(angle), radius * tl.sin(angle)


@triton.jit
def _normals(seed: tl.tensor, position: tl.tensor, site: tl.tensor, sample: tl.tensor, block: tl.tensor) -> tl.tensor:
    """Noise of index 4 * block + 2 * i + j, as new last axes i and j."""
    word0, word1, word2, word3 = random_words(seed, position, site, sample, block)
    z0, z1 = _box_muller(word0, word1)
    z2, z3 = _box_muller(word2, word3)
    return tl.join(tl.join(z0, z2), tl.join(z1, z3))


@triton.jit
def _draw(
    out: tl.tensor,
    seeds: tl.tensor,
    positions: tl.tensor,
    sites: tl.tensor,
    requests: tl.tensor,
    rows: tl.tensor,
    total: tl.tensor,
    PROJECTIONS: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCKS: tl.constexpr,
) -> None:
    """Program i: BLOCKS blocks of four normals, in the order of `out`."""
    place = tl.program_id(0) * BLOCKS + tl.arange(0, BLOCKS)
    blocks_each: tl.constexpr = (WIDTH + 3) // 4
    vector, block = place // blocks_each, place % blocks_each
    row, projection = vector // PROJECTIONS % rows, vector % PROJECTIONS
    inside = place < total
    site = tl.load(sites + vector // (PROJECTIONS * rows) * PROJECTIONS + projection, mask=inside, other=0)
    seed = tl.load(seeds + row % requests, mask=inside, other=0)
    position = tl.load(positions + row % requests, mask=inside, other=0)
    z = tl.reshape(_normals(seed, position, site, row // requests + 1, block), (BLOCKS, 4))
    index = block[:, None] * 4 + tl.arange(0, 4)[None, :]
    tl.store(out + vector.to(tl.int64)[:, None] * WIDTH + index, z, mask=inside[:, None] & (index < WIDTH))


@triton.jit
def _columns(begins: tl.tuple, sizes: tl.tuple, COLUMNS: tl.constexpr) -> tl.tensor:
    """This program's part, the width of the part, the first column in it, and where the part begins in qkv."""
    part, first, size, begin = 0, tl.program_id(1) * COLUMNS, sizes[0], begins[0]
    for i in tl.static_range(1, len(sizes)):
        columns = tl.cdiv(size, COLUMNS) * COLUMNS  # that the programs of the part before have
        is_later = (part == i - 1) & (first >= columns)
        part, first = tl.where(is_later, i, part), tl.where(is_later, first - columns, first)
        size, begin = tl.where(is_later, sizes[i], size), tl.where(is_later, begins[i], begin)
    return part, size, first, begin


@triton.jit
def _add_right(
    qkv: tl.tensor,
    qkv_stride: tl.tensor,
    x: tl.tensor,
    x_stride: tl.tensor,
    basis: tl.tensor,
    basis_stride: tl.tensor,
    z: tl.tensor,
    sigma: tl.tensor,
    rows: tl.tensor,
    hidden: tl.tensor,
    begins: tl.tuple,
    sizes: tl.tuple,
    RANK: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    HIDDEN: tl.constexpr,
) -> None:
    """Program (i, j): ROWS rows and COLUMNS columns of a part."""
    part, size, first, begin = _columns(begins, sizes, COLUMNS)
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    squares = tl.zeros((ROWS, HIDDEN), dtype=tl.float32)
    for start in range(0, hidden, HIDDEN):
        feature = start + tl.arange(0, HIDDEN)
        inside = (row < rows)[:, None] & (feature < hidden)[None, :]
        values = tl.load(x + row[:, None] * x_stride + feature[None, :], mask=inside, other=0.0).to(tl.float32)
        squares += values * values
    scale = sigma * tl.sqrt_rn(tl.sum(squares, axis=1))

    column = first + tl.arange(0, COLUMNS)
    noise = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    for i in tl.static_range(RANK):
        vector = part * RANK + i
        direction = tl.load(basis + vector * basis_stride + begin + column, mask=column < size, other=0.0)
        coefficient = tl.load(z + row * (len(sizes) * RANK) + vector, mask=row < rows, other=0.0)
        noise += coefficient[:, None] * direction.to(tl.float32)[None, :]
    place = qkv + row[:, None] * qkv_stride + begin + column[None, :]
    inside = (row < rows)[:, None] & (column < size)[None, :]
    clean = tl.load(place, mask=inside, other=0.0).to(tl.float32)
    tl.store(place, clean + scale[:, None] * noise, mask=inside)


@triton.jit
def _add_left(
    qkv: tl.tensor,
    qkv_stride: tl.tensor,
    scale: tl.tensor,
    seeds: tl.tensor,
    positions: tl.tensor,
    sites: tl.tensor,
    requests: tl.tensor,
    rows: tl.tensor,
    begins: tl.tuple,
    sizes: tl.tuple,
    blocks: tl.tuple,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
) -> None:
    """Program (i, j): ROWS rows and COLUMNS columns of a part; `blocks` are those of four normals where parts start."""
    part, size, first, begin = _columns(begins, sizes, COLUMNS)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    seed = tl.load(seeds + row % requests)
    position = tl.load(positions + row % requests)
    start = blocks[0]
    for i in tl.static_range(1, len(blocks)):
        start = tl.where(part == i, blocks[i], start)
    block = start + first // 4 + tl.arange(0, COLUMNS // 4)
    sample = row // requests + 1
    z = _normals(seed[:, None], position[:, None], tl.load(sites + part), sample[:, None], block[None, :])
    column = first + tl.arange(0, COLUMNS)
    inside = (row < rows)[:, None] & (column < size)[None, :]
    factor = tl.load(scale + row * len(sizes) + part, mask=row < rows, other=0.0)
    place = qkv + row.to(tl.int64)[:, None] * qkv_stride + begin + column[None, :]
    clean = tl.load(place, mask=inside, other=0.0).to(tl.float32)
    tl.store(place, clean + factor[:, None] * tl.reshape(z, (ROWS, COLUMNS)), mask=inside)
