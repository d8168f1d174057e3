"""Kernels of any kind compared with the plain formulas. The kernel runs on `device`, the formula on the CPU.

On the CPU the plain side is code that the tests compare with definitions in float64, whatever a GPU does.
"""

from collections.abc import Callable
from types import ModuleType

import torch
from torch import Tensor

from ... import uncertainty
from ...vllm_plugin.kernels import plain
from .cases import LAYERS, NOISY_SAMPLES, POSITIONS, SEEDS, logits_cases, merge_cases, noise_cases, rounding
from .differences import Differences, announce

# Absolute and relative, in nats: sums over a vocabulary of exponentials in float32, and epistemic as a difference.
_STATISTICS = (5e-5, 1e-5)
_NORMALS = 1e-5  # of numbers up to 6: rounding of log, cos and sin, which differs from library to library


def compare_statistics(
    differences: Differences, function: Callable[..., uncertainty.TokenUncertainty], device: str
) -> None:
    """`function(logits, token_ids)` compared with uncertainty.token_uncertainty."""
    for case, logits, token_ids in logits_cases():
        name = announce(f"statistics ({case})")
        got = function(logits.to(device), token_ids.to(device)).stack()
        differences.compare(name, got, uncertainty.token_uncertainty(logits, token_ids).stack(), *_STATISTICS)
    name = announce("statistics (without tokens)")
    got = function(logits.to(device), None).stack()
    differences.compare(name, got, uncertainty.token_uncertainty(logits, None).stack(), *_STATISTICS)


def compare_mixture(differences: Differences, function: Callable[[Tensor], Tensor], device: str) -> None:
    """`function(logits)` compared with uncertainty.mixture_logits."""
    for case, logits, _ in logits_cases():
        name = announce(f"mixture ({case})")
        differences.compare(name, function(logits.to(device)), uncertainty.mixture_logits(logits), *_STATISTICS)


def compare_noise(differences: Differences, functions: ModuleType, device: str) -> None:
    """draw_noise, add_right_noise and add_left_noise of a module compared with those of plain.py."""
    seeds, positions = SEEDS.to(device), POSITIONS.to(device)
    for kind, case in noise_cases():
        sigma, layer = 0.3, 1
        width = len(case.basis) // len(case.parts)
        name = announce(f"drawn noise ({kind}, {width} wide)")
        got, wanted = torch.full((2, LAYERS, NOISY_SAMPLES * len(SEEDS), len(case.parts), width), torch.nan)
        got = got.to(device)
        functions.draw_noise(got, seeds, positions, case.sites.to(device))
        plain.draw_noise(wanted, SEEDS, POSITIONS, case.sites)
        differences.compare(name, got, wanted, _NORMALS)

        particle_x, tolerance = case.x[case.ordinary :], (2e-5, rounding(case.qkv.dtype))
        x, basis, z, scale = (t.to(device) for t in (particle_x, case.basis, case.z, case.scale))
        name = announce(f"right noise ({kind})")
        got, wanted = case.qkv.to(device, copy=True), case.qkv.float()
        functions.add_right_noise(got[case.ordinary :], x, basis, z, sigma, case.parts)
        rows = (particle_x.float(), case.basis.float(), case.z)
        plain.add_right_noise(wanted[case.ordinary :], *rows, sigma, case.parts)
        differences.compare(name, got, wanted, *tolerance)

        name = announce(f"left noise ({kind})")
        got, wanted = case.qkv.to(device, copy=True), case.qkv.float()
        sites = case.sites[layer]
        functions.add_left_noise(got[case.ordinary :], scale, seeds, positions, sites.to(device), case.parts)
        plain.add_left_noise(wanted[case.ordinary :], case.scale, SEEDS, POSITIONS, sites, case.parts)
        differences.compare(name, got, wanted, *tolerance)


def compare_merge(differences: Differences, function: Callable[..., None], device: str) -> None:
    """`function` compared with plain.merge_own_token; output into a tensor that is full of NaN before."""
    plainly: Callable[..., None] = plain.merge_own_token
    for case, merge in merge_cases():
        name = announce(f"merge ({case})")
        got, wanted = torch.full_like(merge.query, torch.nan).to(device), torch.empty(merge.query.shape)
        function(*merge.arguments(device), got, merge.soft_cap)
        plainly(*merge.arguments("cpu"), wanted, merge.soft_cap)
        differences.compare(name, got, wanted, 1e-4, rounding(merge.query.dtype))
