"""Requests that ask to be stopped by their uncertainty: where an independent computation says, and nowhere else."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bayesian_transformer.uncertainty import FIELDS
from tests.helpers.vllm_engines import engine, table, token_prompts

pytest.importorskip("vllm")
import vllm
from vllm.exceptions import VLLMValidationError
from vllm.sampling_params import RequestOutputKind

pytestmark = pytest.mark.engine
TOKENS, WINDOW = 48, 5
LESS_IS_DOUBT = ("logprob", "self_certainty", "confidence")
PROMPTS = [np.random.default_rng(i).integers(100, 40_000, 20 + i).tolist() for i in range(8)]


@pytest.fixture(scope="module")
def llm(tiny_llama_tfb_path: Path) -> Iterator[Any]:
    """Its cache holds two long texts at a time, so that requests are preempted."""
    noise = {"num_samples": 3, "bayes_sigma": 0.3}
    options: dict[str, Any] = {"max_model_len": 128, "num_gpu_blocks_override": 6, "block_size": 32}
    options["disable_log_stats"] = False  # preemptions are counted
    with engine(tiny_llama_tfb_path, in_process=True, hf_overrides=noise, **options) as llm:
        yield llm


def parameters(seed: int, **changes: Any) -> Any:
    defaults: dict[str, Any] = {"temperature": 0.8, "max_tokens": TOKENS, "ignore_eos": True}
    return vllm.SamplingParams(**defaults | {"seed": seed} | changes)


def complete(llm: Any, requests: list[tuple[list[int], Any]]) -> list[Any]:
    prompts, parameters = zip(*requests, strict=True)
    return [output.outputs[0] for output in llm.generate(token_prompts(prompts), list(parameters), use_tqdm=False)]


@pytest.fixture(scope="module")
def free(llm: Any) -> list[Any]:
    """What nothing stops."""
    return complete(llm, [(prompt, parameters(seed)) for seed, prompt in enumerate(PROMPTS)])


def rule(completion: Any, quantity: str, share: float, window: int = WINDOW) -> tuple[dict[str, Any], int | None]:
    """Keys of a rule whose threshold a share of a completion's windows meets, and after how many tokens it stops."""
    values = table(completion)[:, FIELDS.index(quantity)]
    means = np.array([math.fsum(values[end - window : end]) / window for end in range(window, len(values) + 1)])
    doubt = -means if quantity in LESS_IS_DOUBT else means
    threshold = np.quantile(doubt, 1 - share)
    met = np.nonzero(doubt > threshold)[0]
    keys = {
        "uncertainty_stop": quantity,
        "uncertainty_threshold": float(-threshold if quantity in LESS_IS_DOUBT else threshold),
        "uncertainty_window": window,
    }
    return keys, int(met[0]) + window if len(met) else None


def check(stopped: Any, free: Any, after: int | None) -> None:
    """`stopped` is the beginning of `free`, and says why it ends; None: it was not stopped."""
    expected = TOKENS if after is None else after
    assert list(stopped.token_ids) == list(free.token_ids)[:expected]
    reasons = ("length", None) if after is None else ("stop", "uncertainty")
    assert (stopped.finish_reason, stopped.stop_reason) == reasons
    np.testing.assert_allclose(table(stopped), table(free)[:expected], rtol=1e-4, atol=1e-6)


def preemptions(llm: Any) -> int:
    return next(int(metric.value) for metric in llm.get_metrics() if metric.name == "vllm:num_preemptions")


def test_each_quantity_alone_and_in_a_batch(llm: Any, free: list[Any]) -> None:
    """With preemptions: the windows of a request that comes back are as they were."""
    before = preemptions(llm)
    rules = [rule(completion, quantity, 0.2) for completion, quantity in zip(free, FIELDS, strict=True)]
    requests = [
        (prompt, parameters(seed, extra_args=keys))
        for seed, (prompt, (keys, _)) in enumerate(zip(PROMPTS, rules, strict=True))
    ]
    together = complete(llm, requests)
    assert preemptions(llm) > before
    for request, completion, stopped, (_, after) in zip(requests, free, together, rules, strict=True):
        assert after in range(WINDOW, TOKENS)
        check(stopped, completion, after)
        check(complete(llm, [request])[0], completion, after)


def test_the_text_is_complete_to_the_last_token(llm: Any, free: list[Any]) -> None:
    keys, after = rule(free[0], "entropy", 0.3)
    (stopped,) = complete(llm, [(PROMPTS[0], parameters(0, extra_args=keys))])
    (cut,) = complete(llm, [(PROMPTS[0], parameters(0, max_tokens=after))])
    assert stopped.text == cut.text
    assert cut.finish_reason == "length"


def test_a_streamed_response(llm: Any, free: list[Any]) -> None:
    keys, after = rule(free[1], "epistemic", 0.3)
    request = parameters(1, extra_args=keys, output_kind=RequestOutputKind.DELTA)
    core, pieces = llm.llm_engine, []
    core.add_request("streamed", token_prompts(PROMPTS[1:2])[0], request)
    while core.has_unfinished_requests():
        pieces += [completion for output in core.step() for completion in output.outputs]
    assert sum(len(piece.token_ids) for piece in pieces) == sum(len(table(piece)) for piece in pieces) == after
    assert [piece.stop_reason for piece in pieces] == [None] * (len(pieces) - 1) + ["uncertainty"]
    assert [piece.finish_reason for piece in pieces[-2:]] == [None, "stop"]


def test_what_can_keep_a_response_from_being_stopped(llm: Any, free: list[Any]) -> None:
    quantity, last = "total", 40
    values = table(free[2])[:, FIELDS.index(quantity)]
    keys = {"uncertainty_stop": quantity, "uncertainty_threshold": float(values.min()) - 1.0, "uncertainty_window": 1}
    cases = [
        (keys, {}, 1),
        (keys | {"uncertainty_window": last}, {}, last),
        (keys | {"uncertainty_min_tokens": last}, {}, last),
        (keys, {"min_tokens": last}, last),
        (keys | {"uncertainty_threshold": float(values.max())}, {}, None),
        (keys | {"uncertainty_window": TOKENS + 1}, {}, None),
    ]
    for extra, changes, after in cases:
        (stopped,) = complete(llm, [(PROMPTS[2], parameters(2, extra_args=extra, **changes))])
        check(stopped, free[2], after)


def test_responses_of_one_prompt_are_stopped_by_themselves(llm: Any) -> None:
    request = parameters(3, n=3)
    (output,) = llm.generate(token_prompts(PROMPTS[3:4]), request, use_tqdm=False)
    keys, _ = rule(output.outputs[0], "logprob", 0.1)
    request.extra_args = keys
    (stopped,) = llm.generate(token_prompts(PROMPTS[3:4]), request, use_tqdm=False)
    ends = set()
    for one, other in zip(output.outputs, stopped.outputs, strict=True):
        values = table(one)[:, FIELDS.index("logprob")].tolist()
        met = (
            end
            for end in range(WINDOW, TOKENS + 1)
            if math.fsum(values[end - WINDOW : end]) / WINDOW < keys["uncertainty_threshold"]
        )
        ends.add(after := next(met, None))
        check(other, one, after)
    assert len(ends) > 1


@pytest.mark.parametrize("extra", [{"uncertainty_stop": "eu"}, {"uncertainty_limit": 3}])
def test_a_request_with_other_keys_is_refused_where_it_comes_in(llm: Any, extra: dict[str, Any]) -> None:
    with pytest.raises(VLLMValidationError, match=min(extra)):
        complete(llm, [(PROMPTS[0], parameters(0, extra_args=extra))])
    assert not llm.llm_engine.has_unfinished_requests()
