"""Which implementation computes: Triton kernels on a GPU, C++ kernels on a CPU, else the plain torch formulas."""

import importlib.util
from types import ModuleType

from torch import Tensor

from .. import uncertainty
from ..uncertainty import TokenUncertainty
from . import cpu_kernels, plain_noise

HAS_TRITON = importlib.util.find_spec("triton") is not None


def noise_functions(*tensors: Tensor) -> ModuleType:
    """The module whose draw_noise, add_right_noise and add_left_noise are the best for these tensors."""
    if HAS_TRITON and tensors[0].is_cuda:
        from . import noise_kernels  # imported where it can work only

        return noise_kernels
    return cpu_kernels if cpu_kernels.supports(*tensors) else plain_noise


def token_uncertainty(logits: Tensor, token_ids: Tensor | None = None) -> TokenUncertainty:
    """`uncertainty.token_uncertainty` by the best means at hand."""
    if HAS_TRITON and logits.is_cuda:
        from .fused_statistics import fused_token_uncertainty

        return fused_token_uncertainty(logits, token_ids)
    if cpu_kernels.supports(logits):
        return cpu_kernels.token_uncertainty(logits, token_ids)
    return uncertainty.token_uncertainty(logits, token_ids)


def mixture_logits(logits: Tensor) -> Tensor:
    """`uncertainty.mixture_logits` by the best means at hand."""
    if not (HAS_TRITON and logits.is_cuda):
        return uncertainty.mixture_logits(logits)
    from .fused_statistics import fused_mixture_logits

    return fused_mixture_logits(logits)
