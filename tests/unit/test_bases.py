"""Basis vectors compared with a dense SVD in float64: what they span, their signs, and where they are not unique."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import subspace_angles

from bayesian_transformer import bases
from bayesian_transformer.bases import basis_vectors, top_singular_vectors

SIDE = 300  # of matrices that go through Lanczos
RANK = 8
KINDS = ("right", "left")


def matrix(values: np.ndarray, columns: int = 340, seed: int = 0) -> torch.Tensor:
    """A random float32 matrix [len(values), columns] with these singular values."""
    rng = np.random.default_rng(seed)
    left, _ = np.linalg.qr(rng.standard_normal((len(values), len(values))))
    right, _ = np.linalg.qr(rng.standard_normal((columns, len(values))))
    return torch.from_numpy(((left * values) @ right.T).astype(np.float32))


def dense(weight: torch.Tensor, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Singular vectors of one side as columns, and the singular values, in float64."""
    left, values, right = np.linalg.svd(weight.double().numpy(), full_matrices=False)
    return (left if kind == "right" else right.T), values


def through_lanczos(weight: torch.Tensor, rank: int = RANK) -> bool:
    return bases._lanczos(bases._scaled(weight.numpy()), rank) is not None


def check_signs(basis: torch.Tensor) -> None:
    largest = basis.abs().argmax(dim=0, keepdim=True)
    assert (basis.gather(0, largest) > 0).all()


@given(st.integers(2, 400), st.integers(2, 400), st.integers(1, 40), st.integers(0, 2**31), st.sampled_from(KINDS))
@settings(deadline=None, max_examples=60)
def test_random_matrices(rows: int, columns: int, rank: int, seed: int, kind: str) -> None:
    """Each vector alone where it is unique, and their span; the stretch of each is its singular value."""
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    rank = min(rank, rows, columns)
    basis = basis_vectors(weight, range(rank), kind)
    expected, values = dense(weight, kind)
    found = basis.double().numpy()
    assert found.shape == (rows if kind == "right" else columns, rank)
    check_signs(basis)
    np.testing.assert_allclose(found.T @ found, np.eye(rank), atol=2e-5)
    wide = weight.double().numpy()
    stretched = np.linalg.norm(found.T @ wide if kind == "right" else wide @ found, axis=0 if kind == "left" else 1)
    np.testing.assert_allclose(stretched, values[:rank], rtol=1e-4, atol=1e-5 * values[0])
    gaps = np.abs(np.diff(values, append=0.0)) / values[0]
    if rank == len(values) or gaps[rank - 1] > 1e-3:
        assert subspace_angles(found, expected[:, :rank]).max() < 1e-2
    for i in range(rank):
        if min(gaps[i], gaps[i - 1] if i else np.inf) > 1e-3:  # otherwise the direction is ill-defined
            assert abs(abs(found[:, i] @ expected[:, i]) - 1) < 1e-3


TAIL = np.linspace(1, 0.1, SIDE - RANK)
VALUES = {
    "apart": np.r_[np.linspace(9, 2, RANK), TAIL],
    "three equal": np.r_[5, 5, 5, 4, 3, 2.9, 2.8, 2.7, TAIL],
    "four and four equal": np.r_[5, 5, 5, 5, 3, 3, 3, 3, np.ones(SIDE - RANK)],
    "rank 20": np.r_[np.linspace(9, 2, RANK), np.linspace(1.5, 0.5, 12), np.zeros(SIDE - 20)],
    "huge": np.r_[np.linspace(9, 2, RANK), TAIL] * 1e25,
    "tiny": np.r_[np.linspace(9, 2, RANK), TAIL] * 1e-25,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", VALUES)
def test_singular_values_of_every_sort(name: str, kind: str) -> None:
    weight = matrix(VALUES[name])
    assert through_lanczos(weight)
    basis = basis_vectors(weight, range(RANK), kind)
    assert subspace_angles(basis.double().numpy(), dense(weight, kind)[0][:, :RANK]).max() < 1e-4
    check_signs(basis)
    assert torch.equal(basis, basis_vectors(weight, range(RANK), kind))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "weight",
    [
        torch.zeros(SIDE, SIDE + 40),
        torch.eye(SIDE, SIDE + 40),
        matrix(np.ones(SIDE)),
        matrix(np.r_[5, 4, 3, np.zeros(SIDE - 3)]),
        torch.ones(SIDE, SIDE),
    ],
    ids=["zeros", "identity", "all equal", "rank 3", "ones"],
)
def test_what_lanczos_cannot_tell_apart_takes_a_dense_svd(weight: torch.Tensor, kind: str) -> None:
    assert not through_lanczos(weight)
    basis = basis_vectors(weight, range(RANK), kind)
    np.testing.assert_allclose(basis.T @ basis, np.eye(RANK), atol=1e-5)
    check_signs(basis)
    expected, values = dense(weight, kind)
    rank = min(RANK, int((values > 1e-5 * values[0]).sum()))
    if 0 < rank < RANK:  # of zero singular values any direction is as good
        assert subspace_angles(basis[:, :rank].double().numpy(), expected[:, :rank]).max() < 1e-4
    assert torch.equal(basis, basis_vectors(weight, range(RANK), kind))


def test_both_ways_give_the_same() -> None:
    weight = matrix(VALUES["apart"])
    left, _, right = np.linalg.svd(weight.numpy(), full_matrices=False)
    for found, expected in zip(top_singular_vectors(weight.numpy(), RANK), (left, right.T), strict=True):
        signs = np.sign((found * expected[:, :RANK]).sum(axis=0))
        np.testing.assert_allclose(found * signs, expected[:, :RANK], atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_the_result_has_the_dtype_of_the_weight(dtype: torch.dtype) -> None:
    """It is that of the weight's values in float32, rounded once at the end."""
    weight = (matrix(VALUES["apart"]) / 8).to(dtype)
    basis = basis_vectors(weight, range(RANK), "right")
    assert basis.dtype == dtype
    assert basis.is_contiguous()
    assert torch.equal(basis, basis_vectors(weight.float(), range(RANK), "right").to(dtype))


def test_any_directions_can_be_chosen() -> None:
    weight = matrix(VALUES["apart"])
    every = basis_vectors(weight, range(6), "left")
    assert torch.equal(basis_vectors(weight, (5, 0, 2), "left"), every[:, [5, 0, 2]])


def test_another_process_has_the_same_bits() -> None:
    code = (
        "import hashlib, torch\n"
        "from bayesian_transformer.bases import basis_vectors\n"
        "weight = torch.randn(500, 400, generator=torch.Generator().manual_seed(3))\n"
        "print(hashlib.sha256(basis_vectors(weight, range(8), 'right').numpy().tobytes()).hexdigest())\n"
    )
    run = [sys.executable, "-P", "-c", code]
    digests = [subprocess.run(run, capture_output=True, check=True, text=True).stdout for _ in range(2)]
    assert digests[0] == digests[1]


def test_what_cannot_be_computed_is_named() -> None:
    with pytest.raises(ValueError, match=r"rank 6 exceeds the smaller side of the \[5, 9\] matrix"):
        basis_vectors(torch.randn(5, 9), range(6), "right")
    with pytest.raises(ValueError, match="right, left; got 'up'"):
        basis_vectors(torch.randn(5, 9), range(2), "up")
