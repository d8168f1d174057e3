"""Data-parallel replicas of a dense model: the numbers of one engine for a seed, and noise of their own without one."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bayesian_transformer.uncertainty import FIELDS
from tests.helpers.vllm_engines import engine, table, token_prompts

pytest.importorskip("vllm")
from vllm import AsyncEngineArgs, SamplingParams
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM

pytestmark = pytest.mark.engine
REPLICAS = 2
PROMPTS = token_prompts([[5, 6, 7], list(range(3, 40)), [9, 8, 7, 6]])
OPTIONS: dict[str, Any] = {"skip_tokenizer_init": True, "hf_overrides": {"num_samples": 3, "bayes_sigma": 0.2}}
NOISY = [FIELDS.index(name) for name in ("epistemic", "implicit_reward")]


def parameters(seed: int | None) -> SamplingParams:
    return SamplingParams(
        temperature=0, max_tokens=6, seed=seed, detokenize=False, output_kind=RequestOutputKind.FINAL_ONLY
    )


async def on_replicas(path: Path, seeds: list[int | None]) -> list[list[np.ndarray]]:
    """The tables of all prompts on each replica, one request at a time."""
    arguments = AsyncEngineArgs(
        model=str(path),
        data_parallel_size=REPLICAS,
        dtype="float32",
        enforce_eager=True,
        max_model_len=128,
        kv_cache_memory_bytes=1 << 26,
        **OPTIONS,
    )
    llm = AsyncLLM.from_engine_args(arguments)
    try:
        return [[await last(llm, number, seed, rank) for number, seed in enumerate(seeds)] for rank in range(REPLICAS)]
    finally:
        llm.shutdown()


async def last(llm: AsyncLLM, number: int, seed: int | None, rank: int) -> np.ndarray:
    """The table of a request that one replica serves while the other one is idle."""
    requests = llm.generate(PROMPTS[number], parameters(seed), f"{number} on {rank}", data_parallel_rank=rank)
    async for output in requests:
        result = output
    return table(result.outputs[0])


def test_two_replicas(tiny_llama_tfb_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    seeds: list[int | None] = [None, 7, -3]
    with engine(tiny_llama_tfb_path, in_process=True, **OPTIONS) as llm:
        outputs = llm.generate(PROMPTS, [parameters(seed) for seed in seeds], use_tqdm=False)
        alone = [table(output.outputs[0]) for output in outputs]
        llm.collective_rpc("execute_dummy_batch")  # what an idle rank of a lockstep group runs
        again = llm.generate(PROMPTS[1], parameters(seeds[1]), use_tqdm=False)[0].outputs[0]
        np.testing.assert_allclose(table(again), alone[1], rtol=1e-4, atol=2e-6)
    first, second = asyncio.run(on_replicas(tiny_llama_tfb_path, seeds))
    for replica in (first, second):
        for got, expected in zip(replica[1:], alone[1:], strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-4, atol=2e-6)
    np.testing.assert_allclose(first[0], alone[0], rtol=1e-4, atol=2e-6)
    assert (np.abs(second[0] - first[0])[:, NOISY] > 1e-5).all()
    noise_free = [FIELDS.index(name) for name in ("logprob", "entropy", "self_certainty", "confidence")]
    np.testing.assert_allclose(second[0][:, noise_free], first[0][:, noise_free], rtol=1e-4, atol=2e-6)
