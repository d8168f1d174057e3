"""Stopping a response by its uncertainty: the scheduler that does it, and the check of what a request asks.

The scheduler stops a response in the step whose token meets the rule, as it does at an end-of-sequence token, so no
message goes to the front end and back and the memory of the response is free at once. What the rule is, and the keys
that set it, are in stop_rule.py.
"""

import logging
from typing import Any

from torch import Tensor
from vllm import SamplingParams
from vllm.v1.request import Request, RequestStatus
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor

from ..quantities import FIELDS
from ..stop_rule import STOP_REASON, StopRule, StopWatch
from .outputs import unpack

logger = logging.getLogger(__name__)

REQUEST_CHECK = f"{__name__}:RequestCheck"  # as vLLM names a logits processor


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
        met = watch.stops(row[FIELDS.index(watch.rule.quantity)])
        if met and not stopped and request.num_output_tokens >= request.sampling_params.min_tokens:
            # For FINISHED_STOPPED the detokenizer drops the text of the last token. outputs.py makes it a stop.
            request.status = RequestStatus.FINISHED_LENGTH_CAPPED
            request.stop_reason = STOP_REASON
            stopped = True
        return new_token_ids, stopped


def _watch_of(request: Request) -> StopWatch | None:
    """Kept on the request, with which it lives: through a preemption, and no longer than that.

    A request that is continued with more input has new parameters, and its watch begins anew.
    """
    parameters, watch = getattr(request, "stop_watch", (None, None))
    if parameters is not request.sampling_params:
        watch = _watch_for(request)
        request.stop_watch = (request.sampling_params, watch)
    return watch


def _watch_for(request: Request) -> StopWatch | None:
    """Never an error: raised in the scheduler, it would end the engine for everybody."""
    try:
        rule = StopRule.from_request(request.sampling_params.extra_args)
    except ValueError as error:  # `RequestCheck` was passed by, as a request handed to the engine core itself does
        logger.warning("request %s is not stopped by its uncertainty: %s", request.request_id, error)
        return None
    return None if rule is None else rule.watch()


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
