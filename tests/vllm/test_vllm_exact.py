"""The engine's numbers: equal to stock vLLM without noise, and to plain transformers with it."""

import copy
import functools
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bayesian_transformer.noise import noise_key
from bayesian_transformer.uncertainty import FIELDS
from tests.helpers.noisy_engines import KERNELS, NUM_SAMPLES, SIGMA, Case, NoisyEngine
from tests.helpers.reference import reference_uncertainties
from tests.helpers.vllm_engines import engine, table, token_prompts

vllm = pytest.importorskip("vllm")
pytestmark = pytest.mark.engine
logger = logging.getLogger(__name__)

NOISY_CASES = [
    f"{family} {kind} {kernels}" for family in ("smollm2", "qwen2") for kind in ("right", "left") for kernels in KERNELS
]
EPISTEMIC, REWARD = FIELDS.index("epistemic"), FIELDS.index("implicit_reward")


def prompts_of(tokenizer: Any, count: int) -> list[list[int]]:
    questions = [f"What is {3 * i + 7} + {5 * i + 2}? Explain how you get there." for i in range(count)]
    messages = [[{"role": "user", "content": question}] for question in questions]
    return [tokenizer.apply_chat_template(m, add_generation_prompt=True, return_dict=False) for m in messages]


@pytest.mark.xdist_group("stock")
def test_without_noise_tokens_equal_stock_vllm(smollm2_path: Path, smollm2_tfb_path: Path) -> None:
    """16 prompts x 100 tokens; the stock engine runs in the same process and is left alone by the plugin."""
    greedy = vllm.SamplingParams(temperature=0, max_tokens=100, ignore_eos=True)
    with engine(smollm2_path, in_process=True) as stock:
        prompts = token_prompts(prompts_of(stock.get_tokenizer(), 16))
        expected = [output.outputs[0] for output in stock.generate(prompts, greedy, use_tqdm=False)]
    assert not any(hasattr(completion, "uncertainties") for completion in expected)
    silent = {"bayes_sigma": 0.0, "num_samples": NUM_SAMPLES}
    for kernels in KERNELS:
        with engine(smollm2_tfb_path, in_process=True, kernel_mode=kernels, hf_overrides=silent) as ours:
            outputs = [output.outputs[0] for output in ours.generate(prompts, greedy, use_tqdm=False)]
        assert all(completion.sampling_mask is None for completion in expected + outputs)
        assert [list(c.token_ids) for c in outputs] == [list(c.token_ids) for c in expected]
        numbers = np.concatenate([table(completion) for completion in outputs])
        assert numbers.shape == (1600, len(FIELDS))
        assert np.abs(numbers[:, [EPISTEMIC, REWARD]]).max() < 1e-5


def test_every_number_equals_the_brute_force_reference(noisy: NoisyEngine) -> None:
    """Same seeds, so this is equality: all eight quantities of every token, the first one included."""
    prompts = [*prompts_of(noisy.llm.get_tokenizer(), 2), [17]]
    seeds = [3, -(2**40) - 1, 2**63 + 5]
    parameters = [vllm.SamplingParams(temperature=0, max_tokens=6, seed=seed) for seed in seeds]
    outputs = noisy.llm.generate(token_prompts(prompts), parameters, use_tqdm=False)
    case = noisy.case
    model, basis = case.reference_model()
    worst = 0.0
    for prompt, seed, output in zip(prompts, seeds, outputs, strict=True):
        numbers = table(output.outputs[0])
        tokens = output.outputs[0].token_ids
        expected = reference_uncertainties(model, prompt, tokens, noise_key(seed), SIGMA, NUM_SAMPLES, case.kind, basis)
        wanted = np.stack([expected[name] for name in FIELDS], axis=1)
        worst = max(worst, float(np.abs(numbers - wanted).max()))
        np.testing.assert_allclose(numbers, wanted, rtol=1e-3, atol=1e-5)
        assert numbers[:, EPISTEMIC].min() > 0
    logger.info("%s %s: largest difference %.1e nats", case.tfb.name, case.kind, worst)


def test_means_over_seeds_agree_with_independent_noise(noisy: NoisyEngine) -> None:
    """Mean EU and BIR over 256 seeds against a plain computation that draws its noise from torch's own generator."""
    case, seeds, positions = noisy.case, 256, 3
    prompt = prompts_of(noisy.llm.get_tokenizer(), 1)[0]
    parameters = [vllm.SamplingParams(temperature=0, max_tokens=positions, seed=seed) for seed in range(seeds)]
    outputs = noisy.llm.generate(token_prompts([prompt] * seeds), parameters, use_tqdm=False)
    tokens = list(outputs[0].outputs[0].token_ids)
    assert all(list(output.outputs[0].token_ids) == tokens for output in outputs)
    ours = np.stack([table(output.outputs[0]) for output in outputs])[:, :, [EPISTEMIC, REWARD]]
    theirs = independent_numbers(case, tuple(prompt), tuple(tokens))
    standard_error = np.sqrt(ours.var(0, ddof=1) / seeds + theirs.var(0, ddof=1) / case.repeats)
    deviation = (ours.mean(0) - theirs.mean(0)) / standard_error
    logger.info("%s %s: deviations %s standard errors", case.tfb.name, case.kind, np.round(deviation, 2).tolist())
    assert np.abs(deviation).max() < 3.0


class NoisyRows(torch.nn.Module):
    """A projection with a weight W' of its own for each row of the batch, made when it is needed."""

    def __init__(self, projection: Any, basis: torch.Tensor, noise: torch.Tensor, kind: str) -> None:
        """`noise` E is [rows, in, rank] for right and [rows, out, rank] for left."""
        super().__init__()
        self.projection, self.basis, self.noise, self.kind = projection, basis, noise, kind

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        basis = self.basis.expand(len(self.noise), -1, -1)
        left, right = (basis, self.noise) if self.kind == "right" else (self.noise, basis)
        weights = torch.baddbmm(self.projection.weight, left, right.mT)
        bias = self.projection.bias
        return x @ weights.mT + (0 if bias is None else bias)


@functools.cache
@torch.no_grad()
def independent_numbers(case: Case, prompt: tuple[int, ...], tokens: tuple[int, ...]) -> np.ndarray:
    """EU and BIR [repeats, tokens, 2], from the definitions: W' = W + basis E^T or W + E basis^T with explicit E.

    The rows of a batch are the weight samples of some repeats, each with weights W' of its own.
    """
    model, basis = case.reference_model()
    generator = torch.Generator().manual_seed(1)
    names = [name for name, _ in model.named_modules() if name.endswith(("q_proj", "v_proj"))]
    projections = {name: model.get_submodule(name) for name in names}
    text, together, result = [*prompt, *tokens], 8, np.empty((case.repeats, len(tokens), 2))
    for step in range(len(tokens)):
        end = len(prompt) + step
        for name, projection in projections.items():
            model.set_submodule(name, projection)
        prefix = model(torch.tensor([text[: end - 1]])).past_key_values
        last = torch.tensor([text[end - 1 : end]]).expand(together * NUM_SAMPLES, 1)
        for repeat in range(0, case.repeats, together):
            for name, projection in projections.items():
                width = projection.weight.shape[1] if case.kind == "right" else projection.weight.shape[0]
                vectors = basis[f"{name}.basis_vectors"]
                noise = SIGMA * torch.randn(together, NUM_SAMPLES, width, vectors.shape[1], generator=generator)
                noise[:, 0] = 0  # the first sample is noise-free
                model.set_submodule(name, NoisyRows(projection, vectors, noise.flatten(0, 1), case.kind))
            cache = copy.deepcopy(prefix)
            cache.batch_repeat_interleave(together * NUM_SAMPLES)
            logits = model(last, past_key_values=cache).logits[:, -1].double()
            p = logits.softmax(-1).unflatten(0, (together, NUM_SAMPLES))
            entropy = lambda q: -torch.xlogy(q, q).sum(-1)  # noqa: E731
            chosen = p[..., tokens[step]]
            result[repeat : repeat + together, step, 0] = entropy(p.mean(1)) - entropy(p).mean(1)
            result[repeat : repeat + together, step, 1] = chosen.mean(1).log() - chosen.log().mean(1)
    return result
