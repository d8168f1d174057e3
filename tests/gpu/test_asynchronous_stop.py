"""A stop rule under vLLM's asynchronous scheduler, which the CPU build never chooses: driven without an engine."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("vllm")
from vllm import SamplingParams
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.request import Request, RequestStatus

from bayesian_transformer.stop_rule import StopRule
from bayesian_transformer.uncertainty import FIELDS
from bayesian_transformer.vllm_plugin.outputs import pack
from bayesian_transformer.vllm_plugin.stopping import StoppingScheduler


class Stopping(StoppingScheduler, AsyncScheduler):
    """With a stand-in for the cache, and no start-up."""

    def __init__(self) -> None:
        self.max_model_len = 100
        self.cached: list[int] = []
        cache_blocks = lambda request, computed: self.cached.append(computed)  # noqa: E731
        self.kv_cache_manager: Any = SimpleNamespace(cache_blocks=cache_blocks)

    def step(self, request: Request, value: float) -> bool:
        """Whether the request stops with a next token of this epistemic uncertainty."""
        table = torch.zeros(2, len(FIELDS))
        table[1, FIELDS.index("epistemic")] = value  # the other request of the batch has none
        self._output = SimpleNamespace(sampling_masks=pack(table), req_id_to_index={"other": 0, "this": 1})
        request.num_output_placeholders += 1  # as the stock scheduler does when it schedules a token
        request.num_computed_tokens += 1
        _, stopped = self._update_request_with_output(request, [7])
        return stopped


def request_with(rule: StopRule) -> Request:
    sampling = SamplingParams(max_tokens=20, extra_args=rule.request_keys())
    request = Request("this", [1, 2, 3], sampling, None)
    request.status = RequestStatus.RUNNING
    return request


def test_it_stops_where_the_rule_says() -> None:
    rule, values = StopRule("epistemic", 0.5, window=2), [0.9, 0.0, 0.4, 0.5, 0.6]
    request, scheduler = request_with(rule), Stopping()
    assert [scheduler.step(request, value) for value in values] == [False] * 4 + [True]
    assert rule.stopped_after(values) == 5
    assert request.stop_reason == "uncertainty"
    assert request.is_finished()
    assert request.num_output_placeholders == 0
    assert len(scheduler.cached) == 5  # the stock method ran at each token


def test_a_request_that_nobody_checked_does_not_end_the_engine(caplog: pytest.LogCaptureFixture) -> None:
    request, scheduler = request_with(StopRule("epistemic", 0.5)), Stopping()
    request.sampling_params = SamplingParams(max_tokens=20, extra_args={"uncertainty_stop": "eu"})
    assert not scheduler.step(request, 9.0)
    assert "uncertainty_threshold is missing" in caplog.text


def test_a_request_that_goes_on_with_other_parameters_is_watched_anew() -> None:
    request, scheduler = request_with(StopRule("epistemic", 0.5, window=2)), Stopping()
    assert not scheduler.step(request, 0.9)
    request.sampling_params = SamplingParams(
        max_tokens=20, extra_args=StopRule("epistemic", 0.7, window=3).request_keys()
    )
    assert [scheduler.step(request, 0.9) for _ in range(3)] == [False, False, True]


def test_what_vllm_stops_keeps_its_reason() -> None:
    """The last token that max_tokens allows meets the rule too."""
    request, scheduler = request_with(StopRule("epistemic", 0.5, window=20)), Stopping()
    assert [scheduler.step(request, 1.0) for _ in range(20)] == [False] * 19 + [True]
    assert request.stop_reason is None
    assert request.status == RequestStatus.FINISHED_LENGTH_CAPPED
