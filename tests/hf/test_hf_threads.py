"""One model of transformers in several threads: each call has the numbers that it has alone."""

import copy
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, MistralConfig, StoppingCriteria

from bayesian_transformer import BayesianForCausalLMModel
from bayesian_transformer.scoring import score
from bayesian_transformer.vllm_models.tfb_llama import TFBLlamaForCausalLM
from tests.hf.test_hf_wrapper import TINY, tiny_model

THREADS, CALLS, TOKENS = 4, 24, 8


def tfb(path: Path, num_samples: int) -> Any:
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, num_samples=num_samples)


def wrapped(_: Path, num_samples: int) -> Any:
    lm = tiny_model(MistralConfig(**TINY, sliding_window=None))
    return BayesianForCausalLMModel.wrap(lm, rank=3, num_samples=num_samples, bayes_sigma=0.3)


def prompt(call: int) -> torch.Tensor:
    return torch.randint(3, 60, (1, 4 + call % 5), generator=torch.Generator().manual_seed(call))


def uncertain(model: Any, call: int, **options: Any) -> torch.Tensor:
    settings = {"max_new_tokens": TOKENS, "do_sample": False, "eos_token_id": None} | options
    output = model.generate(prompt(call), output_uncertainties=True, noise_seed=call, **settings)
    return torch.column_stack([output.sequences[0, -TOKENS:], output.uncertainties.stack()[0]])


def plain(model: Any, call: int) -> torch.Tensor:
    return model.generate(prompt(call), max_new_tokens=TOKENS, do_sample=False, eos_token_id=None)


def scored(model: Any, call: int) -> torch.Tensor:
    return score(model, prompt(call)[0].tolist(), [5, 6, 7, 8], seed=call).stack()


# https://github.com/xorbitsai/inference/issues/54
@pytest.mark.parametrize("num_samples", [1, 4])
@pytest.mark.parametrize("make", [tfb, wrapped])
def test_threads_have_the_numbers_of_calls_alone(
    tiny_llama_tfb_path: Path, make: Callable[..., Any], num_samples: int
) -> None:
    """With uncertainties, without, and scoring, all at once; the model is as it was afterwards."""
    model = make(tiny_llama_tfb_path, num_samples)
    work = [(uncertain, plain, uncertain, scored)[call % 4] for call in range(CALLS)]
    alone = [function(model, call) for call, function in enumerate(work)]
    barrier = threading.Barrier(THREADS)

    def together(call: int) -> torch.Tensor:
        barrier.wait(60)
        return work[call](model, call)

    with ThreadPoolExecutor(THREADS) as threads:
        results = list(threads.map(together, range(CALLS)))
    assert all(torch.equal(result, expected) for result, expected in zip(results, alone, strict=True))
    lm = model.causal_lm
    assert "_get_stopping_criteria" not in vars(lm)
    assert not any(module._forward_hooks for module in model.modules())


def test_a_call_within_a_call(tiny_llama_tfb_path: Path) -> None:
    """As from a stopping criterion that asks the same model something: neither disturbs the other."""
    model = tfb(tiny_llama_tfb_path, 3)
    expected, other = uncertain(model, 1), uncertain(model, 2)
    inner: list[torch.Tensor] = []

    class Asking(StoppingCriteria):
        def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
            inner.append(uncertain(model, 2))
            plain(model, 3)
            return torch.zeros(len(input_ids), dtype=torch.bool)

    assert torch.equal(uncertain(model, 1, stopping_criteria=[Asking()]), expected)
    assert len(inner) == TOKENS
    assert all(torch.equal(table, other) for table in inner)


class FreshCaches(TFBLlamaForCausalLM):
    """A model that returns a new cache object at each step, as code from elsewhere may."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output = super().forward(*args, **kwargs)
        output.past_key_values = copy.copy(output.past_key_values)
        return output


def test_a_model_that_returns_another_cache_object_each_time(tiny_llama_tfb_path: Path) -> None:
    expected = uncertain(tfb(tiny_llama_tfb_path, 3), 1)
    model = FreshCaches.from_pretrained(tiny_llama_tfb_path, dtype=torch.float32, num_samples=3)
    torch.testing.assert_close(uncertain(model, 1), expected, rtol=1e-4, atol=1e-5)


def test_criteria_that_a_user_has_put_on_a_model_stay(tiny_llama_tfb_path: Path) -> None:
    model = tfb(tiny_llama_tfb_path, 3)
    stock, asked = model._get_stopping_criteria, []

    def own(*args: Any, **kwargs: Any) -> Any:
        asked.append(1)
        return stock(*args, **kwargs)

    model._get_stopping_criteria = own
    uncertain(model, 1)
    assert model._get_stopping_criteria is own
    assert asked == [1]
