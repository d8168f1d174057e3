"""Noise on other projections than q and v in vLLM: the numbers of transformers and of scoring, converted or not."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from bayesian_transformer import tfb
from bayesian_transformer.conversion import convert_checkpoint
from bayesian_transformer.noise_config import QKV
from tests.helpers.family_checks import EPISTEMIC, NOISE, OPTIONS, decode, generate, largest_difference, prompts, scores
from tests.helpers.tiny_families import save_family
from tests.helpers.vllm_engines import engine

pytest.importorskip("vllm")
pytestmark = pytest.mark.engine


@pytest.mark.parametrize(
    ("family", "stored", "asked", "kind", "kernel_mode"),
    [
        ("qwen3", ("q_proj", "k_proj"), ["q_proj", "k_proj"], "right", "auto"),  # norms of q and k
        ("qwen2", QKV, ["k_proj"], "right", "plain"),  # biases; some of the bases that are stored
        ("phi3", QKV, ["v_proj", "q_proj", "k_proj"], "left", "auto"),  # one fused projection; another order
    ],
)
def test_all_engines_agree_on_every_token(
    family: str,
    stored: tuple[str, ...],
    asked: list[str],
    kind: str,
    kernel_mode: str,
    tmp_path: Path,
) -> None:
    base = save_family(family, tmp_path / "base")
    converted = convert_checkpoint(base, tmp_path / "tfb", bayes_noise=kind, bayes_projections=stored)
    noise = {**NOISE, "bayes_projections": asked}
    options = {**OPTIONS, "kernel_mode": kernel_mode}
    with engine(converted, hf_overrides=noise, **options) as llm:
        decoded = decode(llm)
    with engine(base, hf_overrides=tfb(**noise, bayes_noise=kind), **options) as llm:
        for (tokens, numbers), (plain_tokens, plain_numbers) in zip(decoded, decode(llm), strict=True):
            assert plain_tokens == tokens
            assert np.array_equal(plain_numbers, numbers)
    model = AutoModelForCausalLM.from_pretrained(converted, dtype=torch.float32, **noise).eval()
    both = zip(generate(model), scores(model, decoded), strict=True)
    for (tokens, numbers), prompt, others in zip(decoded, prompts(), both, strict=True):
        alone = int(len(prompt) == 1 and "v_proj" not in asked)  # a row that sees its own key only, whatever that is
        assert numbers[alone:, EPISTEMIC].min() > 1e-5
        assert not alone or abs(numbers[0, EPISTEMIC]) < 1e-6
        for other in others:
            assert other.tokens == tokens
            assert largest_difference(other.numbers, numbers) <= 1
