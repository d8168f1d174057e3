"""Each family of FAMILIES: vLLM, transformers and scoring agree per token, and noise of size zero changes no token."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from bayesian_transformer.conversion import convert_checkpoint
from bayesian_transformer.scoring import score
from bayesian_transformer.uncertainty import FIELDS
from tests.helpers.reference import worst_error
from tests.helpers.tiny_families import FAMILIES, VOCABULARY, save_family
from tests.helpers.vllm_engines import engine, table, token_prompts

vllm = pytest.importorskip("vllm")
pytestmark = pytest.mark.engine

TOKENS, SIGMA, NUM_SAMPLES = 12, 0.1, 4
EPISTEMIC = FIELDS.index("epistemic")
LENGTHS = (40, 1, 77)  # of the prompts; one is longer than a chunk of the prefill
CACHED = (32, 0, 64)  # of them, in whole blocks, once they have been decoded
SEEDS = [3, -(2**40) - 1, 2**63 + 5]  # one for each prompt
# Prefill in chunks of 32 tokens, and blocks of 32: those before a window go back to vLLM while a text grows.
OPTIONS: dict[str, Any] = {
    "skip_tokenizer_init": True,
    "max_num_batched_tokens": 32,
    "max_model_len": 256,
    "block_size": 32,
}

Decoded = tuple[list[int], np.ndarray]  # new tokens, and their quantities [tokens, 8]


def prompts() -> list[list[int]]:
    rng = np.random.default_rng(0)
    return [rng.integers(3, VOCABULARY, length).tolist() for length in LENGTHS]


def decode(llm: Any, cached: Sequence[int] = (0, 0, 0)) -> list[Decoded]:
    """vLLM's greedy tokens, `cached` tokens of whose prompts are in its cache already."""
    sampling = [
        vllm.SamplingParams(seed=seed, temperature=0.0, max_tokens=TOKENS, ignore_eos=True, detokenize=False)
        for seed in SEEDS
    ]
    outputs = llm.generate(token_prompts(prompts()), sampling, use_tqdm=False)
    assert [output.num_cached_tokens for output in outputs] == list(cached)
    return [(list(output.outputs[0].token_ids), table(output.outputs[0])) for output in outputs]


def generate(model: Any) -> list[Decoded]:
    """transformers, all prompts as one batch with padding on the left."""
    longest = max(LENGTHS)
    ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts()])
    mask = torch.tensor([[0] * (longest - length) + [1] * length for length in LENGTHS])
    options = {"max_new_tokens": TOKENS, "do_sample": False, "eos_token_id": None, "output_uncertainties": True}
    output = model.generate(ids, attention_mask=mask, noise_seed=SEEDS, **options)
    numbers = output.uncertainties.stack().double().numpy()
    return list(zip(output.sequences[:, longest:].tolist(), numbers, strict=True))


def largest_difference(one: np.ndarray, other: np.ndarray) -> float:
    """In units of the tolerance: agreement means <= 1."""
    columns = (dict(zip(FIELDS, numbers.T, strict=True)) for numbers in (one, other))
    return worst_error(*columns)


def stock_tokens(base: Path) -> list[list[int]]:
    """What unchanged vLLM decodes with the base checkpoint."""
    sampling = vllm.SamplingParams(temperature=0.0, max_tokens=TOKENS, ignore_eos=True, detokenize=False)
    with engine(base, in_process=True, **OPTIONS) as llm:
        outputs = llm.generate(token_prompts(prompts()), sampling, use_tqdm=False)
    return [list(output.outputs[0].token_ids) for output in outputs]


def set_sigma(model: Any, sigma: float) -> None:
    model.particles.noise = replace(model.particles.noise, bayes_sigma=sigma)


@pytest.mark.parametrize("name", FAMILIES)
def test_all_engines_agree_on_every_token(name: str, tmp_path: Path) -> None:
    base = save_family(name, tmp_path / "base")
    tfb = convert_checkpoint(base, tmp_path / "tfb", bayes_noise=FAMILIES[name].bayes_noise)
    noise = {"num_samples": NUM_SAMPLES, "bayes_sigma": SIGMA}
    with engine(tfb, in_process=True, hf_overrides=noise, **OPTIONS) as llm:
        first, again = decode(llm), decode(llm, cached=CACHED)
        llm.apply_model(partial(set_sigma, sigma=0.0))
        silent = decode(llm, cached=CACHED)
    model = AutoModelForCausalLM.from_pretrained(tfb, dtype=torch.float32, **noise).eval()
    generated = generate(model)
    for (tokens, numbers), prompt, seed, *others in zip(first, prompts(), SEEDS, again, generated, strict=True):
        assert numbers[:, EPISTEMIC].min() > 0  # the noise is felt at each token
        scored = score(model, prompt, tokens, seed=seed, chunk_rows=7 * NUM_SAMPLES).stack().double().numpy()
        for other_tokens, other_numbers in (*others, (tokens, scored)):
            assert other_tokens == tokens
            assert largest_difference(other_numbers, numbers) <= 1
    assert max(np.abs(numbers[:, EPISTEMIC]).max() for _, numbers in silent) < 1e-5
    assert [tokens for tokens, _ in silent] == stock_tokens(base)


@pytest.mark.parametrize("together", [False, True])
def test_layers_with_and_without_windows_share_a_block_table_or_not(together: bool, tmp_path: Path) -> None:
    """vLLM keeps a block table for each kind of layer, or one for all, in which no block is given back."""
    base = save_family("gemma3", tmp_path / "base")
    tfb = convert_checkpoint(base, tmp_path / "tfb")
    noise = {"num_samples": NUM_SAMPLES, "bayes_sigma": SIGMA}
    options = OPTIONS | {"disable_hybrid_kv_cache_manager": together}
    with engine(tfb, in_process=True, hf_overrides=noise, **options) as llm:
        groups = llm.llm_engine.engine_core.engine_core.scheduler.kv_cache_config.kv_cache_groups
        assert (len(groups) == 1) is together
        decoded = decode(llm)
    model = AutoModelForCausalLM.from_pretrained(tfb, dtype=torch.float32, **noise).eval()
    for (tokens, numbers), prompt, seed in zip(decoded, prompts(), SEEDS, strict=True):
        scored = score(model, prompt, tokens, seed=seed).stack().double().numpy()
        assert largest_difference(scored, numbers) <= 1
