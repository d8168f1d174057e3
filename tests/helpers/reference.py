"""Brute-force reference of the uncertainties of given tokens: one forward per token and weight sample, no batching.

Deliberately naive and independent of the package's own particle code. It shares with it only the noise definition
(`noise.standard_normal`, `layers.low_rank_noise`) and the formulas (`uncertainty.token_uncertainty`), which have
their own tests.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import DynamicCache

from bayesian_transformer.layers import low_rank_noise
from bayesian_transformer.noise import site_index, standard_normal
from bayesian_transformer.noise_config import PROJECTIONS
from bayesian_transformer.uncertainty import FIELDS, token_uncertainty


def reference_uncertainties(
    model: Any,
    input_ids: Sequence[int],
    new_ids: Sequence[int],
    seed: int,
    sigma: float,
    num_samples: int,
    kind: str,
    basis: Mapping[str, Tensor] | None = None,
    projections: Sequence[str] = PROJECTIONS,
) -> dict[str, np.ndarray]:
    """The eight quantities of every token of `new_ids` after the prompt: float32 arrays [len(new_ids)].

    Arguments as in `reference_logits`.
    """
    logits = reference_logits(model, input_ids, new_ids, seed, sigma, num_samples, kind, basis, projections)
    table = token_uncertainty(logits, torch.tensor(list(new_ids))).stack().numpy()
    return {name: table[:, column] for column, name in enumerate(FIELDS)}


@torch.no_grad()
def reference_logits(
    model: Any,
    input_ids: Sequence[int],
    new_ids: Sequence[int],
    seed: int,
    sigma: float,
    num_samples: int,
    kind: str,
    basis: Mapping[str, Tensor] | None = None,
    projections: Sequence[str] = PROJECTIONS,
) -> Tensor:
    """Next-token logits of every weight sample before each token of `new_ids`: [num_samples, len(new_ids), V].

    Args:
        model: a Llama-like causal LM of transformers (`model.model.layers[i].self_attn.{q,k,v}_proj`).
        input_ids: the prompt, without padding, at least one token.
        new_ids: the tokens whose uncertainties are wanted, in order.
        seed: noise seed of the request.
        sigma, num_samples, kind: noise scale, weight samples (the noise-free one included), "right" or "left".
        basis: basis vectors by name, "model.layers.0.self_attn.q_proj.basis_vectors"; default: those of the model.
        projections: which ones carry noise.
    """
    lookup = dict(basis) if basis is not None else model.state_dict()
    cache = DynamicCache(config=model.config)
    if len(input_ids) > 1:
        model(input_ids=torch.tensor([list(input_ids[:-1])]), past_key_values=cache, use_cache=True)
    text = [*input_ids, *new_ids]
    steps = []
    for position in range(len(input_ids) - 1, len(text) - 1):
        token = torch.tensor([[text[position]]])
        samples = []
        for sample in range(1, num_samples):
            with _noisy_projections(model, lookup, seed, position, sample, sigma, kind, projections):
                noisy = model(input_ids=token, past_key_values=copy.deepcopy(cache), use_cache=True)
            samples.append(noisy.logits[0, -1])
        clean = model(input_ids=token, past_key_values=cache, use_cache=True)  # only this one enters the cache
        steps.append(torch.stack([clean.logits[0, -1], *samples]))
    return torch.stack(steps, dim=1)


@contextmanager
def _noisy_projections(
    model: Any,
    basis: Mapping[str, Tensor],
    seed: int,
    position: int,
    sample: int,
    sigma: float,
    kind: str,
    projections: Sequence[str],
) -> Iterator[None]:
    """Within the block, the outputs of `projections` (after the bias) carry the noise of one weight sample."""

    def hook_for(layer: int, name: str) -> Callable[[nn.Module, tuple[Tensor], Tensor], Tensor]:
        vectors = basis[f"model.layers.{layer}.self_attn.{name}.basis_vectors"]

        def hook(module: nn.Module, args: tuple[Tensor], output: Tensor) -> Tensor:
            width = vectors.shape[1] if kind == "right" else output.shape[-1]
            site = torch.tensor(site_index(layer, name))
            z = standard_normal(torch.tensor(seed), torch.tensor(position), site, torch.tensor(sample), width)
            return (output.float() + low_rank_noise(args[0], vectors, z, sigma, kind)).to(output.dtype)

        return hook

    handles = [
        getattr(layer.self_attn, name).register_forward_hook(hook_for(index, name))
        for index, layer in enumerate(model.model.layers)
        for name in projections
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def worst_error(got: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> float:
    """Largest |got - expected| / max(1e-3 |expected|, 1e-5) over all quantities and tokens; agreement means <= 1.

    NaN anywhere, or a difference in shape, counts as infinite.
    """
    worst = 0.0
    for name in FIELDS:
        a, b = np.asarray(got[name], dtype=np.float64), np.asarray(expected[name], dtype=np.float64)
        if a.shape != b.shape or np.isnan(a).any() or np.isnan(b).any():
            return np.inf
        worst = max(worst, (np.abs(a - b) / np.maximum(1e-3 * np.abs(b), 1e-5)).max(initial=0.0))
    return float(worst)
