"""Requests that a server meets sooner or later: an id that comes again, a token that no tokenizer knows."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.helpers.vllm_engines import engine, table, token_prompts
from tests.helpers.word_tokenizer import word_tokenizer

vllm = pytest.importorskip("vllm")

pytestmark = pytest.mark.engine
OVERRIDES = {"bayes_sigma": 0.3, "num_samples": 4}
PIECES, VOCABULARY, PADDED_ID = 2000, 2048, 2007
OPTIONS: dict[str, Any] = {"max_num_seqs": 4, "hf_overrides": OVERRIDES}


@pytest.fixture(scope="module")
def padded(tmp_path_factory: pytest.TempPathFactory, make_tfb: Callable[..., Path]) -> Path:
    """A model with a vocabulary of 2,048 and a SentencePiece tokenizer of 2,000 pieces."""
    path = tmp_path_factory.mktemp("padded") / "Padded-Llama"
    torch.manual_seed(2)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, initializer_range=0.1, dtype="float32",
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(path)
    word_tokenizer(PIECES).save_pretrained(path)
    return make_tfb(path)


@pytest.fixture(scope="module")
def llm(padded: Path) -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as environment, engine(padded, in_process=True, **OPTIONS) as llm:
        environment.setenv("VLLM_DISABLE_REQUEST_ID_RANDOMIZATION", "1")  # read where a request arrives
        yield llm


def parameters(**changes: Any) -> Any:
    return vllm.SamplingParams(**{"temperature": 0, "max_tokens": 6, "ignore_eos": True, "seed": 1} | changes)


# https://github.com/vllm-project/vllm/issues/13175
def test_a_token_that_the_tokenizer_does_not_know(llm: Any) -> None:
    """Stock vLLM returns it, and so do we: with its numbers and without a text."""
    request = parameters(logit_bias={PADDED_ID: 100}, max_tokens=3)
    (unknown,) = llm.generate(token_prompts([[5, 6]]), request, use_tqdm=False)[0].outputs
    assert list(unknown.token_ids) == [PADDED_ID] * 3
    assert np.isfinite(table(unknown)).all()
    assert [entry[PADDED_ID].decoded_token for entry in unknown.uncertainties] == [None] * 3
    known = llm.generate(token_prompts([[5, 6]]), parameters(), use_tqdm=False)[0].outputs[0]
    texts = [entry[token].decoded_token for entry, token in zip(known.uncertainties, known.token_ids, strict=True)]
    tokenizer = llm.get_tokenizer()
    expected = [tokenizer.convert_ids_to_tokens(token) for token in known.token_ids]
    assert [text and text.replace(" ", "▁") for text in texts] == expected


def test_a_response_of_known_and_unknown_tokens(llm: Any) -> None:
    """Each token that can be decoded is."""
    request = parameters(allowed_token_ids=[10, PADDED_ID], temperature=1.0, max_tokens=12)
    (completion,) = llm.generate(token_prompts([[5, 6]]), request, use_tqdm=False)[0].outputs
    assert set(completion.token_ids) == {10, PADDED_ID}
    texts = {token: entry[token].decoded_token for entry in completion.uncertainties for token in entry}
    assert texts == {10: " word7", PADDED_ID: None}


def test_an_asynchronous_engine_survives_it(padded: Path) -> None:
    """Raised where outputs are made, an error would end the engine for everybody."""
    arguments = vllm.AsyncEngineArgs(
        str(padded), dtype="float32", enforce_eager=True, max_model_len=512, kv_cache_memory_bytes=1 << 28, **OPTIONS
    )

    from vllm.v1.engine.async_llm import AsyncLLM

    async def run() -> list[Any]:
        engine = AsyncLLM.from_engine_args(arguments)
        try:
            return await asyncio.gather(*(last(engine, f"r{i}", i % 2 == 0) for i in range(4)))
        finally:
            engine.shutdown()

    async def last(engine: Any, name: str, is_biased: bool) -> Any:
        request = parameters(logit_bias={PADDED_ID: 100} if is_biased else None)
        completion = None
        async for output in engine.generate(token_prompts([[5, 6]])[0], request, name):
            (completion,) = output.outputs
        return completion

    for i, completion in enumerate(asyncio.run(run())):
        assert (PADDED_ID in completion.token_ids) == (i % 2 == 0)
        assert table(completion).shape == (6, 8)


# https://github.com/vllm-project/vllm/issues/29355
def test_a_request_id_that_comes_again_at_once_is_another_request(llm: Any) -> None:
    """Its noise is that of its own seed, also where vLLM learns of the end and of the beginning in one step."""
    core, prompt = llm.llm_engine, token_prompts([[5, 6, 7]])[0]

    def finish(name: str) -> np.ndarray:
        done = None
        while core.has_unfinished_requests():
            done = next((output for output in core.step() if output.request_id == name), done)
        assert done is not None
        return table(done.outputs[0])

    core.add_request("expected", prompt, parameters(seed=2))
    expected = finish("expected")
    core.add_request("again", prompt, parameters(seed=1, max_tokens=50))
    for _ in range(3):
        core.step()
    core.abort_request(["again"])
    core.add_request("again", prompt, parameters(seed=2))
    np.testing.assert_allclose(finish("again"), expected, rtol=1e-4, atol=1e-6)
