"""The basis vectors of a weight: its top singular vectors, computed here alone, for every engine and for conversion.

A singular vector is settled up to its sign only, and its last digits depend on the machine. The distribution of the
noise depends on neither, but the numbers of a seed do on the sign. So it is fixed here. Bases that a checkpoint holds
are used as they are and never come here.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .noise_config import check_kind

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator

ALGORITHM = 1  # counted up by a change after which a seed may give other numbers

_DENSE_SIDE = 256  # of a matrix, up to which a dense SVD takes no time
_DENSE_SHARE = 8  # Lanczos gains nothing where more than one singular vector in so many is asked for
_LEAST_SPREAD = 1e-5  # relative, of float32 singular values: with a smaller one Lanczos may not see which they are

Matrix = npt.NDArray[np.float32]


def basis_vectors(weight: Tensor, basis_idx: Sequence[int], kind: str) -> Tensor:
    """Singular vectors of `weight` [out, in]: [out, r] for right, [in, r] for left, in its dtype and on its device.

    They are computed in float32 on the CPU. The entry of largest magnitude of each vector is positive.

    Args:
        weight: finite, of a floating dtype.
        basis_idx: which ones, by descending singular value.
        kind: direction of the noise, see layers.py.

    Raises ValueError if an index exceeds the number of singular values.
    """
    rank = max(basis_idx) + 1
    if rank > min(weight.shape):
        raise ValueError(f"rank {rank} exceeds the smaller side of the {list(weight.shape)} matrix")
    is_right = check_kind(kind) == "right"
    vectors = top_singular_vectors(weight.detach().cpu().float().numpy(), rank)[0 if is_right else 1]
    chosen = torch.from_numpy(_with_fixed_signs(vectors)[:, list(basis_idx)])
    return chosen.to(device=weight.device, dtype=weight.dtype).contiguous()


def top_singular_vectors(matrix: Matrix, rank: int) -> tuple[Matrix, Matrix]:
    """The left [rows, rank] and right [columns, rank] singular vectors of the largest singular values, descending.

    Lanczos iteration (scipy's ARPACK) from a fixed vector. A dense SVD takes its place where the matrix is small, and
    where singular values are zero or all alike, which Lanczos cannot tell apart.
    """
    scaled = _scaled(matrix)
    found = _lanczos(scaled, rank)
    if found is None:
        left, _, right = np.linalg.svd(scaled, full_matrices=False)
        found = left[:, :rank], right[:rank].T
    return found


def _scaled(matrix: Matrix) -> Matrix:
    """The matrix times a power of two, so that the squares of its singular values are float32 numbers."""
    _, exponent = np.frexp(np.abs(matrix).max())
    return np.ldexp(matrix, -exponent)


def _lanczos(matrix: Matrix, rank: int) -> tuple[Matrix, Matrix] | None:
    """What `top_singular_vectors` returns; None where it takes a dense SVD."""
    side, wanted = min(matrix.shape), max(rank, 2)  # of one singular value there is no spread
    if side <= _DENSE_SIDE or side < wanted * _DENSE_SHARE:
        return None
    from scipy.sparse.linalg import ArpackError, svds  # here, as most that import this module compute nothing

    start = np.random.RandomState(0).standard_normal(side).astype(np.float32)  # numpy keeps this stream for ever
    try:
        left, values, right = svds(_operator(matrix), k=wanted, v0=start)
    except ArpackError:  # it came to an end of the matrix, as with one of zeros
        return None
    order = np.argsort(-values, kind="stable")
    largest, smallest = values[order[0]], values[order[-1]]
    if not _LEAST_SPREAD * largest < smallest < (1 - _LEAST_SPREAD) * largest:
        return None
    return left[:, order[:rank]], right[order[:rank]].T


def _operator(matrix: Matrix) -> "LinearOperator":
    """The matrix and its transpose as functions: torch multiplies, with the threads that it was given.

    numpy's library takes all cores for itself, also where an engine keeps its worker to one.
    """
    from scipy.sparse.linalg import LinearOperator

    weight = torch.from_numpy(matrix)

    def times(other: Matrix) -> Matrix:
        return (weight @ torch.from_numpy(np.ascontiguousarray(other))).numpy()

    def transposed_times(other: Matrix) -> Matrix:
        return (weight.T @ torch.from_numpy(np.ascontiguousarray(other))).numpy()

    return LinearOperator(
        matrix.shape, matvec=times, rmatvec=transposed_times, matmat=times, rmatmat=transposed_times, dtype=np.float32
    )


def _with_fixed_signs(vectors: Matrix) -> Matrix:
    """The columns of `vectors`, each with a sign that makes its entry of largest magnitude positive."""
    columns = np.arange(vectors.shape[1])
    largest = vectors[np.abs(vectors).argmax(axis=0), columns]
    return vectors * np.where(largest < 0, -1, 1).astype(vectors.dtype)
