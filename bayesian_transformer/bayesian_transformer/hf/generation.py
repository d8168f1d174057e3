"""`model.generate` with uncertainties, around the library's own generate and any causal LM of transformers.

A forward hook sees each clean step with its raw logits and its cache and runs the weight samples of the last token; the
stopping criteria, which see the chosen token, complete the step. Sampling, stopping and streaming stay the library's,
and so do the clean numbers: the tokens are those of plain generate.
"""

import copy
import operator
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.cache_utils import DynamicLayer
from transformers.generation import StoppingCriteriaList
from transformers.generation.utils import GenerateDecoderOnlyOutput

from ..encoding import token_text
from ..noise import noise_key
from ..noise_config import NoiseConfig
from ..uncertainty import TokenUncertainty, Uncertainty, mixture_logits, token_uncertainty
from .call_checks import check_inputs, check_mode, check_window, makes_its_cache
from .limits import follows_windows
from .noisy_forward import ParticleNoise, cache_of, check_evaluating, particle_logits
from .projections import NoisyProjection

Seeds = int | Sequence[int]
TokenDict = dict[int, Uncertainty]


@dataclass
class GenerateUncertaintyOutput(GenerateDecoderOnlyOutput):
    """What generate returns, plus `uncertainties`: eight float32 tensors [batch, new tokens], in nats.

    They are NaN where a sequence had ended and holds padding. `lengths`, int64 [batch], counts the new tokens without
    padding.
    """

    uncertainties: TokenUncertainty | None = None
    lengths: Tensor | None = None

    def token_uncertainties(self, tokenizer: PreTrainedTokenizerBase | None = None) -> list[list[TokenDict]]:
        """For each sequence one {token id: Uncertainty} per new token, as vLLM gives them; padding is left out."""
        if self.uncertainties is None or self.lengths is None:
            raise ValueError("generate ran without output_uncertainties=True")
        table = self.uncertainties.stack()
        new_tokens = self.sequences[:, self.sequences.shape[1] - table.shape[1] :]
        return [
            [
                {token: Uncertainty.from_row(value, tokenizer and token_text(tokenizer, token))}
                for token, value in zip(ids[:length], values[:length], strict=True)
            ]
            for ids, values, length in zip(new_tokens.tolist(), table.tolist(), self.lengths.tolist(), strict=True)
        ]


def expand_seeds(seeds: Seeds | None, count: int) -> Tensor:
    """One int64 seed for each of `count` sequences: an int counts up from itself, None starts at torch's seed.

    Tensors and arrays count as the integer or the list that they hold.
    """
    if seeds is None:
        seeds = torch.initial_seed() & (2**63 - 1)
    given: Any = seeds.tolist() if hasattr(seeds, "tolist") else seeds
    try:
        if isinstance(given, Sequence):
            values = [operator.index(seed) for seed in given]
        else:
            values = [operator.index(given) + row for row in range(count)]
    except TypeError as error:
        raise ValueError(f"noise seeds must be integers; got {seeds!r}") from error
    if len(values) != count:
        raise ValueError(f"{len(values)} noise seeds for {count} sequences; give one for each, or a single integer")
    return torch.tensor([noise_key(value) for value in values], dtype=torch.int64)


class StepRecorder:
    """Collects the uncertainties of a running generate: logits from each forward, then the tokens chosen from them."""

    def __init__(
        self,
        model: PreTrainedModel,
        projections: list[NoisyProjection],
        config: NoiseConfig,
        seeds: Seeds | None,
        embedded: int,
    ) -> None:
        self.model, self.projections, self.config, self.seeds = model, projections, config, seeds
        self.embedded = embedded  # tokens of the prompt that come as embeddings, not as ids
        self.keeps_windows = False  # the call makes a cache, which shall keep what lies before a sliding window
        self.cache: Any = None  # what the last forward of this call returned, and its next one is given
        self.has_criteria = False
        self.noise: ParticleNoise | None = None
        self.logits: Tensor | None = None  # [S, B, V] of the last forward
        self.finished: Tensor | None = None  # bool [B]
        self.lengths: Tensor | None = None  # int64 [B], tokens so far
        self.steps: list[Tensor] = []  # [B, 8] each

    def before_forward(self, cache: Any) -> None:
        """Forward hook: let an empty cache keep all K/V; masks hide from a token what lies before its window."""
        if self.keeps_windows and cache is not None and not cache.get_seq_length():
            cache.layers = [DynamicLayer() if getattr(la, "is_sliding", False) else la for la in cache.layers]

    def after_forward(self, model: PreTrainedModel, _: Any, kwargs: dict[str, Any], output: Any) -> None:
        """Forward hook: run the weight samples of the last token next to the clean logits in `output`.

        The first one after a choice is the call's own, and so are those that go on with its cache, as a prompt in parts
        does. What runs within the call, a stopping criterion for example, may run the model too, before the choice is
        over and with another cache.
        """
        if self.logits is not None and kwargs.get("past_key_values") is not self.cache:
            return
        cache = self.cache = cache_of(model, output)
        inputs = kwargs["input_ids"] if kwargs.get("input_ids") is not None else kwargs["inputs_embeds"]
        if self.noise is None:
            self.noise = ParticleNoise(self.projections, self.config, expand_seeds(self.seeds, len(inputs)))
        self.logits = output.logits[None, :, -1]
        if self.noise.noisy_samples:
            valid = _valid_columns(kwargs.get("attention_mask"), len(inputs), int(cache.get_seq_length()))
            noisy = particle_logits(model, self.noise, cache, valid.to(inputs.device), inputs[:, -1:])
            self.logits = torch.cat([self.logits, noisy[:, :, 0]])
            if self.config.use_tfb_for_generation:
                output.logits = mixture_logits(self.logits)[:, None]

    def after_choice(self, tokens: Tensor, stopped: Tensor) -> None:
        """Complete a step: `tokens` [B] were chosen, the sequences with `stopped` [B] end here."""
        if self.logits is None:
            raise ValueError("the model chose a token without a forward of its own; its uncertainties are not known")
        values = token_uncertainty(self.logits, tokens).stack()
        self.logits = None  # never those of an earlier step
        if self.finished is None or self.lengths is None:
            self.finished, self.lengths = torch.zeros_like(stopped), torch.zeros_like(tokens)
        self.steps.append(values.masked_fill(self.finished[:, None], torch.nan))
        self.lengths = self.lengths + ~self.finished
        self.finished = self.finished | stopped

    def results(self) -> dict[str, Any]:
        """The uncertainties and lengths of a generate call that is over.

        Steps beyond the longest sequence are left out: where transformers reads late whether all sequences have ended,
        it runs one step too many and takes its token back.
        """
        longest = int(self.lengths.max())  # type: ignore[union-attr]
        table = torch.stack(self.steps[:longest], dim=1)
        return {"uncertainties": TokenUncertainty.from_table(table), "lengths": self.lengths}


class RecordingCriteria(StoppingCriteriaList):
    """The stopping criteria of a generate call, which see each new token first and know which sequences end."""

    def __init__(self, criteria: StoppingCriteriaList, recorder: StepRecorder) -> None:
        super().__init__(criteria)
        self.recorder = recorder

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        stopped = super().__call__(input_ids, scores, **kwargs)
        self.recorder.after_choice(input_ids[:, -1], stopped)
        return stopped


_RECORDER: ContextVar[StepRecorder | None] = ContextVar("recorder of the call in this thread", default=None)
_lock = threading.Lock()  # of the line that puts a _CriteriaMaker in place, and of the one that takes it away


class _CriteriaMaker:
    """`_get_stopping_criteria` of a model, the one place where all criteria of a call are together, while it is shared.

    Calls in several threads use one, and calls without uncertainties pass through.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model, self.stock, self.calls = model, model._get_stopping_criteria, 0
        self.before = vars(model).get("_get_stopping_criteria")  # of a user, who gets it back

    def __call__(self, generation_config: GenerationConfig, *args: Any, **kwargs: Any) -> StoppingCriteriaList:
        criteria, recorder = self.stock(generation_config, *args, **kwargs), _RECORDER.get()
        if recorder is None or recorder.model is not self.model or recorder.has_criteria:
            return criteria
        recorder.has_criteria = True
        if recorder.config.effective_samples > 1 and not recorder.keeps_windows:
            check_window(self.model, generation_config.max_length + recorder.embedded)
        return RecordingCriteria(criteria, recorder)


@contextmanager
def _recording(recorder: StepRecorder) -> Iterator[None]:
    """Within the block, generate of the recorder's model feeds it, if it is this thread that calls it."""
    model = recorder.model

    def after_forward(module: PreTrainedModel, *call: Any) -> None:
        if _RECORDER.get() is recorder:
            recorder.after_forward(module, *call)

    def before_forward(_: PreTrainedModel, __: Any, kwargs: dict[str, Any]) -> None:
        if _RECORDER.get() is recorder:
            recorder.before_forward(kwargs.get("past_key_values"))

    with _lock:
        maker = vars(model).get("_get_stopping_criteria")
        if not isinstance(maker, _CriteriaMaker):
            maker = model._get_stopping_criteria = _CriteriaMaker(model)
        maker.calls += 1
    handles = [
        model.register_forward_pre_hook(before_forward, with_kwargs=True),
        model.register_forward_hook(after_forward, with_kwargs=True),
    ]
    mine = _RECORDER.set(recorder)
    try:
        yield
    finally:
        _RECORDER.reset(mine)
        for handle in handles:
            handle.remove()
        with _lock:
            maker.calls -= 1
            if not maker.calls:
                del model._get_stopping_criteria
                if maker.before is not None:
                    model._get_stopping_criteria = maker.before


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
    """Run `generate`, that of the causal LM `model`, and add the uncertainties of the new tokens to its result.

    The KV cache is always on and torch.compile off: the weight samples read the cache between the steps. Other threads
    may run the same model meanwhile, with or without uncertainties.
    """
    check_evaluating(model)
    check_mode(model, generation_config, kwargs)
    keeps_windows = False
    if noise.effective_samples > 1:
        check_inputs(model, kwargs)
        keeps_windows = follows_windows(model.config) and makes_its_cache(model, generation_config, kwargs)
    forced: dict[str, Any] = {"return_dict_in_generate": True, "disable_compile": True, "use_cache": True}
    if keeps_windows:
        forced["cache_implementation"] = "dynamic"
    if generation_config:  # transformers wants all options in one place
        generation_config = copy.deepcopy(generation_config)
        generation_config.update(**forced)
        kwargs = {name: value for name, value in kwargs.items() if name not in forced}
    else:
        kwargs |= forced
    embeddings, ids = kwargs.get("inputs_embeds"), kwargs.get("input_ids", inputs)
    embedded = embeddings.shape[1] if embeddings is not None and ids is None else 0
    recorder = StepRecorder(model, projections, noise, noise_seed, embedded)
    recorder.keeps_windows = keeps_windows
    with _recording(recorder):
        output = generate(inputs, generation_config, **kwargs)
    return GenerateUncertaintyOutput(**output, **recorder.results())


def _valid_columns(attention_mask: Any, batch: int, columns: int) -> Tensor:
    """Which cache columns hold tokens, bool [B, columns], from the attention mask of a forward call."""
    if isinstance(attention_mask, dict):
        attention_mask = attention_mask.get("full_attention", next(iter(attention_mask.values())))
    if attention_mask is None:
        return torch.ones(batch, columns, dtype=torch.bool)
    if attention_mask.dim() == 4:  # made for a static cache: what the last token may see, bool or additive
        attention_mask = attention_mask[:, 0, -1]
        attention_mask = attention_mask if attention_mask.dtype == torch.bool else attention_mask == 0
    return attention_mask[:, :columns].bool().expand(batch, -1)
