"""Uncertainties of given texts: what decoding them token by token would have given, computed in parallel.

The clean pass goes through prompt and response once, chunk by chunk, and fills the KV cache. Behind it the S - 1 noisy
samples of the chunk's response positions run in parallel: the row at position t attends to the clean K/V before t and
to its own k, v. `chunk_rows` bounds the memory: the model computes no more rows (weight samples included) at a time.
It does not bound the KV cache of the texts, nor what full-rank noise keeps: S - 1 copies of the noisy weights, in
float32, for each text of a batch.
"""

import inspect
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase
from transformers.cache_utils import DynamicLayer

from .encoding import CHUNK_ROWS, ScoringRequest, encode
from .hf.generation import expand_seeds
from .hf.limits import max_length
from .hf.noisy_forward import FULL_RANK_KINDS, ParticleNoise, cache_of, check_evaluating, particle_logits
from .model import NoisyModelMixin
from .noise_config import NoiseConfig
from .uncertainty import FIELDS, TokenUncertainty, token_uncertainty


def score(
    model: NoisyModelMixin,
    prompt_ids: Sequence[int],
    response_ids: Sequence[int],
    *,
    seed: int,
    num_samples: int | None = None,
    sigma: float | None = None,
    chunk_rows: int = CHUNK_ROWS,
) -> TokenUncertainty:
    """The eight quantities of each token of a response, float32 [len(response_ids)].

    Args:
        prompt_ids, response_ids: token ids, at least one each.
        seed: noise seed; that of a vLLM or transformers request reproduces its numbers.
        num_samples, sigma: default to those of the model's config.
        chunk_rows: bound on the rows in one pass of the model; one position with all its weight samples is the least.
    """
    if not len(prompt_ids) or not len(response_ids):
        raise ValueError("prompt and response must each have at least one token")
    ids = torch.tensor([[*prompt_ids, *response_ids]])
    response = torch.arange(ids.shape[1])[None] >= len(prompt_ids)
    noise = noise_settings(model, num_samples, sigma)
    table = score_batch(model, ids, torch.ones_like(ids), response, [seed], noise=noise, chunk_rows=chunk_rows)
    return TokenUncertainty.from_table(table[0, len(prompt_ids) :])


def noise_settings(model: NoisyModelMixin, num_samples: int | None = None, sigma: float | None = None) -> NoiseConfig:
    """The model's noise settings with some replaced; ValueError names a bad value."""
    changes = {"num_samples": num_samples, "bayes_sigma": sigma}
    return model.noise.replaced(**{key: value for key, value in changes.items() if value is not None})


@torch.no_grad()
def score_batch(
    model: NoisyModelMixin,
    input_ids: Tensor,
    attention_mask: Tensor,
    response_mask: Tensor,
    seeds: Sequence[int],
    *,
    noise: NoiseConfig | None = None,
    chunk_rows: int = CHUNK_ROWS,
) -> Tensor:
    """The quantities of the response tokens of a padded batch: float32 [B, T, 8], columns FIELDS, NaN elsewhere.

    Args:
        input_ids: int64 [B, T], padded on the left, on the right or on both sides.
        attention_mask: [B, T], nonzero at tokens, zero at padding.
        response_mask: bool [B, T], the tokens to score; the first token of a sequence cannot be one.
        seeds: one noise seed for each sequence.
    """
    device = model.causal_lm.device
    ids, valid, wanted = input_ids.to(device), attention_mask.to(device).bool(), response_mask.to(device).bool()
    if (wanted & (~valid | (valid.long().cumsum(-1) < 2))).any():
        raise ValueError("response_mask marks padding or the first token of a sequence, which nothing predicts")
    if not wanted.any():
        raise ValueError("response_mask marks no token")
    table = torch.full((*ids.shape, len(FIELDS)), torch.nan, device=device)
    for _, columns, logits in sample_logits(model, ids, valid, wanted, seeds, [noise or model.noise], chunk_rows):
        table[:, columns] = _statistics(logits, ids[:, columns])
    return table.masked_fill_(~wanted[..., None], torch.nan)


def sample_logits(
    model: NoisyModelMixin,
    ids: Tensor,
    valid: Tensor,
    wanted: Tensor,
    seeds: Sequence[int],
    noises: Sequence[NoiseConfig],
    chunk_rows: int = CHUNK_ROWS,
) -> Iterator[tuple[int, slice, list[Tensor]]]:
    """The logits that predict the wanted tokens of a padded batch, chunk by chunk, under one or several settings.

    The noise-free pass is made once for all settings. To be consumed under `torch.no_grad`.

    Args:
        ids, valid, wanted: as `score_batch` takes them, on the model's device; valid and wanted are bool.
        noises: the settings. The draws depend on seeds alone, so settings differ by nothing but themselves.

    Yields:
        The index of the setting, the columns of the tokens that are predicted, and the logits in two parts, noise-free
        [1, B, T, V] and noisy [S - 1, B, T, V]; the latter is absent where S is 1. The list is emptied before the next.
    """
    lm = model.causal_lm
    check_evaluating(lm)
    _check_texts(lm, ids, valid)
    seed_of_each = expand_seeds(seeds, len(ids))
    particle_noises = [ParticleNoise(model.noisy_projections, noise, seed_of_each) for noise in noises]
    predicts = wanted.roll(-1, dims=1)  # a token is predicted one column before its own
    positions = max(1, chunk_rows // len(ids))
    num_samples = max(noise.effective_samples for noise in noises)
    cache = _full_cache(lm)
    for start, stop, needed in _chunks(predicts.any(0).tolist(), positions, num_samples):
        if not needed:
            _clean_forward(lm.base_model, cache, ids, valid, start, stop)  # no logits of the prompt
            continue
        clean = _clean_forward(lm, cache, ids, valid, start, stop).logits[None]
        for index, noise in enumerate(particle_noises):
            logits = [clean]
            if noise.noisy_samples:
                logits.append(particle_logits(lm, noise, cache, valid[:, :stop], ids[:, start:stop]))
            yield index, slice(start + 1, stop + 1), logits
            logits.clear()  # the caller has the same list, and the next logits need the memory


def _check_texts(lm: PreTrainedModel, ids: Tensor, valid: Tensor) -> None:
    """ValueError if a text is too long for the model or holds a token that it does not know."""
    vocabulary, limit = lm.get_input_embeddings().num_embeddings, max_length(lm.config)
    if ((ids < 0) | (ids >= vocabulary)).any():
        raise ValueError(f"input_ids must lie in [0, {vocabulary}), the vocabulary of the model")
    longest = int(valid.sum(-1).max())
    if limit is not None and longest > limit:
        raise ValueError(f"a text has {longest} tokens, more than the {limit} of the model")


def _full_cache(lm: PreTrainedModel) -> DynamicCache:
    """An empty cache that keeps all K/V: padding may fill a sliding window that holds the texts themselves."""
    cache = DynamicCache(config=lm.config)
    cache.layers = [DynamicLayer() if getattr(layer, "is_sliding", False) else layer for layer in cache.layers]
    return cache


def _chunks(needed: Sequence[bool], positions: int, num_samples: int) -> Iterator[tuple[int, int, bool]]:
    """Cut the columns up to the last needed one into ranges that are needed throughout or not at all.

    A range has at most `positions` columns; where it is needed, each column counts as `num_samples` of them.
    """
    start, end = 0, len(needed) - list(needed)[::-1].index(True)
    while start < end:
        limit = start + max(1, positions // num_samples if needed[start] else positions)
        stop = start + 1
        while stop < min(limit, end) and needed[stop] == needed[start]:
            stop += 1
        yield start, stop, needed[start]
        start = stop


def _clean_forward(model: Any, cache: DynamicCache, ids: Tensor, valid: Tensor, start: int, stop: int) -> Any:
    """Noise-free forward of columns [start, stop), which enter the cache."""
    arguments = {"attention_mask": valid[:, :stop].long(), "past_key_values": cache, "use_cache": True}
    arguments["return_dict"] = True
    if "position_ids" in inspect.signature(model.forward).parameters:  # ALiBi models take none
        arguments["position_ids"] = (valid.long().cumsum(-1) - 1).clamp_min(0)[:, start:stop]
    output = model(input_ids=ids[:, start:stop], **arguments)
    cache_of(model, output)
    return output


def _statistics(logits: list[Tensor], tokens: Tensor) -> Tensor:
    """The quantities [B, T, 8] of `tokens` [B, T] from the logits of all samples, parts of [S, B, T, V] along S."""
    groups = []
    for columns, joined in joined_columns(logits):
        chosen = tokens[:, columns]
        values = token_uncertainty(joined.flatten(1, 2), chosen.flatten()).stack()
        groups.append(values.unflatten(0, chosen.shape))
    return torch.cat(groups, dim=1)


def joined_columns(logits: list[Tensor]) -> Iterator[tuple[slice, Tensor]]:
    """The parts of [S, B, T, V] joined along S, for a few of the T columns at a time: which ones, and their logits.

    No second copy of all logits exists, and on a CPU blocks that the allocator keeps for reuse are four times as fast
    as fresh pages.
    """
    elements = 1 << 20 if logits[0].device.type == "cpu" else 1 << 24  # a GPU is better off with few launches
    width = max(1, elements // sum(part[:, :, 0].numel() for part in logits))
    for start in range(0, logits[0].shape[2], width):
        columns = slice(start, start + width)
        yield columns, torch.cat([part[:, :, columns] for part in logits])


@dataclass(frozen=True)
class ScoredText:
    """The tokens of a response and their uncertainties, float32 [len(token_ids)] each."""

    token_ids: list[int]
    tokens: list[str]
    uncertainties: TokenUncertainty


def score_texts(
    model: NoisyModelMixin,
    tokenizer: PreTrainedTokenizerBase,
    requests: Iterable[ScoringRequest],
    *,
    batch_size: int = 4,
    num_samples: int | None = None,
    sigma: float | None = None,
    chunk_rows: int = CHUNK_ROWS,
) -> Iterator[ScoredText | ValueError]:
    """Score a stream of texts, `batch_size` at a time: one result for each request, in order.

    Under full-rank noise, which keeps copies of the noisy weights for each text, it is one text at a time. A request
    that cannot be scored (see `encode`) gives the ValueError that says why, and the others go on.
    """
    noise = noise_settings(model, num_samples, sigma)
    batch_size = max(1, min(batch_size, chunk_rows // noise.effective_samples))
    if noise.bayes_noise in FULL_RANK_KINDS:
        batch_size = 1
    limit = max_length(model.causal_lm.config)
    vocabulary = model.causal_lm.get_input_embeddings().num_embeddings
    stream = iter(requests)
    while batch := list(islice(stream, batch_size)):
        encoded: list[tuple[list[int], list[int]] | ValueError] = []
        for request in batch:
            try:
                encoded.append(encode(tokenizer, request, limit, vocabulary))
            except ValueError as error:
                encoded.append(error)
        good = [(pair, request.seed) for pair, request in zip(encoded, batch, strict=True) if isinstance(pair, tuple)]
        tables = iter(_score_pairs(model, [p for p, _ in good], [s for _, s in good], noise, chunk_rows))
        for pair in encoded:
            if isinstance(pair, tuple):
                tokens = [tokenizer.decode([token]) for token in pair[1]]
                yield ScoredText(pair[1], tokens, TokenUncertainty.from_table(next(tables)))
            else:
                yield pair


def _score_pairs(
    model: NoisyModelMixin, pairs: list[tuple[list[int], list[int]]], seeds: list[int], noise: NoiseConfig, rows: int
) -> list[Tensor]:
    """Score token pairs as one batch, responses aligned: padding goes before the prompt and after the response."""
    if not pairs:
        return []
    start, length = max(len(prompt) for prompt, _ in pairs), max(len(response) for _, response in pairs)
    ids = torch.zeros(len(pairs), start + length, dtype=torch.int64)
    valid, wanted = torch.zeros_like(ids, dtype=torch.bool), torch.zeros_like(ids, dtype=torch.bool)
    for row, (prompt, response) in enumerate(pairs):
        span = slice(start - len(prompt), start + len(response))
        ids[row, span] = torch.tensor([*prompt, *response])
        valid[row, span] = True
        wanted[row, start : span.stop] = True
    table = score_batch(model, ids, valid, wanted, seeds, noise=noise, chunk_rows=rows)
    return [values[start : start + len(response)] for values, (_, response) in zip(table, pairs, strict=True)]
