"""The low-rank perturbation of a linear layer, for both noise directions.

W = U diag(d) V^T is the SVD of the weight W [out, in]; x is the layer's input row; sigma the noise scale:

    right: basis = U[:, basis_idx] [out, r];  noise(x) = sigma * ||x||_2 * basis @ z,        z ~ N(0, I_r)
    left:  basis = V[:, basis_idx] [in, r];   noise(x) = sigma * ||basis^T x||_2 * z,        z ~ N(0, I_out)

Both are W' x - W x for a random W' (W + basis E^T or W + E basis^T, entries of E iid N(0, sigma^2)) after local
reparameterisation. Source: TokUR (arXiv 2505.11737); TFB (arXiv 2412.05723).
"""

from torch import Tensor

from .bases import basis_vectors
from .noise_config import NOISE_KINDS, check_kind

__all__ = ["NOISE_KINDS", "basis_vectors", "check_basis", "check_kind", "low_rank_noise", "noise_width"]


def check_basis(name: str, basis: Tensor, shape: tuple[int, int]) -> None:
    """Raise ValueError, naming the tensor, unless a loaded basis has `shape`, a floating dtype and finite values."""
    if tuple(basis.shape) != shape:
        raise ValueError(
            f"{name}: shape {list(basis.shape)} where the config's bayes_noise and basis_idx ask for {list(shape)}; "
            "convert the model again, or set them as it was converted"
        )
    if not basis.is_floating_point() or not basis.isfinite().all():
        raise ValueError(f"{name}: holds {basis.dtype} values that are not all finite numbers; convert the model again")


def noise_width(kind: str, basis: Tensor, out_features: int) -> int:
    """How many standard normals one input row needs."""
    return basis.shape[1] if check_kind(kind) == "right" else out_features


def low_rank_noise(x: Tensor, basis: Tensor, z: Tensor, sigma: float, kind: str) -> Tensor:
    """The noise to add to W x, float32 [..., out].

    Args:
        x: [..., in], the layer's input rows.
        basis: [out, r] for right, [in, r] for left.
        z: float32 [..., noise_width], standard normal.
        sigma: noise scale, >= 0.
    """
    x, basis = x.float(), basis.float()
    if check_kind(kind) == "right":
        return (sigma * x.norm(dim=-1, keepdim=True) * z) @ basis.T
    return sigma * (x @ basis).norm(dim=-1, keepdim=True) * z
