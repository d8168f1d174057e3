"""How long texts may be, which inputs, caches and modules the weight samples take, and what damaged models give."""

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    DeepseekV3Config,
    DynamicCache,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTJConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    Phi3Config,
    PreTrainedConfig,
    Qwen2Config,
)
from transformers.generation import utils as generation_utils

from bayesian_transformer import BayesianForCausalLMModel
from bayesian_transformer.hf.limits import max_length, window_length
from bayesian_transformer.scoring import score, score_batch
from bayesian_transformer.uncertainty import FIELDS
from tests.helpers.reference import worst_error
from tests.hf.test_hf_wrapper import GPT, TINY, brute_force, tiny_model

LONGROPE = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [4.0] * 4}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0, "original_max_position_embeddings": 8}
SLIDING = {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 0}
CALL: dict[str, Any] = {"output_uncertainties": True, "noise_seed": 3, "eos_token_id": None, "do_sample": False}


def wrapped(config: PreTrainedConfig, **options: Any) -> BayesianForCausalLMModel:
    targets = {Phi3Config: ("qkv_proj",), GPT2Config: ("c_attn",)}.get(type(config), ("q_proj", "v_proj"))
    return BayesianForCausalLMModel.wrap(tiny_model(config), targets, rank=4, **{"num_samples": 3} | options)


@pytest.mark.parametrize(
    ("config", "window", "longest"),
    [
        (LlamaConfig(**TINY), None, 64),
        (LlamaConfig(**TINY, rope_parameters=YARN), None, 64),
        (LlamaConfig(**{**TINY, "max_position_embeddings": 8}, rope_parameters=DYNAMIC), None, 8),
        (Phi3Config(**TINY, rope_parameters=LONGROPE, original_max_position_embeddings=8), None, 8),
        (MistralConfig(**TINY, sliding_window=16), 16, 64),
        (Gemma3TextConfig(**TINY, head_dim=8, sliding_window=16), 16, 64),
        (Qwen2Config(**TINY, **SLIDING), 6, 6),
    ],
)
def test_limits_of_configs(config: PreTrainedConfig, window: int | None, longest: int) -> None:
    assert window_length(config) == window
    assert max_length(config) == longest


@pytest.mark.parametrize(
    "config",
    [
        Phi3Config(**TINY, rope_parameters=LONGROPE, original_max_position_embeddings=8),
        LlamaConfig(**{**TINY, "max_position_embeddings": 8}, rope_parameters=DYNAMIC),
    ],
    ids=["longrope", "dynamic"],
)
def test_rope_that_depends_on_the_length_is_scored_up_to_its_first_frequencies(
    config: PreTrainedConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, prompt = wrapped(config), [5, 9, 11]
    output = model.generate(torch.tensor([prompt]), max_new_tokens=15, **CALL)
    new = output.sequences[0, 3:].tolist()

    def error(count: int) -> float:
        scored = score(model, prompt, new[:count], seed=3)
        got = {name: getattr(scored, name).numpy() for name in FIELDS}
        return worst_error(got, {name: getattr(output.uncertainties, name)[0, :count].numpy() for name in FIELDS})

    assert error(5) <= 1
    with pytest.raises(ValueError, match="has 9 tokens, more than the 8"):
        error(6)
    monkeypatch.setattr("bayesian_transformer.scoring.max_length", lambda _: None)
    assert error(15) > 10  # why it is refused


@pytest.mark.parametrize(
    ("config", "options"),
    [
        (MistralConfig(**TINY, sliding_window=6), {"cache_implementation": "static"}),
        (Qwen2Config(**TINY, **SLIDING), {}),  # a family that is not known to have windows
    ],
    ids=["static cache", "family"],
)
def test_a_window_that_generation_may_outgrow_is_refused_before_the_first_step(
    config: PreTrainedConfig, options: dict[str, Any]
) -> None:
    model = wrapped(config)
    forwards: list[int] = []
    model.lm.model.register_forward_hook(lambda *_: forwards.append(1))
    prompt, embeddings = torch.tensor([[5, 6, 7]]), torch.zeros(1, 3, 32)
    ways: list[dict[str, Any]] = [{"inputs": prompt}, {"input_ids": prompt}, {"inputs_embeds": embeddings}]
    for inputs in ways:
        with pytest.raises(ValueError, match="7 tokens, prompt and new ones, may outgrow the sliding window of 6"):
            model.generate(**inputs, max_new_tokens=4, **CALL, **options)
    assert not forwards
    assert model.generate(prompt, max_new_tokens=3, **CALL, **options).uncertainties.epistemic.min() > 0
    assert model.generate(inputs_embeds=embeddings, max_new_tokens=3, **CALL, **options).sequences.shape == (1, 3)
    model.set_sample(False)
    assert model.generate(prompt, max_new_tokens=40, **CALL, **options).sequences.shape == (1, 43)  # no limit


def test_a_cache_that_is_given_keeps_its_windows_and_is_refused() -> None:
    model = wrapped(MistralConfig(**TINY, sliding_window=6))
    cache = DynamicCache(config=model.lm.config)
    with pytest.raises(ValueError, match="may outgrow the sliding window of 6"):
        model.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=4, past_key_values=cache, **CALL)


MIXED = ["sliding_attention", "full_attention"]
WINDOWED: dict[str, PreTrainedConfig] = {
    "mistral": MistralConfig(**TINY, sliding_window=6),
    "two tokens": MistralConfig(**TINY, sliding_window=2),
    "phi3": Phi3Config(**TINY, sliding_window=6),
    "gemma2": Gemma2Config(**TINY, head_dim=8, sliding_window=6),
    "gemma3": Gemma3TextConfig(
        **TINY, head_dim=8, sliding_window=6, layer_types=["sliding_attention", "full_attention"]
    ),
}


@pytest.mark.parametrize("by_default", [None, "hybrid"])
@pytest.mark.parametrize("name", WINDOWED)
def test_texts_may_outgrow_the_windows_of_known_families(name: str, by_default: str | None) -> None:
    """Two prompts in one batch, one longer than the window, against brute force with transformers' own cache."""
    model = wrapped(WINDOWED[name])
    model.lm.generation_config.cache_implementation = by_default
    prompts = [[5, 6, 7, 8, 9, 10, 11, 12, 13], [13, 14]]
    ids = torch.tensor([prompts[0], [0] * 7 + prompts[1]])
    mask = torch.tensor([[1] * 9, [0] * 7 + [1] * 2])
    output = model.generate(ids, attention_mask=mask, max_new_tokens=8, **CALL | {"noise_seed": [3, 4]})
    model.lm.generation_config.cache_implementation = None
    plain = model.lm.generate(ids, attention_mask=mask, max_new_tokens=8, eos_token_id=None, do_sample=False)
    assert torch.equal(output.sequences, plain)
    for row, prompt in enumerate(prompts):
        new = output.sequences[row, 9:].tolist()
        expected = brute_force(model, prompt, new, 3 + row)
        got = {field: getattr(output.uncertainties, field)[row].numpy() for field in FIELDS}
        assert worst_error(got, expected) <= 1
        for chunk_rows in (1, 15, 1000):
            scored = score(model, prompt, new, seed=3 + row, chunk_rows=chunk_rows)
            assert worst_error({field: getattr(scored, field).numpy() for field in FIELDS}, expected) <= 1


def test_padding_may_outgrow_a_window() -> None:
    """Two texts that fit a window of 8 make a batch of 12 columns."""
    model = wrapped(Qwen2Config(**TINY, **SLIDING | {"sliding_window": 8}))
    texts = [([5, 6, 7, 8, 9, 10], [11, 12]), ([13, 14], [15, 16, 17, 18, 19, 20])]
    ids, mask = torch.zeros(2, 12, dtype=torch.long), torch.zeros(2, 12, dtype=torch.long)
    response = torch.zeros(2, 12, dtype=torch.bool)
    for row, (prompt, new) in enumerate(texts):
        span = slice(6 - len(prompt), 6 + len(new))
        ids[row, span], mask[row, span] = torch.tensor(prompt + new), 1
        response[row, 6 : span.stop] = True
    for rows in (1, 24, 1000):
        table = score_batch(model, ids, mask, response, [3, 4], chunk_rows=rows)
        for row, (prompt, new) in enumerate(texts):
            got = dict(zip(FIELDS, table[row][response[row]].T.numpy(), strict=True))
            assert worst_error(got, brute_force(model, prompt, new, 3 + row)) <= 1
    with pytest.raises(ValueError, match="has 9 tokens, more than the 8"):
        score(model, [5] * 6, [6] * 3, seed=0)


@pytest.mark.parametrize("name", ["mistral", "gemma2", "gemma3"])
def test_static_cache_of_sliding_and_mixed_layers(name: str) -> None:
    config = {
        "mistral": MistralConfig(**TINY, sliding_window=32),
        "gemma2": Gemma2Config(**TINY, head_dim=8, sliding_window=32),
        "gemma3": Gemma3TextConfig(**TINY, head_dim=8, sliding_window=32),  # both layers slide
    }[name]
    model = wrapped(config)
    ids, mask = torch.tensor([[5, 9, 11, 7], [0, 0, 8, 6]]), torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1]])
    dynamic, static = (
        model.generate(ids, attention_mask=mask, max_new_tokens=5, cache_implementation=kind, **CALL)
        for kind in (None, "static")
    )
    assert torch.equal(dynamic.sequences, static.sequences)
    torch.testing.assert_close(static.uncertainties.stack(), dynamic.uncertainties.stack(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["paged", "quantized", "offloaded", "offloaded_static"])
def test_caches_that_cannot_be_read_are_one_line(name: str) -> None:
    model = wrapped(LlamaConfig(**TINY))
    with pytest.raises(ValueError, match=f"{name} KV cache; use cache_implementation dynamic or static$") as caught:
        model.generate(torch.tensor([[5, 6]]), max_new_tokens=2, cache_implementation=name, **CALL)
    assert "\n" not in str(caught.value)
    assert not model.lm._forward_hooks


def test_not_a_number_is_an_entry_like_any_other() -> None:
    """A model whose logits are NaN keeps one entry for each token; only padding has none."""
    model = wrapped(LlamaConfig(**TINY))
    model.lm.model.norm.weight.data.fill_(torch.nan)
    output = model.generate(torch.tensor([[5, 6]]), max_new_tokens=4, **CALL)
    assert output.lengths.tolist() == [4]
    assert [len(row) for row in output.token_uncertainties()] == [4]
    assert output.uncertainties.stack().isnan().all()
    assert score(model, [5, 6], [7, 8, 9], seed=3).stack().isnan().all()


def test_return_dict_may_be_off() -> None:
    """Few architectures of transformers run that way; this is one."""
    model = wrapped(GPTJConfig(**GPT, rotary_dim=4))
    expected = score(model, [5, 6], [7, 8], seed=3).stack()
    generated = model.generate(torch.tensor([[5, 6]]), max_new_tokens=2, **CALL).uncertainties.stack()
    model.lm.config.return_dict = False
    assert isinstance(model(torch.tensor([[5, 6]])), tuple)
    assert torch.equal(score(model, [5, 6], [7, 8], seed=3).stack(), expected)
    again = model.generate(torch.tensor([[5, 6]]), max_new_tokens=2, **CALL)
    assert torch.equal(again.uncertainties.stack(), generated)


@pytest.mark.parametrize(
    ("config", "name"), [(LlamaConfig(**TINY), "position_ids"), (GPT2Config(**GPT), "token_type_ids")]
)
def test_inputs_that_weight_samples_would_not_see_are_refused(config: PreTrainedConfig, name: str) -> None:
    """Without noise the samples would differ from the noise-free pass, as if the model were uncertain."""
    model = wrapped(config, bayes_sigma=0.0)
    ids = torch.tensor([[5, 6, 7]])
    given: dict[str, Any] = {name: torch.tensor([[10, 11, 12]])}
    with pytest.raises(ValueError, match=f"weight samples take no {name}.*leave it out$"):
        model.generate(ids, max_new_tokens=3, **given, **CALL)
    silent = model.generate(ids, max_new_tokens=3, **CALL)
    assert silent.uncertainties.epistemic.abs().max() < 1e-5
    model.set_sample(False)  # without samples the inputs may be any
    output = model.generate(ids, max_new_tokens=3, **given, **CALL)
    assert torch.equal(output.sequences, model.lm.generate(ids, max_new_tokens=3, **given, do_sample=False))


class LateStopCheck(generation_utils.StopCheck):
    """As on a GPU of Apple: that all sequences have ended is read a step late, and that step is taken back."""

    def __init__(self, ids: Tensor, max_length: int, *_: Any) -> None:
        super().__init__()
        self.max_length, self.ended, self.late = max_length, False, False

    @staticmethod
    def is_supported(*_: Any, **__: Any) -> bool:
        return True

    def __call__(self, unfinished_sequences: Tensor, tokens: Tensor, length: int) -> bool:
        self.late, self.ended = self.ended, bool(unfinished_sequences.max() == 0)
        return self.late or length >= self.max_length

    def finish(self) -> int:
        return int(self.late)


@pytest.mark.parametrize("eos", [False, True])
def test_a_step_that_is_taken_back_has_no_values(monkeypatch: pytest.MonkeyPatch, eos: bool) -> None:
    model, call = wrapped(LlamaConfig(**TINY)), CALL | {"max_new_tokens": 6, "pad_token_id": 0}
    ids = torch.tensor([[5, 6, 7], [9, 3, 8]])
    free = model.generate(ids, **call).sequences
    if eos:
        call["eos_token_id"] = free[:, 5].tolist()  # ends both by their third token
    expected = model.generate(ids, **call)
    monkeypatch.setattr(generation_utils, "DeferredStopCheck", LateStopCheck)
    output = model.generate(ids, **call)
    assert torch.equal(output.sequences, expected.sequences)
    assert output.lengths.tolist() == expected.lengths.tolist()
    assert torch.equal(output.uncertainties.stack(), expected.uncertainties.stack())
    assert output.token_uncertainties() == expected.token_uncertainties()


def test_models_without_keys_and_values_of_each_token_are_one_line() -> None:
    config = MambaConfig(vocab_size=60, hidden_size=32, num_hidden_layers=2, state_size=4)
    model = BayesianForCausalLMModel.wrap(tiny_model(config), ["x_proj"], rank=3, num_samples=3)
    for call in (
        lambda: score(model, [5, 6], [7, 8], seed=1),
        lambda: model.generate(torch.tensor([[5, 6]]), max_length=4, **CALL),
    ):
        with pytest.raises(
            ValueError, match=r"^Mamba\w+ returns no K/V of each token, to which weight samples attend$"
        ):
            call()


@pytest.mark.parametrize("kind", ["right", "std"])
def test_a_module_that_runs_on_earlier_tokens_again_is_one_line(kind: str) -> None:
    """Latent attention expands the keys and values of all tokens from its cache in each step."""
    shape = {"kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8, "q_lora_rank": None}
    experts = {"n_routed_experts": 4, "num_experts_per_tok": 2, "first_k_dense_replace": 2, "n_group": 1}
    lm = tiny_model(DeepseekV3Config(**{**TINY, "num_key_value_heads": 4}, **shape, **experts, topk_group=1))
    model = BayesianForCausalLMModel.wrap(lm, ["q_proj", "kv_b_proj"], rank=3, num_samples=3, bayes_noise=kind)
    for call in (
        lambda: score(model, [5, 6], [7, 8], seed=1),
        lambda: model.generate(torch.tensor([[5, 6]]), max_length=4, **CALL),
    ):
        with pytest.raises(ValueError, match=r"layers\.0\.self_attn\.kv_b_proj .* leave it out of target_modules$"):
            call()
