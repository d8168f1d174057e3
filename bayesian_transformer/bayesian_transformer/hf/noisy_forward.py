"""Noisy weight samples in transformers: S - 1 particle rows per token, through the model's own forward.

A particle row is the token at one position under one noisy weight sample. In every layer it attends to the noise-free
cached K/V of the earlier positions and to its own k, v, which never enter that cache: `ParticleLayer` hands the model's
attention the concatenation of both, and a mask keeps the particle rows of a call apart, so one softmax merges them
exactly. Forward hooks add the noise to the outputs of the noisy projections. Generation and scoring share this code.
"""

import inspect
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, CacheLayerMixin

from ..layers import NOISE_KINDS, low_rank_noise, noise_width
from ..noise import standard_normal
from ..noise_config import NoiseConfig
from .limits import follows_windows
from .projections import NoisyProjection

FULL_RANK_KINDS = ("std", "self-scaling")
_DRAW_ELEMENTS = 1 << 21  # normals drawn at a time, to bound the temporaries of the generator


@dataclass
class ParticleNoise:
    """The noise of one call: which layers, how strong, and one seed for each of the B sequences."""

    projections: list[NoisyProjection]
    config: NoiseConfig
    seeds: Tensor  # int64 [B]
    _draws: dict[int, Tensor] = field(default_factory=dict)  # by index of the projection

    @property
    def noisy_samples(self) -> int:
        """Noisy weight samples of each token, S - 1."""
        return self.config.noisy_samples

    @contextmanager
    def applied(self, positions: Tensor) -> Iterator[None]:
        """Within the block, projection outputs carry noise. Rows: sequences x `positions` [B, T] x noisy samples.

        Only those that this thread computes: another one may run the same model, with noise of its own or without.
        """
        with ExitStack() as stack:
            stack.callback(_APPLIED.reset, _APPLIED.set(self))
            for index, projection in enumerate(self.projections):
                handle = projection.module.register_forward_hook(self._hook(index, projection, positions))
                stack.callback(handle.remove)
            if self.config.bayes_noise in NOISE_KINDS:
                stack.callback(self._draws.clear)  # low-rank noise is new at each position, full-rank noise is not
            yield

    def _hook(self, index: int, projection: NoisyProjection, positions: Tensor):  # type: ignore[no-untyped-def]
        def add_noise(_: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            if _APPLIED.get() is not self:
                return output
            rows, expected = args[0].shape[:-1].numel(), positions.numel() * self.noisy_samples
            if rows != expected:  # latent attention expands the keys and values of earlier tokens again
                raise ValueError(
                    f"{projection.name} runs on {rows} rows where there are {expected} new ones, so it is not noisy "
                    "token by token; leave it out of target_modules"
                )
            x = args[0].reshape(*positions.shape, self.noisy_samples, -1)
            noise = self._low_rank if self.config.bayes_noise in NOISE_KINDS else self._full_rank
            added = noise(index, projection, x, positions.to(x.device))
            part = output[..., projection.outputs]
            noisy = (part.float() + added.reshape(part.shape)).to(output.dtype)
            return noisy if part.shape == output.shape else _with_part(output, projection.outputs, noisy)

        return add_noise

    def _low_rank(self, index: int, projection: NoisyProjection, x: Tensor, positions: Tensor) -> Tensor:
        """Noise for the rows x [B, T, S-1, in]. It is drawn for several layers at a time, to save small operations."""
        kind, sigma = self.config.bayes_noise, self.config.bayes_sigma
        if index not in self._draws:
            widths = [noise_width(kind, p.basis, p.weight.shape[0]) for p in self.projections]
            alike = [i for i in range(index, len(widths)) if widths[i] == widths[index]]
            group = alike[: max(1, _DRAW_ELEMENTS // (x[..., 0].numel() * widths[index]))]
            self._draws.update(zip(group, self._normal(group, positions, widths[index]), strict=True))
        return low_rank_noise(x, projection.basis, self._draws.pop(index).to(x.device), sigma, kind)

    def _full_rank(self, index: int, projection: NoisyProjection, x: Tensor, positions: Tensor) -> Tensor:
        """x E^T with E ~ N(0, sigma^2) [out, in], times W for self-scaling: one E per seed and weight sample."""
        if index not in self._draws:
            weight = projection.weight
            z = self._normal([index], torch.zeros_like(positions[:, :1]), weight.numel())[0, :, 0]
            z = self.config.bayes_sigma * z.unflatten(-1, weight.shape)
            self._draws[index] = z * weight.float() if self.config.bayes_noise == "self-scaling" else z
        return torch.einsum("btsi,bsoi->btso", x.float(), self._draws[index])

    def _normal(self, indices: list[int], positions: Tensor, width: int) -> Tensor:
        """Standard normal noise of these projections, float32 [projections, B, T, S-1, width]."""
        device = positions.device
        sites = [self.projections[index].site for index in indices]
        return standard_normal(
            self.seeds.to(device)[:, None, None],
            positions[:, :, None],
            torch.tensor(sites, device=device)[:, None, None, None],
            torch.arange(1, self.noisy_samples + 1, device=device),
            width,
        )


def _with_part(output: Tensor, outputs: slice, part: Tensor) -> Tensor:
    """A copy of `output` [..., out] whose `outputs` are `part`."""
    copied = output.clone()
    copied[..., outputs] = part
    return copied


_APPLIED: ContextVar[ParticleNoise | None] = ContextVar("noise applied in this thread", default=None)


class ParticleLayer(CacheLayerMixin):
    """One layer of clean K/V, seen read-only by particle rows: `update` returns clean prefix + own K/V, stores nothing.

    keys, values: [B, heads, prefix, head_dim]. With `repeats` each sequence is expanded to that many batch rows.
    """

    def __init__(self, keys: Tensor, values: Tensor, repeats: int = 1) -> None:
        super().__init__()
        self.prefix = keys.shape[-2]
        self.keys, self.values, self.repeats = keys, values, repeats
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to do: the prefix is given."""

    def update(self, key_states: Tensor, value_states: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        return self._merge(self.keys, key_states), self._merge(self.values, value_states)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.prefix + query_length, 0

    def get_seq_length(self) -> int:
        return self.prefix

    def get_max_length(self) -> int:
        return -1

    def _merge(self, clean: Tensor, own: Tensor) -> Tensor:
        expanded = clean if self.repeats == 1 else clean.repeat_interleave(self.repeats, dim=0)
        return torch.cat([expanded, own], dim=-2)


def check_evaluating(model: PreTrainedModel) -> None:
    """ValueError if the model trains in a way that its noise-free pass keeps no K/V, or is not free of noise."""
    if not model.training:
        return
    advice = "call model.eval() first"
    if model.is_gradient_checkpointing:
        raise ValueError(f"in training, gradient checkpointing keeps no K/V, to which weight samples attend; {advice}")
    dropout = [float(module.p) for module in model.modules() if isinstance(module, nn.Dropout) and module.training]
    if max([*dropout, getattr(model.config, "attention_dropout", 0.0) or 0.0]) > 0:
        raise ValueError(f"in training, dropout is noise in the pass that uncertainties take for noise-free; {advice}")


def cache_of(model: nn.Module, output: Any) -> Cache:
    """The KV cache that a forward of `model` returned; ValueError if there is none."""
    cache = output.get("past_key_values")
    if cache is None:
        raise ValueError(f"{type(model).__name__} returns no K/V of each token, to which weight samples attend")
    return cache


def _clean_prefix(cache: Cache, prefix: int, columns: int, repeats: int = 1) -> Cache:
    """A read-only view of the first `prefix` columns of a cache that must still hold all its `columns`."""
    for layer in cache.layers:
        if not isinstance(getattr(layer, "keys", None), Tensor) or layer.keys.shape[-2] < columns:
            raise ValueError(
                f"{type(layer).__name__} does not keep the K/V of all {columns} tokens (a sliding window that is full, "
                "a quantised or a linear-attention cache); weight samples need a dynamic or static cache"
            )
    return Cache([ParticleLayer(la.keys[:, :, :prefix], la.values[:, :, :prefix], repeats) for la in cache.layers])


@torch.no_grad()
def particle_logits(
    model: PreTrainedModel, noise: ParticleNoise, cache: Cache, valid: Tensor, inputs: Tensor
) -> Tensor:
    """Logits of the noisy weight samples of the last T tokens in the cache, [S-1, B, T, V].

    Args:
        model: a causal LM of transformers; its plain forward is noise-free.
        cache: noise-free K/V; it is read only.
        valid: bool [B, columns], which of the first `columns` columns of the cache hold tokens rather than padding.
        inputs: the tokens of the last T of these columns, int64 ids [B, T] or embeddings [B, T, hidden].
    """
    positions = (valid.long().cumsum(-1) - 1).clamp_min(0)[:, -inputs.shape[1] :]
    if model._supports_attention_backend:
        return _parallel_logits(model, noise, cache, valid, inputs, positions)
    columns = valid.shape[1]
    steps = [
        _expanded_logits(model, noise, cache, valid[:, : column + 1], inputs[:, [t]], positions[:, [t]])
        for t, column in enumerate(range(columns - inputs.shape[1], columns))
    ]
    return torch.cat(steps, dim=2)


def _parallel_logits(
    model: PreTrainedModel, noise: ParticleNoise, cache: Cache, valid: Tensor, inputs: Tensor, positions: Tensor
) -> Tensor:
    """All rows as one chunk of T * (S-1) new tokens per sequence, kept apart by a four-dimensional mask."""
    if model.config._attn_implementation not in ("sdpa", "eager"):
        raise ValueError(
            f"attention {model.config._attn_implementation} takes no mask per row; load the model with "
            'attn_implementation="sdpa" or "eager"'
        )
    columns, noisy_samples = valid.shape[1], noise.noisy_samples
    prefix = columns - 1  # no other token has the last one in its prefix
    own_column = torch.arange(columns - inputs.shape[1], columns, device=valid.device).repeat_interleave(noisy_samples)
    with noise.applied(positions):
        output = model.forward(  # not __call__, which would run the hooks that generation sets on the clean forward
            **_token_argument(inputs.repeat_interleave(noisy_samples, dim=1)),
            attention_mask=_masks(model, valid[:, :prefix], own_column),
            position_ids=positions.repeat_interleave(noisy_samples, dim=1),
            past_key_values=_clean_prefix(cache, prefix, columns),
            use_cache=True,
            return_dict=True,
        )
    return output.logits.unflatten(1, (-1, noisy_samples)).permute(2, 0, 1, 3)


def _masks(model: PreTrainedModel, valid: Tensor, own_column: Tensor) -> Tensor | dict[str, Tensor]:
    """What each row sees of the prefix and of the rows, additive [B, 1, rows, prefix + rows].

    Where sliding windows hide a part of the prefix, and not in all layers, it is one mask for each kind of layer, as
    transformers makes them for its models.

    Args:
        valid: bool [B, prefix]; own_column: int64 [rows], the column of each row's token.
    """
    decoder = model.config.get_text_config(decoder=True)
    window = getattr(decoder, "sliding_window", None) if follows_windows(model.config) else None
    if not window or window > valid.shape[1]:  # nothing is hidden from any row
        return _mask(model.dtype, valid, own_column)
    kinds = getattr(decoder, "layer_types", None)
    if not kinds:
        return _mask(model.dtype, valid, own_column, window)
    windows = {kind: window if kind == "sliding_attention" else None for kind in kinds}
    return {kind: _mask(model.dtype, valid, own_column, window) for kind, window in windows.items()}


def _mask(dtype: torch.dtype, valid: Tensor, own_column: Tensor, window: int | None = None) -> Tensor:
    """A mask of `_masks`, for layers that see `window` tokens, the own one included, or all."""
    distance = own_column[:, None] - torch.arange(valid.shape[1], device=valid.device)
    earlier = distance > 0 if window is None else (distance > 0) & (distance < window)
    own = torch.eye(len(own_column), dtype=torch.bool, device=valid.device).expand(len(valid), -1, -1)
    visible = torch.cat([earlier & valid[:, None], own], dim=-1)
    mask = torch.zeros(visible.shape, dtype=dtype, device=valid.device)
    return mask.masked_fill_(~visible, torch.finfo(dtype).min).unsqueeze(1)


def _expanded_logits(
    model: PreTrainedModel, noise: ParticleNoise, cache: Cache, valid: Tensor, inputs: Tensor, positions: Tensor
) -> Tensor:
    """One token per sequence, its S - 1 rows as a batch: for architectures with masks of their own (ALiBi and such)."""
    columns, noisy_samples = valid.shape[1], noise.noisy_samples
    arguments = {"attention_mask": valid.long(), "position_ids": positions, **_token_argument(inputs)}
    accepted = inspect.signature(model.forward).parameters
    rows = {name: t.repeat_interleave(noisy_samples, dim=0) for name, t in arguments.items() if name in accepted}
    with noise.applied(positions):
        output = model.forward(
            **rows,
            past_key_values=_clean_prefix(cache, columns - 1, columns, repeats=noisy_samples),
            use_cache=True,
            return_dict=True,
        )
    return output.logits.unflatten(0, (-1, noisy_samples)).transpose(0, 1)


def _token_argument(inputs: Tensor) -> dict[str, Tensor]:
    return {"inputs_embeds" if inputs.is_floating_point() else "input_ids": inputs}
