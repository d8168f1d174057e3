"""A plain checkpoint in vLLM has the numbers of the converted one: bit for bit, whichever way it is asked for.

tests/vllm/test_families.py has each family without a conversion; here it is how it is asked for, and the cache.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bayesian_transformer import basis_cache, tfb
from tests.helpers.vllm_engines import engine, table, token_prompts

vllm = pytest.importorskip("vllm")
pytestmark = pytest.mark.engine

NOISE: dict[str, Any] = {"num_samples": 4, "bayes_sigma": 0.1}
OPTIONS: dict[str, Any] = {"skip_tokenizer_init": True, "max_model_len": 256, "in_process": True}


@pytest.fixture
def computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """The weights whose basis was computed, beginning with an empty cache."""
    weights: list[torch.Tensor] = []
    stock = basis_cache.basis_vectors

    def record(weight: torch.Tensor, *args: Any) -> torch.Tensor:
        weights.append(weight)
        return stock(weight, *args)

    monkeypatch.setattr(basis_cache, "basis_vectors", record)
    monkeypatch.setenv("TOKUR_CACHE", str(tmp_path / "cache"))
    return weights


def answers(path: Path, **options: Any) -> list[np.ndarray]:
    """Token ids and uncertainties [tokens, 9] of two responses."""
    sampling = [
        vllm.SamplingParams(seed=seed, temperature=0.0, max_tokens=8, ignore_eos=True, detokenize=False)
        for seed in (3, 4)
    ]
    with engine(path, **OPTIONS | options) as llm:
        outputs = llm.generate(token_prompts([[5, 9, 17], [30] * 40]), sampling, use_tqdm=False)
    completions = [output.outputs[0] for output in outputs]
    return [np.column_stack([completion.token_ids, table(completion)]) for completion in completions]


def same(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return all(np.array_equal(first, second) for first, second in zip(one, other, strict=True))


def test_without_a_conversion_the_numbers_are_the_same(
    tiny_llama_path: Path, make_tfb: Callable[..., Path], computed: list[torch.Tensor]
) -> None:
    plain = answers(tiny_llama_path, hf_overrides=tfb(**NOISE, rank=5, bayes_noise="left"))
    layers = json.loads((tiny_llama_path / "config.json").read_text())["num_hidden_layers"]
    assert len(computed) == 2 * layers
    assert same(plain, answers(make_tfb(tiny_llama_path, "left", 5), hf_overrides=NOISE))
    assert min(numbers[:, 3].min() for numbers in plain) > 0  # the noise is felt
    computed.clear()
    as_json = json.dumps({"bayes_noise": "left", "basis_idx": list(range(5)), **NOISE})
    overrides = json.loads(as_json) | {"architectures": ["VllmTFBLLamaForCausalLM"]}
    assert same(plain, answers(tiny_llama_path, hf_overrides=overrides))
    assert computed == []  # they were in the cache


def test_without_noisy_samples_nothing_is_computed(tiny_llama_path: Path, computed: list[torch.Tensor]) -> None:
    (first, _) = answers(tiny_llama_path, hf_overrides=tfb(num_samples=1))
    assert computed == []
    np.testing.assert_array_equal(first[:, 3], 0.0)  # EU


def test_a_rank_that_a_weight_has_not_is_named(tiny_llama_path: Path) -> None:
    with pytest.raises(ValueError, match=r"v_proj.weight: rank 65 exceeds the smaller side .*; choose a smaller rank"):
        answers(tiny_llama_path, hf_overrides=tfb(rank=65))
