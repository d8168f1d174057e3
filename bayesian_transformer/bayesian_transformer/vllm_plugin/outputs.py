"""How the statistics travel from the worker to `outputs[i].uncertainties`.

vLLM has no free-form per-token output. What it slices per request, trims at stop strings and ships across its
processes by itself is the sampling-mask lane, one ragged row of numbers per generated token, switched off unless
`return_sampling_mask` is set (which TFB models refuse). We put eight float32 numbers per token on that lane; a real
sampling mask holds integers, so the two cannot be confused. This module is all that knows about the lane.

`worker.sample_tokens` (or `AsyncUncertaintyOutput`, where vLLM schedules ahead) calls `pack`; `stopping.py` switches
the lane on; in the front end `with_uncertainties`, put there by `substitutions.substitute`, unpacks.

Where a completion is made, only these numbers tell that its model is a TFB model. A request that is aborted before its
first token has met none, so its completion is as stock vLLM makes it: without `uncertainties`.
"""

import functools
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import RequestOutputKind
from vllm.tokenizers.detokenizer_utils import convert_ids_list_to_tokens
from vllm.v1.engine import FinishReason
from vllm.v1.engine.output_processor import RequestState
from vllm.v1.outputs import SamplingMaskLists

from ..encoding import token_text
from ..quantities import FIELDS
from ..stop_rule import STOP_REASON
from ..uncertainty import Uncertainty

logger = logging.getLogger(__name__)

_WIDTH = len(FIELDS)


def pack(statistics: Tensor) -> SamplingMaskLists:
    """Put statistics [B, 8] (float32, on the host) on the lane."""
    return SamplingMaskLists(
        token_ids=statistics.numpy().reshape(-1), offsets=np.arange(len(statistics) + 1, dtype=np.int64) * _WIDTH
    )


def unpack(masks: SamplingMaskLists, request: int) -> list[float]:
    """The statistics of the new token of a request, by its place in the batch, in the order of FIELDS."""
    return masks.slice_request(request, 1).token_ids.tolist()


def with_uncertainties(stock: Any) -> Any:
    """`RequestState._new_completion_output` that hands the lane's numbers out as `uncertainties`."""

    @functools.wraps(stock)
    def new_completion_output(self: RequestState, *args: Any, **kwargs: Any) -> CompletionOutput:
        chunks = self.sampling_mask_chunks
        if not hasattr(self, "uncertainties"):
            if not chunks or chunks[0].token_ids.dtype != np.float32:
                return stock(self, *args, **kwargs)
            self.uncertainties = []
        self.sampling_mask_chunks = []
        completion = stock(self, *args, **kwargs)
        if completion.stop_reason == STOP_REASON:  # see `StoppingScheduler`: it stopped, and no length did
            completion.finish_reason = str(FinishReason.STOP)
        delta = self.output_kind == RequestOutputKind.DELTA
        token_ids = completion.token_ids if delta else completion.token_ids[len(self.uncertainties) :]
        fresh = _uncertainties(token_ids, chunks, self.logprobs_processor.tokenizer)
        if not delta:
            self.uncertainties += fresh
        completion.uncertainties = fresh if delta else list(self.uncertainties)
        return completion

    return new_completion_output


def merging_uncertainties(stock: Any) -> Any:
    """`RequestOutput.add` that joins the uncertainties of two outputs as it joins their tokens."""

    @functools.wraps(stock)
    def add(self: RequestOutput, next_output: RequestOutput, aggregate: bool) -> None:
        held = {completion.index: completion for completion in self.outputs}
        stock(self, next_output, aggregate)
        if not aggregate:  # the stock method has put the new completion in place of the old
            return
        for completion in next_output.outputs:
            fresh = getattr(completion, "uncertainties", None)
            if fresh is not None and completion.index in held:
                earlier = held[completion.index]
                earlier.uncertainties = [*getattr(earlier, "uncertainties", []), *fresh]

    return add


def _uncertainties(token_ids: Any, chunks: list[SamplingMaskLists], tokenizer: Any) -> list[dict[int, Uncertainty]]:
    """One {token id: Uncertainty} per token; ValueError if the lane's rows and the tokens differ in number."""
    rows = (
        np.concatenate([chunk.token_ids for chunk in chunks]).reshape(-1, _WIDTH) if chunks else np.empty((0, _WIDTH))
    )
    token_ids = list(token_ids)
    return [
        {token_id: Uncertainty.from_row(row, text)}
        for token_id, row, text in zip(token_ids, rows.tolist(), _texts(tokenizer, token_ids), strict=True)
    ]


def _texts(tokenizer: Any, token_ids: list[int]) -> Sequence[str | None]:
    """The texts of tokens as vLLM has them for log-probabilities; None for one that the tokenizer does not know.

    Never an error: raised here, where the outputs of all requests are made, it would end the engine for everybody. A
    model whose vocabulary is padded can sample an id that no tokenizer knows, and vLLM's helper raises on some of them.
    """
    if tokenizer is None:
        return [None] * len(token_ids)
    try:
        texts = convert_ids_list_to_tokens(tokenizer, token_ids)
        # Byte-level tokenizers decode an id that they do not know to nothing.
        return [text or token_text(tokenizer, token) for text, token in zip(texts, token_ids, strict=True)]
    except Exception:  # noqa: BLE001 - whatever a tokenizer raises
        if len(token_ids) > 1:
            return [text for token_id in token_ids for text in _texts(tokenizer, [token_id])]
        logger.debug("the tokenizer cannot decode token %s", token_ids)
        return [None]
