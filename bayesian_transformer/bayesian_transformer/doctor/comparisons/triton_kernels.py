"""The Triton kernels on a GPU.

Never yet run on a GPU. The tests run the same comparisons in Triton's interpreter, which says nothing about the
compiler or the device.
"""

import importlib

import torch

from ...vllm_plugin.kernels import HAS_TRITON
from ..finding import Finding, warning
from ..installed import switched_off
from .differences import Differences
from .kernels import compare_merge, compare_mixture, compare_noise, compare_statistics

_KERNELS = "bayesian_transformer.vllm_plugin.kernels"


def statistics(device: str = "cuda") -> Finding:
    """Statistics of the logits, and their mixture."""
    if not HAS_TRITON:
        return _absent()
    module = importlib.import_module(f"{_KERNELS}.triton_statistics")
    differences = Differences()
    compare_statistics(differences, module.fused_token_uncertainty, device)
    compare_mixture(differences, module.fused_mixture_logits, device)
    return _finding(differences, "statistics, mixture", device)


def noise(device: str = "cuda") -> Finding:
    """Drawn noise, and right and left noise added."""
    if not HAS_TRITON:
        return _absent()
    differences = Differences()
    compare_noise(differences, importlib.import_module(f"{_KERNELS}.triton_noise"), device)
    return _finding(differences, "drawn, right and left noise", device)


def merge(device: str = "cuda") -> Finding:
    """The own token merged with the attention over the prefix."""
    if not HAS_TRITON:
        return _absent()
    differences = Differences()
    compare_merge(differences, importlib.import_module(f"{_KERNELS}.triton_merge").merge, device)
    return _finding(differences, "merge of the own token", device)


def _finding(differences: Differences, what: str, device: str) -> Finding:
    if device == "cuda":
        torch.cuda.synchronize()  # a fault of the last kernel belongs to this check
    return differences.finding(switched_off() + what)


def _absent() -> Finding:
    return warning("Triton is not installed; plain torch computes, slower", "pip install triton")
