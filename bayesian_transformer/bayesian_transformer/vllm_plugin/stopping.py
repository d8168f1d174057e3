"""Stopping a response by its uncertainty: the scheduler that does it, and the check of what a request asks.

The scheduler stops a response in the step whose token meets the rule, as it does at an end-of-sequence token, so no
message goes to the front end and back and the memory of the response is free at once. What the rule is, and the keys
that set it, are in stop_rule.py.
"""

from typing import Any

from torch import Tensor
from vllm import SamplingParams
from vllm.v1.request import Request, RequestStatus
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor

from ..quantities import FIELDS
from ..stop_rule import STOP_REASON, StopRule, StopWatch
from .outputs import unpack


def uncertainty_scheduler(vllm_config: Any, **kwargs: Any) -> Any:
    """The stock scheduler with the lane of outputs.py switched on, which stops responses by their rules.

    A factory: async scheduling is resolved only after our config hook.
    """
    from vllm.v1.core.sched.async_scheduler import AsyncScheduler
    from vllm.v1.core.sched.scheduler import Scheduler

    stock = AsyncScheduler if vllm_config.scheduler_config.async_scheduling else Scheduler
    made = type(f"Uncertainty{stock.__name__}", (StoppingScheduler, stock), {})
    scheduler = made(vllm_config=vllm_config, **kwargs)
    scheduler.return_sampling_mask = True
    return scheduler


class StoppingScheduler:
    """Put before one of vLLM's schedulers."""

    def update_from_output(self, scheduler_output: Any, model_runner_output: Any) -> Any:
        self._output = model_runner_output  # which the stock code does not hand to the method below
        try:
            return super().update_from_output(scheduler_output, model_runner_output)  # type: ignore[misc]
        finally:
            self._output = None

    def _update_request_with_output(
        self, request: Request, new_token_ids: list[int], *args: Any, **kwargs: Any
    ) -> tuple[list[int], bool]:
        new_token_ids, stopped = super()._update_request_with_output(  # type: ignore[misc]
            request, new_token_ids, *args, **kwargs
        )
        watch = _watch_of(request)
        if watch is None or not new_token_ids:
            return new_token_ids, stopped
        # One token: a TFB model has no speculative decoding.
        row = unpack(self._output.sampling_masks, self._output.req_id_to_index[request.request_id])
        met = watch.stops(float(row[FIELDS.index(watch.rule.quantity)]))
        if met and not stopped and request.num_output_tokens >= request.sampling_params.min_tokens:
            # For FINISHED_STOPPED the detokenizer drops the text of the last token. outputs.py makes it a stop.
            request.status = RequestStatus.FINISHED_LENGTH_CAPPED
            request.stop_reason = STOP_REASON
            stopped = True
        return new_token_ids, stopped


def _watch_of(request: Request) -> StopWatch | None:
    """Kept on the request, with which it lives: through a preemption, and no longer than that."""
    if not hasattr(request, "stop_watch"):
        rule = StopRule.from_request(request.sampling_params.extra_args)
        request.stop_watch = rule and rule.watch()
    return request.stop_watch


class RequestCheck(LogitsProcessor):
    """Refuses, where a request comes in, what its `extra_args` may not hold; it changes no logits.

    vLLM lets the logits processors of a model check its requests, and answers HTTP 400 with what they say.
    """

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        StopRule.from_request(sampling_params.extra_args)

    def __init__(self, *args: Any) -> None:
        pass

    def apply(self, logits: Tensor) -> Tensor:
        return logits

    def is_argmax_invariant(self) -> bool:
        return True

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        pass
