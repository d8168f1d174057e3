"""The statistics of uncertainty.py by Triton kernels that read the logits of S weight samples twice.

The vocabulary is cut into chunks of fixed size, one program per chunk, so that a single token fills the GPU and the
numbers of a token do not depend on the batch. First read (`row_pass`): for each row and chunk its maximum and the
partial sums of softmax and entropy relative to it. Second read (`mixture_pass`): the entropy of the mean distribution,
which needs the normalisers of all samples; beside it, one program per token finds the sum of the largest logits.
`finish` merges the partial sums. Nothing of size S x V is written, shapes alone decide what is allocated, and the host
waits for nothing: the kernels can be captured in a CUDA graph.

Values are those of the plain formulas up to rounding, -inf and NaN included; tensors must be on one device.
"""

import torch
import triton
from torch import Tensor

from ...quantities import FIELDS
from ...uncertainty import CONFIDENCE_TOP_K, TokenUncertainty
from .triton_statistics_device import log_mixture, mixture_pass, row_pass
from .triton_statistics_finish import finish

_ROW_CHUNK = 4096
_MIXTURE_CHUNK = 2048
_GROUP = 64  # the largest logits lie in the groups with the largest maxima: V / 64 numbers to search, then 20 * 64
_KINDS = 4  # partial sums per row and chunk: maximum, sum of exponentials, its first moment, sum of logits


def fused_token_uncertainty(logits: Tensor, token_ids: Tensor | None = None) -> TokenUncertainty:
    """`uncertainty.token_uncertainty` for logits [S, N, V] of any strides; a token id out of range gives NaN."""
    num_samples, tokens, vocabulary = _shape(logits)
    if token_ids is not None and token_ids.shape != (tokens,):
        raise ValueError(f"token_ids must have shape [{tokens}], got {list(token_ids.shape)}")
    groups = triton.cdiv(vocabulary, _GROUP)
    mixture_chunks = triton.cdiv(vocabulary, _MIXTURE_CHUNK) if num_samples > 1 else 0
    out, group_max, mixture, largest = (
        logits.new_empty((tokens, width), dtype=torch.float32) for width in (len(FIELDS), groups, mixture_chunks, 1)
    )
    if tokens:
        partial = _first_read(logits, group_max)
        sizes = {**_sample_sizes(num_samples, partial), "CHUNK": _MIXTURE_CHUNK}
        top_k = min(CONFIDENCE_TOP_K, vocabulary)
        mixture_pass[(tokens, mixture_chunks + 1)](
            *(logits, *logits.stride(), vocabulary, partial, partial.shape[-1], group_max, groups, mixture, largest),
            **sizes,
            GROUP=_GROUP,
            GROUPS=triton.next_power_of_2(groups),
            TOP_K=top_k,
            TOP_SLOTS=triton.next_power_of_2(top_k),
        )
        finish[(tokens,)](
            *(logits, *logits.stride(), vocabulary, partial, partial.shape[-1], mixture, mixture_chunks, largest),
            *(token_ids, 0 if token_ids is None else token_ids.stride(0), out),
            **{**sizes, "CHUNK": _ROW_CHUNK},
            MIXTURE_CHUNKS=triton.next_power_of_2(max(1, mixture_chunks)),
            TOP_K=top_k,
        )
    return TokenUncertainty.from_table(out)


def fused_mixture_logits(logits: Tensor) -> Tensor:
    """`uncertainty.mixture_logits` for logits [S, N, V] of any strides: float32 [N, V]."""
    num_samples, tokens, vocabulary = _shape(logits)
    out = logits.new_empty((tokens, vocabulary), dtype=torch.float32)
    if tokens:
        partial = _first_read(logits, None)
        log_mixture[(tokens, triton.cdiv(vocabulary, _MIXTURE_CHUNK))](
            *(logits, *logits.stride(), vocabulary, partial, partial.shape[-1], out),
            **_sample_sizes(num_samples, partial),
            CHUNK=_MIXTURE_CHUNK,
        )
    return out


def _shape(logits: Tensor) -> tuple[int, int, int]:
    if logits.dim() != 3 or 0 in (logits.shape[0], logits.shape[2]):
        raise ValueError(
            f"logits must be [num_samples, tokens, vocabulary], none empty but tokens; got {[*logits.shape]}"
        )
    return logits.shape[0], logits.shape[1], logits.shape[2]


def _sample_sizes(num_samples: int, partial: Tensor) -> dict[str, int]:
    return {
        "NUM_SAMPLES": num_samples,
        "SAMPLE_SLOTS": triton.next_power_of_2(num_samples),
        "CHUNKS": triton.next_power_of_2(partial.shape[-1]),
    }


def _first_read(logits: Tensor, group_max: Tensor | None) -> Tensor:
    """Partial sums, float32 [_KINDS, S, N, chunks]; fills `group_max` [N, groups] from the clean rows."""
    num_samples, tokens, vocabulary = logits.shape
    chunks = triton.cdiv(vocabulary, _ROW_CHUNK)
    partial = logits.new_empty((_KINDS, num_samples, tokens, chunks), dtype=torch.float32)
    row_pass[(num_samples * tokens, chunks)](
        *(logits, *logits.stride(), vocabulary, tokens, partial, group_max, triton.cdiv(vocabulary, _GROUP)),
        CHUNK=_ROW_CHUNK,
        GROUP=_GROUP,
    )
    return partial
