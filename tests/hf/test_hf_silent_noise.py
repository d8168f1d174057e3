"""Noise of scale 0, and noise that is switched off: the logits are those of the base model."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, DynamicCache

from bayesian_transformer import BayesianForCausalLMModel, scoring
from bayesian_transformer.hf import generation
from bayesian_transformer.scoring import score
from bayesian_transformer.uncertainty import token_uncertainty

NUM_SAMPLES = 4
PROMPT, RESPONSE = [40], [50, 60, 70, 80, 90, 100]
# The rows of weight samples are computed in other shapes than those of the clean pass, which rounds differently; the
# logits are of the order of 1.
ROUNDING: dict[str, Any] = {"rtol": 0, "atol": 2e-5}


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The logits [S, N, V] from which uncertainties were computed."""
    logits: list[Tensor] = []

    def record(values: Tensor, tokens: Tensor) -> Any:
        logits.append(values.clone())
        return token_uncertainty(values, tokens)

    for module in (generation, scoring):
        monkeypatch.setattr(module, "token_uncertainty", record)
    return logits


@pytest.mark.parametrize("kind", ["right", "left"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("base_path", ["tiny_llama_path", "tiny_qwen2_path"])
def test_generation_has_the_logits_of_the_base_model(
    request: pytest.FixtureRequest, make_tfb: Any, seen: list[Tensor], base_path: str, attention: str, kind: str
) -> None:
    path = request.getfixturevalue(base_path)
    options: dict[str, Any] = {"dtype": torch.float32, "attn_implementation": attention}
    base = AutoModelForCausalLM.from_pretrained(path, **options)
    model = AutoModelForCausalLM.from_pretrained(make_tfb(path, kind), num_samples=NUM_SAMPLES, **options)
    prompts = {"input_ids": torch.tensor([[0, 0, 5], [7, 8, 9]]), "attention_mask": torch.tensor([[0, 0, 1], [1] * 3])}
    call: dict[str, Any] = {**prompts, "max_new_tokens": 4, "eos_token_id": None, "pad_token_id": 0}
    plain = base.generate(**call, output_logits=True, return_dict_in_generate=True)
    expected = torch.stack(plain.logits)  # [steps, B, V]
    model.set_sigma(0.0)
    silent = model.generate(**call, output_uncertainties=True)
    assert torch.equal(silent.sequences, plain.sequences)
    logits = torch.stack(seen, dim=1)  # [S, steps, B, V]
    assert logits.shape == (NUM_SAMPLES, *expected.shape)
    assert torch.equal(logits[0], expected)
    torch.testing.assert_close(logits[1:], expected.expand_as(logits[1:]), **ROUNDING)
    seen.clear()
    model.set_sigma(0.1)
    model.set_sample(False)
    model.generate(**call, output_uncertainties=True)
    assert torch.equal(torch.stack(seen, dim=1), expected[None])


@pytest.mark.parametrize("kind", ["right", "left", "std", "self-scaling"])
def test_scoring_has_the_logits_of_the_base_model(
    tiny_qwen2_path: Path, make_tfb: Any, seen: list[Tensor], kind: str
) -> None:
    base = AutoModelForCausalLM.from_pretrained(tiny_qwen2_path, dtype=torch.float32)
    if kind in ("right", "left"):
        model = AutoModelForCausalLM.from_pretrained(make_tfb(tiny_qwen2_path, kind), num_samples=NUM_SAMPLES)
    else:
        lm = AutoModelForCausalLM.from_pretrained(tiny_qwen2_path, dtype=torch.float32)
        model = BayesianForCausalLMModel.wrap(lm, num_samples=NUM_SAMPLES, bayes_noise=kind)
    ids = torch.tensor([PROMPT + RESPONSE[:-1]])
    with torch.no_grad():
        expected = base(ids, attention_mask=torch.ones_like(ids), past_key_values=DynamicCache()).logits[0]
    score(model, PROMPT, RESPONSE, seed=1, sigma=0.0)
    logits = torch.cat(seen, dim=1)  # [S, len(RESPONSE), V]
    assert torch.equal(logits[0], expected)
    torch.testing.assert_close(logits[1:], expected.expand_as(logits[1:]), **ROUNDING)
    seen.clear()
    score(model, PROMPT, RESPONSE, seed=1)
    assert (torch.cat(seen, dim=1)[1:] - expected).abs().max() > 1e-2  # the same comparison feels the noise
    seen.clear()
    model.set_sample(False)
    score(model, PROMPT, RESPONSE, seed=1)
    assert torch.equal(torch.cat(seen, dim=1), expected[None])
