"""Noisy projections of tests: where they lie in a fused output, and the numbers of their noise sites, by hand."""

import torch
from torch import Tensor

from bayesian_transformer.vllm_plugin.kernels.plain import Part

CHOICES = [("q_proj", "v_proj"), ("q_proj", "k_proj"), ("k_proj",), ("q_proj", "k_proj", "v_proj")]


def parts_of(
    projections: tuple[str, ...], q_size: int, kv_size: int, starts: tuple[int, int] = (0, 0)
) -> tuple[Part, ...]:
    """The parts of a row [q + k + v]; `starts` are the noise indices of the first output of q, and of k and v."""
    q, kv = starts
    parts = {
        "q_proj": Part(0, q_size, q),
        "k_proj": Part(q_size, kv_size, kv),
        "v_proj": Part(q_size + kv_size, kv_size, kv),
    }
    return tuple(parts[projection] for projection in projections)


def sites_of(projections: tuple[str, ...], layers: int) -> Tensor:
    """int64 [layers, len(projections)]."""
    numbers = [{"q_proj": 2 * i, "v_proj": 2 * i + 1, "k_proj": 1_073_741_824 + i} for i in range(layers)]
    return torch.tensor([[number[projection] for projection in projections] for number in numbers])
