"""Low-rank noise compared with what it stands for: an explicitly perturbed weight matrix."""

import pytest
import torch

from bayesian_transformer.layers import basis_vectors, check_basis, low_rank_noise, noise_width

SIGMA = 0.3


@pytest.mark.parametrize("kind", ["right", "left"])
def test_noise_has_the_covariance_of_a_perturbed_weight(kind: str) -> None:
    """Covariance of noise(x) over z against (W' - W) x with W' drawn explicitly, both by their exact formulas."""
    torch.manual_seed(1)
    weight, x = torch.randn(7, 5, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    basis = basis_vectors(weight.float(), range(3), kind)
    width = noise_width(kind, basis, 7)
    # noise is linear in z, so unit vectors give its matrix A, and its covariance is A A^T
    matrix = low_rank_noise(x.float().expand(width, -1), basis, torch.eye(width), SIGMA, kind).T.double()
    if kind == "right":  # (W + B E^T) x - W x = B (E^T x), E^T x ~ N(0, sigma^2 |x|^2 I_r)
        expected = SIGMA**2 * (x @ x) * basis.double() @ basis.double().T
    else:  # (W + E B^T) x - W x = E (B^T x) ~ N(0, sigma^2 |B^T x|^2 I_out)
        inner = basis.double().T @ x
        expected = SIGMA**2 * (inner @ inner) * torch.eye(7, dtype=torch.float64)
    torch.testing.assert_close(matrix @ matrix.T, expected, atol=1e-6, rtol=1e-5)


def test_noise_is_zero_without_sigma_and_batches() -> None:
    basis, x, z = torch.randn(6, 2), torch.randn(3, 4, 5), torch.randn(3, 4, 2)
    assert not low_rank_noise(x, basis, z, 0.0, "right").any()
    whole = low_rank_noise(x, basis, z, SIGMA, "right")
    torch.testing.assert_close(whole[1, 2], low_rank_noise(x[1, 2], basis, z[1, 2], SIGMA, "right"))


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="right, left; got 'up'"):
        low_rank_noise(torch.zeros(2), torch.zeros(2, 2), torch.zeros(2), SIGMA, "up")
    with pytest.raises(ValueError, match=r"a\.b: shape \[3, 2\]"):
        check_basis("a.b", torch.zeros(3, 2), (2, 3))
    with pytest.raises(ValueError, match=r"a\.b: .*not all finite"):
        check_basis("a.b", torch.full((2, 3), torch.nan), (2, 3))
