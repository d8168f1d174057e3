"""One request seed, one set of numbers: whatever vLLM does with the request, and however its output is read."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from bayesian_transformer.uncertainty import FIELDS, token_uncertainty
from tests.helpers.reference import reference_logits
from tests.helpers.vllm_engines import engine, load_basis, table, token_prompts

vllm = pytest.importorskip("vllm")
pytestmark = pytest.mark.engine

NUM_SAMPLES, TOKENS = 4, 40
OVERRIDES = {"num_samples": NUM_SAMPLES, "bayes_sigma": 0.3}
logger = logging.getLogger(__name__)
OPTIONS: dict[str, Any] = {"hf_overrides": OVERRIDES, "block_size": 32, "disable_log_stats": False}
ENTROPY, LOGPROB = FIELDS.index("entropy"), FIELDS.index("logprob")


def prompt(i: int, length: int = 70) -> list[int]:
    return np.random.default_rng(i).integers(100, 40_000, length).tolist()


def parameters(i: int, **changes: Any) -> Any:
    return vllm.SamplingParams(**{"temperature": 0, "max_tokens": TOKENS, "ignore_eos": True, "seed": i} | changes)


def run(llm: Any, numbers: list[int]) -> dict[int, np.ndarray]:
    """Tokens and uncertainties [tokens, 1 + 8] of the numbered requests, all in one batch."""
    outputs = llm.generate(
        token_prompts([prompt(i) for i in numbers]), [parameters(i) for i in numbers], use_tqdm=False
    )
    return {i: with_tokens(output.outputs[0]) for i, output in zip(numbers, outputs, strict=True)}


def with_tokens(completion: Any) -> np.ndarray:
    return np.column_stack([list(completion.token_ids), table(completion)])


def assert_same(numbers: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_array_equal(numbers[:, 0], expected[:, 0])
    np.testing.assert_allclose(numbers, expected, rtol=1e-3, atol=2e-5)


def preemptions(llm: Any) -> int:
    return next(int(metric.value) for metric in llm.get_metrics() if metric.name == "vllm:num_preemptions")


@pytest.fixture(scope="module")
def llm(tiny_llama_tfb_path: Path) -> Iterator[Any]:
    with engine(tiny_llama_tfb_path, **OPTIONS) as llm:
        yield llm


@pytest.fixture(scope="module")
def alone(llm: Any) -> dict[int, np.ndarray]:
    """Each of 16 requests by itself."""
    return {i: run(llm, [i])[i] for i in range(16)}


def test_in_a_batch_in_another_order(llm: Any, alone: dict[int, np.ndarray]) -> None:
    llm.reset_prefix_cache()
    for i, numbers in run(llm, [*range(15, -1, -1)]).items():
        assert_same(numbers, alone[i])


def test_with_a_prefix_cache_hit(llm: Any, alone: dict[int, np.ndarray]) -> None:
    llm.generate(token_prompts([prompt(3)]), parameters(99), use_tqdm=False)
    (output,) = llm.generate(token_prompts([prompt(3)]), parameters(3), use_tqdm=False)
    assert output.num_cached_tokens == 64
    assert_same(with_tokens(output.outputs[0]), alone[3])


def test_with_small_prefill_chunks_and_through_preemption(
    tiny_llama_tfb_path: Path, alone: dict[int, np.ndarray]
) -> None:
    small = {"max_num_batched_tokens": 32, "num_gpu_blocks_override": 24, "enable_prefix_caching": False}
    with engine(tiny_llama_tfb_path, in_process=True, **OPTIONS | small) as llm:
        assert_same(run(llm, [5])[5], alone[5])  # 70 prompt tokens in three chunks
        assert preemptions(llm) == 0
        results = run(llm, [*range(16)])  # 16 requests of 110 tokens want 64 blocks
        assert preemptions(llm) > 0
        for i, numbers in results.items():
            assert_same(numbers, alone[i])
        # Seeded sampling with a prompt in chunks, which stock vLLM cannot do on CPU.
        sampled = parameters(1, temperature=1.0, n=2)
        outputs = [llm.generate(token_prompts([prompt(1)]), sampled, use_tqdm=False)[0].outputs for _ in range(2)]
        for first, again in zip(*outputs, strict=True):
            assert_same(with_tokens(again), with_tokens(first))


def test_compiled(tiny_llama_tfb_path: Path, alone: dict[int, np.ndarray]) -> None:
    # A full prefill step then has more rows than the scheduler may give tokens.
    options = {"enforce_eager": False, "max_num_batched_tokens": 64}
    with engine(tiny_llama_tfb_path, **OPTIONS | options) as llm:
        for i, numbers in run(llm, [*range(16)]).items():
            assert_same(numbers, alone[i])


def test_without_the_compiled_kernels(tiny_llama_tfb_path: Path, alone: dict[int, np.ndarray]) -> None:
    """Fast paths beside plain ones, in max and mean difference; not equal to the last bit, so both did run."""
    with engine(tiny_llama_tfb_path, in_process=True, kernel_mode="plain", **OPTIONS) as llm:
        results = run(llm, [*range(16)])
    differences = [np.abs(results[i] - alone[i])[:, 1:] for i in results]
    for i, numbers in results.items():
        assert_same(numbers, alone[i])
    largest, mean = np.max(differences), np.mean(differences)
    logger.info("compiled kernels on and off: largest difference %.1e nats, mean %.1e", largest, mean)
    assert 0 < mean < 5e-6


def test_other_seeds_and_no_seeds_draw_other_noise(llm: Any, alone: dict[int, np.ndarray]) -> None:
    requests = [parameters(1000), parameters(0, seed=None), parameters(0, seed=None)]
    outputs = llm.generate(token_prompts([prompt(0)] * 3), requests, use_tqdm=False)
    totals = [table(output.outputs[0])[:, 0] for output in outputs] + [alone[0][:, 1]]
    for i in range(4):
        for j in range(i):
            assert np.abs(totals[i] - totals[j]).max() > 1e-4


def test_several_children_have_consecutive_seeds(llm: Any) -> None:
    (output,) = llm.generate(token_prompts([prompt(7)]), parameters(7, n=3, temperature=1.0), use_tqdm=False)
    assert len({tuple(child.token_ids) for child in output.outputs}) == 3
    for child in output.outputs:
        single = parameters(7 + child.index, temperature=1.0)
        (again,) = llm.generate(token_prompts([prompt(7)]), single, use_tqdm=False)
        assert_same(with_tokens(child), with_tokens(again.outputs[0]))


def test_stop_strings_trim_both(llm: Any, alone: dict[int, np.ndarray]) -> None:
    tokens = alone[2][:, 0].astype(int).tolist()
    stop = llm.get_tokenizer().decode(tokens[10:12])
    for include in (False, True):
        request = parameters(2, stop=[stop], include_stop_str_in_output=include)
        completion = llm.generate(token_prompts([prompt(2)]), request, use_tqdm=False)[0].outputs[0]
        assert completion.finish_reason == "stop"
        assert len(completion.token_ids) < TOKENS
        assert_same(with_tokens(completion), alone[2][: len(completion.token_ids)])


def test_logprobs_agree_with_vllms_own(llm: Any, alone: dict[int, np.ndarray]) -> None:
    request = parameters(4, logprobs=3, prompt_logprobs=2)
    completion = llm.generate(token_prompts([prompt(4)]), request, use_tqdm=False)[0].outputs[0]
    assert_same(with_tokens(completion), alone[4])
    stock = [entry[token].logprob for entry, token in zip(completion.logprobs, completion.token_ids, strict=True)]
    np.testing.assert_allclose(table(completion)[:, LOGPROB], stock, atol=1e-4)
    texts = [entry[token].decoded_token for entry, token in zip(completion.logprobs, completion.token_ids, strict=True)]
    assert [next(iter(entry.values())).decoded_token for entry in completion.uncertainties] == texts


def test_uncertainties_are_of_the_raw_logits(llm: Any, alone: dict[int, np.ndarray]) -> None:
    chosen = int(alone[6][0, 0])
    request = parameters(6, logit_bias={chosen: -100.0}, repetition_penalty=1.3)
    completion = llm.generate(token_prompts([prompt(6)]), request, use_tqdm=False)[0].outputs[0]
    assert completion.token_ids[0] != chosen
    np.testing.assert_allclose(table(completion)[0, ENTROPY], alone[6][0, 1 + ENTROPY], atol=1e-5)


def test_without_detokenisation(llm: Any, alone: dict[int, np.ndarray]) -> None:
    output = llm.generate(token_prompts([prompt(8)]), parameters(8, detokenize=False), use_tqdm=False)[0]
    assert_same(with_tokens(output.outputs[0]), alone[8])
    assert {next(iter(entry.values())).decoded_token for entry in output.outputs[0].uncertainties} == {None}


@pytest.mark.parametrize("kind", ["DELTA", "CUMULATIVE"])
def test_streamed(llm: Any, alone: dict[int, np.ndarray], kind: str) -> None:
    from vllm.sampling_params import RequestOutputKind

    request = parameters(9, output_kind=RequestOutputKind[kind])
    llm.llm_engine.add_request(f"stream-{kind}", token_prompts([prompt(9)])[0], request)
    pieces = []
    while llm.llm_engine.has_unfinished_requests():
        pieces += [with_tokens(output.outputs[0]) for output in llm.llm_engine.step()]
    assert len(pieces) > TOKENS // 2
    assert_same(np.concatenate(pieces) if kind == "DELTA" else pieces[-1], alone[9])


def test_merging_deltas_for_a_slow_consumer(llm: Any) -> None:
    from vllm.sampling_params import RequestOutputKind

    request = parameters(10, n=2, temperature=1.0)
    (expected,) = llm.generate(token_prompts([prompt(10)]), request, use_tqdm=False)
    request.output_kind = RequestOutputKind.DELTA
    llm.llm_engine.add_request("slow", token_prompts([prompt(10)])[0], request)
    merged: Any = None
    while llm.llm_engine.has_unfinished_requests():
        for output in llm.llm_engine.step():
            if merged is None:
                merged = output
            else:
                merged.add(output, aggregate=True)
    for completion in merged.outputs:
        assert_same(with_tokens(completion), with_tokens(expected.outputs[completion.index]))


@pytest.mark.xdist_group("mixture")
def test_generation_from_the_mixture(tiny_llama_tfb_path: Path, tiny_llama_path: Path) -> None:
    """use_tfb_for_generation takes the mode of mean_s p_s, which is not always that of p_0."""
    tokens, sigma = 30, 2.0
    overrides = OVERRIDES | {"use_tfb_for_generation": True, "bayes_sigma": sigma}
    with engine(tiny_llama_tfb_path, in_process=True, **OPTIONS | {"hf_overrides": overrides}) as llm:
        request = parameters(11, max_tokens=tokens)
        completion = llm.generate(token_prompts([prompt(11)]), request, use_tqdm=False)[0].outputs[0]
    model = LlamaForCausalLM.from_pretrained(tiny_llama_path).eval()
    basis = load_basis(tiny_llama_tfb_path)
    logits = reference_logits(model, prompt(11), completion.token_ids, 11, sigma, NUM_SAMPLES, "right", basis)
    mixture = logits.double().softmax(-1).mean(0)
    assert mixture.argmax(-1).tolist() == list(completion.token_ids)
    assert logits[0].argmax(-1).tolist() != list(completion.token_ids)
    expected = token_uncertainty(logits, torch.tensor(completion.token_ids)).stack()
    np.testing.assert_allclose(table(completion), expected.numpy(), rtol=1e-3, atol=2e-5)


@pytest.mark.xdist_group("mixture")
@pytest.mark.parametrize("num_samples", [1, 6])
def test_one_forward_per_step(tiny_llama_tfb_path: Path, num_samples: int) -> None:
    """Every weight matrix is used once per step, by all rows together."""
    script = Path(__file__).parents[1] / "helpers" / "count_matmuls.py"
    environment = os.environ | {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    command = [sys.executable, str(script), str(tiny_llama_tfb_path), str(num_samples)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr[-2000:]
    calls = json.loads(result.stdout.strip().splitlines()[-1])
    steps, requests, prompt_length = 5, 3, 8
    rows = [requests * (prompt_length + num_samples - 1)] + [requests * num_samples] * (steps - 1)
    for name in ("qkv_proj", "o_proj", "gate_up_proj", "down_proj"):
        assert calls[name] == rows, name
    assert calls["lm_head"] == [requests * num_samples] * steps
