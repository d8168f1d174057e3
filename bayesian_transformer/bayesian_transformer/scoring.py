"""Uncertainties of given texts: what decoding them token by token would have given, computed in parallel.

The clean pass goes through prompt and response once and fills the KV cache. Behind it, chunk by chunk, the S - 1 noisy
samples of all response positions run in parallel: the row at position t attends to the clean K/V before t and to its
own k, v. `chunk_rows` bounds the memory: no more rows of logits (weight samples included) exist at a time.
"""

import inspect
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedTokenizerBase

from .config import NoiseConfig
from .generation import expand_seeds
from .model import NoisyModelMixin
from .particles import ParticleNoise, particle_logits
from .uncertainty import FIELDS, TokenUncertainty, token_uncertainty

CHUNK_ROWS = 256


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
        chunk_rows: bound on the rows of logits in memory.
    """
    if not len(prompt_ids) or not len(response_ids):
        raise ValueError("prompt and response must each have at least one token")
    ids = torch.tensor([[*prompt_ids, *response_ids]])
    response = torch.arange(ids.shape[1])[None] >= len(prompt_ids)
    noise = noise_settings(model, num_samples, sigma)
    table = score_batch(model, ids, torch.ones_like(ids), response, [seed], noise=noise, chunk_rows=chunk_rows)
    return TokenUncertainty(*table[0, len(prompt_ids) :].unbind(-1))


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
    valid, wanted = attention_mask.bool(), response_mask.bool()
    if (wanted & (~valid | (valid.long().cumsum(-1) < 2))).any():
        raise ValueError("response_mask marks padding or the first token of a sequence, which nothing predicts")
    if not wanted.any():
        raise ValueError("response_mask marks no token")
    lm = model.causal_lm
    particles = ParticleNoise(model.noisy_projections, noise or model.noise, expand_seeds(seeds, len(input_ids)))
    predicts = wanted.roll(-1, dims=1)  # a token is predicted one column before its own
    columns = predicts.any(0).nonzero().flatten().tolist()
    step = max(1, chunk_rows // (len(input_ids) * (particles.particles + 1)))
    table = torch.full((*input_ids.shape, len(FIELDS)), torch.nan)
    ids, valid = input_ids.to(lm.device), valid.to(lm.device)
    cache = DynamicCache(config=lm.config)
    _clean_chunk(lm, cache, ids, valid, 0, columns[0], keep=1)
    for start in range(columns[0], columns[-1] + 1, step):
        stop = min(start + step, columns[-1] + 1)
        clean = _clean_chunk(lm, cache, ids, valid, start, stop, keep=0)
        logits = clean[None]
        if particles.particles:
            noisy = particle_logits(lm, particles, cache, valid[:, :stop], ids[:, start:stop])
            logits = torch.cat([logits, noisy])
        values = token_uncertainty(logits.flatten(1, 2), ids[:, start + 1 : stop + 1].flatten()).stack()
        table[:, start + 1 : stop + 1] = values.unflatten(0, (len(ids), -1)).cpu()
    return table.masked_fill_(~wanted[..., None], torch.nan)


def _clean_chunk(lm: Any, cache: DynamicCache, ids: Tensor, valid: Tensor, start: int, stop: int, keep: int) -> Tensor:
    """Noise-free forward of columns [start, stop) into the cache; logits of the last `keep` of them, 0 for all."""
    if start == stop:
        return ids.new_empty(len(ids), 0, 0)
    positions = (valid.long().cumsum(-1) - 1).clamp_min(0)[:, start:stop]
    arguments = {"position_ids": positions, "logits_to_keep": keep}
    accepted = inspect.signature(lm.forward).parameters
    return lm(
        input_ids=ids[:, start:stop],
        attention_mask=valid[:, :stop].long(),
        past_key_values=cache,
        use_cache=True,
        **{name: value for name, value in arguments.items() if name in accepted},
    ).logits


@dataclass(frozen=True)
class ScoringRequest:
    """A text to score. `prompt` is raw text, or messages for the tokenizer's chat template."""

    prompt: str | list[dict[str, str]]
    response: str
    seed: int = 0


@dataclass(frozen=True)
class ScoredText:
    """The tokens of a response and their uncertainties, float32 [len(token_ids)] each."""

    token_ids: list[int]
    tokens: list[str]
    uncertainties: TokenUncertainty


def encode(
    tokenizer: PreTrainedTokenizerBase, request: ScoringRequest, max_length: int | None = None
) -> tuple[list[int], list[int]]:
    """Token ids of prompt and response, which are tokenised apart, as the response of a model is.

    ValueError says why a request cannot be scored: no response, too long, or a response whose tokens decode to
    another text.
    """
    if isinstance(request.prompt, str):
        prompt = tokenizer(request.prompt).input_ids
    else:
        prompt = tokenizer.apply_chat_template(request.prompt, add_generation_prompt=True, return_dict=True).input_ids
    response = tokenizer(request.response, add_special_tokens=False).input_ids
    if not response:
        raise ValueError("the response is empty")
    if not prompt:
        raise ValueError("the prompt is empty and the tokenizer adds no token that begins a text")
    if max_length is not None and len(prompt) + len(response) > max_length:
        raise ValueError(
            f"prompt and response have {len(prompt)} + {len(response)} tokens, more than the {max_length} of the model"
        )
    if tokenizer.decode(response, clean_up_tokenization_spaces=False) != request.response:
        raise ValueError("the tokens of the response do not decode to the same text; its values would be misplaced")
    return prompt, response


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

    A request that cannot be scored (see `encode`) gives the ValueError that says why, and the others go on.
    """
    noise = noise_settings(model, num_samples, sigma)
    max_length = getattr(model.causal_lm.config, "max_position_embeddings", None)
    stream = iter(requests)
    while batch := list(islice(stream, batch_size)):
        encoded: list[tuple[list[int], list[int]] | ValueError] = []
        for request in batch:
            try:
                encoded.append(encode(tokenizer, request, max_length))
            except ValueError as error:
                encoded.append(error)
        good = [(pair, request.seed) for pair, request in zip(encoded, batch, strict=True) if isinstance(pair, tuple)]
        tables = iter(_score_pairs(model, [p for p, _ in good], [s for _, s in good], noise, chunk_rows))
        for pair in encoded:
            if isinstance(pair, tuple):
                tokens = [tokenizer.decode([token]) for token in pair[1]]
                yield ScoredText(pair[1], tokens, TokenUncertainty(*next(tables).unbind(-1)))
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
