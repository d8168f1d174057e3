"""vLLM's own features through its asynchronous engine: what narrows or ends a response, and streams.

Whatever decides on the tokens, their uncertainties are those that scoring gives for the same text.
"""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from bayesian_transformer.scoring import score
from bayesian_transformer.stop_rule import StopRule
from bayesian_transformer.uncertainty import FIELDS
from tests.helpers.vllm_engines import table, token_prompts

pytest.importorskip("vllm")
from vllm import AsyncEngineArgs, SamplingParams
from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams
from vllm.v1.engine.async_llm import AsyncLLM

pytestmark = pytest.mark.engine
NUM_SAMPLES, SIGMA, TOKENS = 4, 0.3, 24
PROMPT = np.random.default_rng(0).integers(100, 40_000, 40).tolist()
T = TypeVar("T")


def parameters(**changes: Any) -> Any:
    defaults = {"temperature": 0, "max_tokens": TOKENS, "ignore_eos": True, "seed": 7}
    return SamplingParams(**defaults | {"output_kind": RequestOutputKind.DELTA} | changes)


class Served:
    """An asynchronous engine with a loop of its own, and the same model for scoring."""

    def __init__(self, path: Path) -> None:
        self.loop = asyncio.new_event_loop()
        self.names = iter(range(1000))
        self.tokenizer = AutoTokenizer.from_pretrained(path)
        self.model: Any = AutoModelForCausalLM.from_pretrained(path).eval()
        self.model.config.update({"num_samples": NUM_SAMPLES, "bayes_sigma": SIGMA})
        arguments = AsyncEngineArgs(
            model=str(path),
            dtype="float32",
            enforce_eager=True,
            max_model_len=512,
            max_num_seqs=16,
            kv_cache_memory_bytes=1 << 28,
            hf_overrides={"num_samples": NUM_SAMPLES, "bayes_sigma": SIGMA},
            structured_outputs_config={"backend": "xgrammar", "disable_any_whitespace": True},
        )

        async def start() -> AsyncLLM:
            return AsyncLLM.from_engine_args(arguments)

        self.engine = self.do(start)

    def do(self, work: Callable[[], Awaitable[T]]) -> T:
        async def run() -> T:
            return await work()

        return self.loop.run_until_complete(run())

    async def stream(self, request: Any, abort_after: int | None = None) -> list[Any]:
        """All completions of a request, which is aborted after some of them."""
        pieces, name = [], f"request-{next(self.names)}"
        async for output in self.engine.generate(token_prompts([PROMPT])[0], request, name):
            pieces += output.outputs
            if len(pieces) == abort_after:
                await self.engine.abort(name)
        return pieces

    def complete(self, **changes: Any) -> Any:
        """The one completion of a request that is not streamed, with checked uncertainties."""
        request = parameters(output_kind=RequestOutputKind.FINAL_ONLY, **changes)
        (completion,) = self.do(lambda: self.stream(request))
        self.check(completion.token_ids, table(completion))
        return completion

    def check(self, token_ids: Any, numbers: np.ndarray) -> None:
        expected = score(self.model, PROMPT, list(token_ids), seed=7).stack().numpy()
        np.testing.assert_allclose(numbers, expected, rtol=1e-3, atol=2e-5)


@pytest.fixture(scope="module")
def served(tiny_llama_tfb_path: Path) -> Iterator[Served]:
    served = Served(tiny_llama_tfb_path)
    yield served
    served.engine.shutdown()
    served.loop.run_until_complete(asyncio.sleep(0))
    served.loop.close()


@pytest.fixture(scope="module")
def free(served: Served) -> list[int]:
    """The tokens of the response that nothing narrows."""
    return list(served.complete().token_ids)


def test_grammars(served: Served) -> None:
    digits = served.complete(structured_outputs=StructuredOutputsParams(regex=r"[0-9]{5}-[a-f]{3}"), ignore_eos=False)
    assert re.fullmatch(r"[0-9]{5}-[a-f]{3}", digits.text)
    properties = {"sure": {"type": "boolean"}, "unit": {"enum": ["metre", "second"]}}
    schema = {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}
    answer = served.complete(structured_outputs=StructuredOutputsParams(json=schema), ignore_eos=False)
    assert json.loads(answer.text).keys() == properties.keys()
    assert answer.finish_reason == "stop"


def test_min_tokens(served: Served, free: list[int]) -> None:
    stops = {"stop_token_ids": [free[3]]}
    assert list(served.complete(**stops).token_ids) == free[: free.index(free[3]) + 1]
    assert len(served.complete(**stops, min_tokens=12).token_ids) >= 12


def test_bad_words_and_allowed_tokens(served: Served, free: list[int]) -> None:
    texts = [served.tokenizer.decode([token]) for token in free]
    word = next(text for text in texts if text.strip() and "\ufffd" not in text)
    others = served.complete(bad_words=[word]).token_ids
    assert word not in [served.tokenizer.decode([token]) for token in others]
    allowed = [*range(200, 216)]
    assert set(served.complete(allowed_token_ids=allowed, temperature=1.0).token_ids) <= set(allowed)


def test_a_response_is_stopped_by_its_uncertainty(served: Served, free: list[int]) -> None:
    values = table(served.complete())[:, FIELDS.index("epistemic")].tolist()
    rule = StopRule("epistemic", sorted(values)[-3], window=1)
    stopped = served.complete(extra_args=rule.request_keys())
    assert list(stopped.token_ids) == free[: rule.stopped_after(values)]
    assert 0 < len(stopped.token_ids) < TOKENS
    assert (stopped.finish_reason, stopped.stop_reason) == ("stop", "uncertainty")


@pytest.mark.parametrize("interval", [1, 5])
def test_streams(served: Served, free: list[int], interval: int) -> None:
    """Each piece brings the uncertainties of its own tokens, several requests at a time."""
    request = parameters(stream_interval=interval)
    many = served.do(lambda: asyncio.gather(*[served.stream(request) for _ in range(4)]))
    for pieces in many:
        numbers = np.concatenate([table(piece) for piece in pieces])  # each piece is checked for alignment
        assert [token for piece in pieces for token in piece.token_ids] == free
        served.check(free, numbers)
        if interval > 1:
            assert len(pieces) <= 1 + -(-TOKENS // interval)


@pytest.mark.parametrize("interval", [1, 3])
def test_an_abort_ends_one_stream_and_no_other(served: Served, free: list[int], interval: int) -> None:
    endless = parameters(max_tokens=400, stream_interval=interval)
    pieces, other = served.do(
        lambda: asyncio.gather(served.stream(endless, abort_after=3), served.stream(parameters()))
    )
    assert pieces[-1].finish_reason == "abort"
    tokens = [token for piece in pieces for token in piece.token_ids]
    assert 3 <= len(tokens) < 400
    served.check(tokens, np.concatenate([table(piece) for piece in pieces]))
    assert [token for piece in other for token in piece.token_ids] == free
    served.check(free, np.concatenate([table(piece) for piece in other]))


def test_a_cancelled_reader_ends_its_request_and_no_other(served: Served, free: list[int]) -> None:
    async def cancel() -> list[Any]:
        reader = asyncio.create_task(served.stream(parameters(max_tokens=400)))
        other = asyncio.create_task(served.stream(parameters()))
        await asyncio.sleep(0.1)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        return await other

    pieces = served.do(cancel)
    assert [token for piece in pieces for token in piece.token_ids] == free
    served.check(free, np.concatenate([table(piece) for piece in pieces]))
    assert not served.engine.output_processor.request_states


def test_a_slow_reader_gets_every_number(served: Served, free: list[int]) -> None:
    """What came meanwhile is joined; a fast reader next to it has its own."""

    async def read(pause: float) -> list[Any]:
        pieces = []
        request, name = parameters(), f"request-{next(served.names)}"
        async for output in served.engine.generate(token_prompts([PROMPT])[0], request, name):
            pieces += output.outputs
            await asyncio.sleep(pause)
        return pieces

    slow, fast = served.do(lambda: asyncio.gather(read(0.1), read(0.0)))
    assert len(slow) < len(fast)
    for pieces in (slow, fast):
        assert [token for piece in pieces for token in piece.token_ids] == free
        served.check(free, np.concatenate([table(piece) for piece in pieces]))


def test_an_abort_before_the_first_token(served: Served) -> None:
    """Nothing tells such a completion that its model is a TFB model, so it may lack the attribute."""

    async def start_and_abort() -> Any:
        name = f"request-{next(served.names)}"
        collector = await served.engine.add_request(name, token_prompts([PROMPT])[0], parameters())
        await served.engine.abort(name)
        return await collector.get()

    (completion,) = served.do(start_and_abort).outputs
    assert completion.finish_reason == "abort"
    assert len(completion.token_ids) == 0
    assert not getattr(completion, "uncertainties", [])
