"""Which implementation computes: fused Triton kernels on a GPU that has Triton, the plain torch formulas elsewhere."""

import importlib.util

from torch import Tensor

from .. import uncertainty
from ..uncertainty import TokenUncertainty

HAS_TRITON = importlib.util.find_spec("triton") is not None


def use_kernels(tensor: Tensor) -> bool:
    """Whether the fused kernels can work on `tensor`. They are imported only then."""
    return HAS_TRITON and tensor.is_cuda


def token_uncertainty(logits: Tensor, token_ids: Tensor | None = None) -> TokenUncertainty:
    """`uncertainty.token_uncertainty` by the best means at hand."""
    if not use_kernels(logits):
        return uncertainty.token_uncertainty(logits, token_ids)
    from .fused_statistics import fused_token_uncertainty

    return fused_token_uncertainty(logits, token_ids)


def mixture_logits(logits: Tensor) -> Tensor:
    """`uncertainty.mixture_logits` by the best means at hand."""
    if not use_kernels(logits):
        return uncertainty.mixture_logits(logits)
    from .fused_statistics import fused_mixture_logits

    return fused_mixture_logits(logits)
