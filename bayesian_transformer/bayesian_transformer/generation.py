"""`model.generate` with uncertainties, around the library's own generate and any causal LM of transformers.

A forward hook sees each clean step with its raw logits and its cache, computes the weight samples of the last token,
and turns them into uncertainties one step later, when the chosen token comes back as input. Sampling, stopping and
streaming stay the library's, and so do the clean numbers: the tokens are those of plain generate.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.generation import GenerationMode
from transformers.generation.utils import GenerateDecoderOnlyOutput

from .config import NoiseConfig
from .particles import NoisyProjection, ParticleNoise, particle_logits
from .uncertainty import FIELDS, TokenUncertainty, Uncertainty, mixture_logits, token_uncertainty

Seeds = int | Sequence[int]


@dataclass
class GenerateUncertaintyOutput(GenerateDecoderOnlyOutput):
    """What generate returns, plus `uncertainties`: eight float32 tensors [batch, new tokens], in nats.

    They are NaN where a sequence had ended and holds padding.
    """

    uncertainties: TokenUncertainty | None = None

    def token_uncertainties(self, tokenizer: PreTrainedTokenizerBase | None = None) -> list[list[dict[int, Uncertainty]]]:
        """For each sequence one {token id: Uncertainty} per new token, as vLLM gives them; padding is left out."""
        assert self.uncertainties is not None
        table = self.uncertainties.stack()
        new_tokens = self.sequences[:, self.sequences.shape[1] - table.shape[1] :]
        result = []
        for ids, values in zip(new_tokens.tolist(), table.tolist(), strict=True):
            ended = [value[FIELDS.index("entropy")] != value[FIELDS.index("entropy")] for value in values]
            result.append(
                [
                    {token: Uncertainty(*value, tokenizer.decode([token]) if tokenizer else None)}
                    for token, value, padding in zip(ids, values, ended, strict=True)
                    if not padding
                ]
            )
        return result


def expand_seeds(seeds: Seeds | None, count: int) -> Tensor:
    """One int64 seed for each of `count` sequences: an int counts up from itself, None starts at torch's seed."""
    if seeds is None:
        seeds = torch.initial_seed() & (2**63 - 1)
    values = [seeds + row for row in range(count)] if isinstance(seeds, int) else list(seeds)
    if len(values) != count:
        raise ValueError(f"{len(values)} noise seeds for {count} sequences; give one for each, or a single integer")
    return torch.tensor([(value + 2**63) % 2**64 - 2**63 for value in values], dtype=torch.int64)


class StepRecorder:
    """Forward hook that collects the uncertainties of each generated token."""

    def __init__(
        self, projections: list[NoisyProjection], config: NoiseConfig, seeds: Seeds | None, prompt_length: int
    ) -> None:
        self.projections, self.config, self.seeds, self.prompt_length = projections, config, seeds, prompt_length
        self.noise: ParticleNoise | None = None
        self.pending: Tensor | None = None  # logits [S, B, V] of the step whose token is not known yet
        self.steps: list[Tensor] = []  # [B, 8] each

    def __call__(self, model: PreTrainedModel, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        cache = output.get("past_key_values")
        if cache is None:
            raise ValueError("weight samples attend to the KV cache; leave use_cache on")
        columns = int(cache.get_seq_length())
        if columns < self.prompt_length:
            return  # not the last chunk of a chunked prefill
        inputs = kwargs["input_ids"] if kwargs.get("input_ids") is not None else kwargs["inputs_embeds"]
        if self.noise is None:
            self.noise = ParticleNoise(self.projections, self.config, expand_seeds(self.seeds, len(inputs)))
        self._finish(inputs[:, -1])
        self.pending = output.logits[None, :, -1]
        if self.noise.particles:
            valid = _valid_columns(kwargs.get("attention_mask"), len(inputs), columns).to(inputs.device)
            noisy = particle_logits(model, self.noise, cache, valid, inputs[:, -1:])
            self.pending = torch.cat([self.pending, noisy[:, :, 0]])
        if self.config.use_tfb_for_generation:
            output.logits = mixture_logits(self.pending)[:, None]

    def table(self, new_tokens: Tensor) -> Tensor:
        """The quantities of `new_tokens` [B, T], float32 [B, T, 8]."""
        if len(self.steps) < new_tokens.shape[1]:
            self._finish(new_tokens[:, -1])
        return torch.stack(self.steps, dim=1)

    def _finish(self, tokens: Tensor) -> None:
        """Complete the last step, whose chosen tokens are `tokens` [B]."""
        if self.pending is not None:
            self.steps.append(token_uncertainty(self.pending, tokens).stack())


def generate_with_uncertainties(
    model: PreTrainedModel,
    generate: Callable[..., Any],
    projections: list[NoisyProjection],
    noise: NoiseConfig,
    noise_seed: Seeds | None,
    inputs: Tensor | None = None,
    generation_config: GenerationConfig | None = None,
    **kwargs: Any,
) -> GenerateUncertaintyOutput:
    """Run `generate`, that of the causal LM `model`, and add the uncertainties of the new tokens to its result."""
    settings = copy.deepcopy(generation_config) if generation_config else GenerationConfig()
    settings.update(**model.generation_config.to_dict(), defaults_only=True)
    settings.update(**kwargs)
    mode = settings.get_generation_mode(kwargs.get("assistant_model"))
    if mode not in (GenerationMode.GREEDY_SEARCH, GenerationMode.SAMPLE) or kwargs.get("custom_generate"):
        raise ValueError(f"uncertainties come with greedy search and sampling only; {mode.value} was asked for")
    ids = kwargs.get("input_ids") if inputs is None else inputs
    prompt_length = ids.shape[1] if ids is not None else int("inputs_embeds" not in kwargs)
    recorder = StepRecorder(projections, noise, noise_seed, prompt_length)
    forced = {"return_dict_in_generate": True, "disable_compile": True}
    if generation_config:  # transformers wants all options in one place
        generation_config = copy.deepcopy(generation_config)
        generation_config.update(**forced)
    else:
        kwargs |= forced
    handle = model.register_forward_hook(recorder, with_kwargs=True)
    try:
        output = generate(inputs, generation_config, **kwargs)
    finally:
        handle.remove()
    new_tokens = output.sequences[:, prompt_length:]
    table = recorder.table(new_tokens)
    stops = bool(kwargs.get("stopping_criteria") or settings.stop_strings)
    table[_padding(new_tokens, settings.eos_token_id, settings.pad_token_id, stops)] = torch.nan
    return GenerateUncertaintyOutput(**output, uncertainties=TokenUncertainty(*table.unbind(-1)))


def _valid_columns(attention_mask: Any, batch: int, columns: int) -> Tensor:
    """Which cache columns hold tokens, bool [B, columns], from the attention mask of a forward call."""
    if attention_mask is None:
        return torch.ones(batch, columns, dtype=torch.bool)
    if not isinstance(attention_mask, Tensor):
        raise ValueError("models that mix kinds of attention need a dynamic cache (cache_implementation='dynamic')")
    if attention_mask.dim() == 4:  # made for a static cache: what the last token may see, bool or additive
        attention_mask = attention_mask[:, 0, -1]
        attention_mask = attention_mask if attention_mask.dtype == torch.bool else attention_mask == 0
    return attention_mask[:, :columns].bool().expand(batch, -1)


def _padding(tokens: Tensor, eos: int | list[int] | None, pad: int | None, other_stops: bool) -> Tensor:
    """Which of the new tokens [B, T] only fill up a sequence that had ended, bool [B, T].

    generate pads only if there is an end-of-sequence token. A sequence that another criterion stopped is recognised by
    its trailing padding tokens.
    """
    if eos is None:
        return torch.zeros_like(tokens, dtype=torch.bool)
    ends = torch.isin(tokens, torch.tensor(eos, device=tokens.device))
    padding = ends.long().cumsum(-1) - ends.long() > 0
    if other_stops:
        filler = tokens == (pad if pad is not None else torch.tensor(eos).flatten()[0])
        trailing = filler.flip(-1).long().cumprod(-1).flip(-1).bool()
        padding |= trailing & ~ends.any(-1, keepdim=True)
    return padding
