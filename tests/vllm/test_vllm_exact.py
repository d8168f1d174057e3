"""The engine's numbers: equal to stock vLLM without noise, and to plain transformers with it."""

import functools
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from bayesian_transformer.noise import noise_key
from bayesian_transformer.uncertainty import FIELDS
from tests.helpers.reference import reference_uncertainties
from tests.helpers.vllm_engines import engine, load_basis, table, token_prompts

vllm = pytest.importorskip("vllm")
pytestmark = pytest.mark.engine
logger = logging.getLogger(__name__)

SIGMA, NUM_SAMPLES = 0.1, 5
KERNELS = ["auto", "plain"]  # TOKUR_KERNELS: all must hold with our kernels and without them
EPISTEMIC, REWARD = FIELDS.index("epistemic"), FIELDS.index("implicit_reward")


def prompts_of(tokenizer: Any, count: int) -> list[list[int]]:
    questions = [f"What is {3 * i + 7} + {5 * i + 2}? Explain how you get there." for i in range(count)]
    messages = [[{"role": "user", "content": question}] for question in questions]
    return [tokenizer.apply_chat_template(m, add_generation_prompt=True, return_dict=False) for m in messages]


def test_without_noise_tokens_equal_stock_vllm(
    smollm2_path: Path, smollm2_tfb_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """16 prompts x 100 tokens; the stock engine runs in the same process and is left alone by the plugin."""
    greedy = vllm.SamplingParams(temperature=0, max_tokens=100, ignore_eos=True)
    with engine(smollm2_path) as stock:
        prompts = token_prompts(prompts_of(stock.get_tokenizer(), 16))
        expected = [output.outputs[0] for output in stock.generate(prompts, greedy, use_tqdm=False)]
    assert not any(hasattr(completion, "uncertainties") for completion in expected)
    for kernels in KERNELS:
        monkeypatch.setenv("TOKUR_KERNELS", kernels)
        with engine(smollm2_tfb_path, hf_overrides={"bayes_sigma": 0.0, "num_samples": NUM_SAMPLES}) as ours:
            outputs = [output.outputs[0] for output in ours.generate(prompts, greedy, use_tqdm=False)]
        assert all(completion.sampling_mask is None for completion in expected + outputs)
        assert [list(c.token_ids) for c in outputs] == [list(c.token_ids) for c in expected]
        numbers = np.concatenate([table(completion) for completion in outputs])
        assert numbers.shape == (1600, len(FIELDS))
        assert np.abs(numbers[:, [EPISTEMIC, REWARD]]).max() < 1e-5


class Case(NamedTuple):
    """A TFB checkpoint, the base checkpoint it came from, and how many repeats an independent mean affords."""

    base: Path
    tfb: Path
    kind: str
    repeats: int

    def reference_model(self) -> tuple[Any, dict[str, torch.Tensor]]:
        """The base model in plain transformers, and the basis vectors by name: nothing of ours computes."""
        model = AutoModelForCausalLM.from_pretrained(self.base, dtype=torch.float32).eval()
        return model, load_basis(self.tfb)


@pytest.fixture(scope="module", params=["smollm2 right", "smollm2 left", "qwen2 right", "qwen2 left"])
def case(request: pytest.FixtureRequest, make_tfb: Any) -> Case:
    """SmolLM2-135M, and a small random Qwen2 with biases."""
    family, kind = request.param.split()
    base = request.getfixturevalue("smollm2_path" if family == "smollm2" else "tiny_qwen2_path")
    return Case(base, make_tfb(base, kind), kind, 64 if family == "smollm2" else 256)


@pytest.fixture(scope="module", params=KERNELS)
def noisy_engine(case: Case, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    overrides = {"bayes_sigma": SIGMA, "num_samples": NUM_SAMPLES}
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TOKUR_KERNELS", request.param)
        cache = tmp_path_factory.mktemp("cache")
        if request.param == "plain":  # and a cache where a library would be seen
            environment.setenv("TOKUR_CACHE", str(cache))
        with engine(case.tfb, hf_overrides=overrides, max_num_seqs=64) as llm:
            yield llm
    assert not list(cache.rglob("cpu_kernels_*"))


def test_every_number_equals_the_brute_force_reference(noisy_engine: Any, case: Case) -> None:
    """Same seeds, so this is equality: all eight quantities of every token, the first one included."""
    prompts = [*prompts_of(noisy_engine.get_tokenizer(), 2), [17]]
    seeds = [3, -(2**40) - 1, 2**63 + 5]
    parameters = [vllm.SamplingParams(temperature=0, max_tokens=6, seed=seed) for seed in seeds]
    outputs = noisy_engine.generate(token_prompts(prompts), parameters, use_tqdm=False)
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


def test_means_over_seeds_agree_with_independent_noise(noisy_engine: Any, case: Case) -> None:
    """Mean EU and BIR over 256 seeds against a plain computation that draws its noise from torch's own generator."""
    seeds, positions = 256, 3
    prompt = prompts_of(noisy_engine.get_tokenizer(), 1)[0]
    parameters = [vllm.SamplingParams(temperature=0, max_tokens=positions, seed=seed) for seed in range(seeds)]
    outputs = noisy_engine.generate(token_prompts([prompt] * seeds), parameters, use_tqdm=False)
    tokens = list(outputs[0].outputs[0].token_ids)
    assert all(list(output.outputs[0].token_ids) == tokens for output in outputs)
    ours = np.stack([table(output.outputs[0]) for output in outputs])[:, :, [EPISTEMIC, REWARD]]
    theirs = independent_numbers(case, tuple(prompt), tuple(tokens))
    standard_error = np.sqrt(ours.var(0, ddof=1) / seeds + theirs.var(0, ddof=1) / case.repeats)
    deviation = (ours.mean(0) - theirs.mean(0)) / standard_error
    logger.info("%s %s: deviations %s standard errors", case.tfb.name, case.kind, np.round(deviation, 2).tolist())
    assert np.abs(deviation).max() < 3.0


@functools.cache
@torch.no_grad()
def independent_numbers(case: Case, prompt: tuple[int, ...], tokens: tuple[int, ...]) -> np.ndarray:
    """EU and BIR [repeats, tokens, 2], from the definitions: W' = W + basis E^T or W + E basis^T with explicit E."""
    model, basis = case.reference_model()
    generator = torch.Generator().manual_seed(1)
    names = [n for n, _ in model.named_parameters() if n.endswith(("q_proj.weight", "v_proj.weight"))]
    weights = {name: model.get_parameter(name).clone() for name in names}
    text, result = [*prompt, *tokens], np.empty((case.repeats, len(tokens), 2))
    for step in range(len(tokens)):
        end = len(prompt) + step
        for name in names:
            model.get_parameter(name).data = weights[name]
        cache = model(torch.tensor([text[: end - 1]])).past_key_values
        last = torch.tensor([text[end - 1 : end]])
        for repeat in range(case.repeats):
            rows = []
            for sample in range(NUM_SAMPLES):
                for name in names:
                    vectors, weight = basis[name.replace("weight", "basis_vectors")], weights[name]
                    if sample:
                        width = weight.shape[1] if case.kind == "right" else weight.shape[0]
                        noise = SIGMA * torch.randn(width, vectors.shape[1], generator=generator)
                        weight = weight + (vectors @ noise.T if case.kind == "right" else noise @ vectors.T)
                    model.get_parameter(name).data = weight
                rows.append(model(last, past_key_values=cache).logits[0, -1].double())
                cache.crop(-1)
            p = torch.stack(rows).softmax(-1)
            entropy = lambda q: -torch.xlogy(q, q).sum(-1)  # noqa: E731
            chosen = p[:, tokens[step]]
            result[repeat, step, 0] = entropy(p.mean(0)) - entropy(p).mean()
            result[repeat, step, 1] = chosen.mean().log() - chosen.log().mean()
    return result
