"""Device code of triton_statistics.py: from the partial sums of a token to its quantities.

The layout of the partial sums is in triton_statistics_device.py.
"""

import triton
import triton.language as tl

from ...quantities import FIELDS
from .triton_statistics_device import INF, merge_chunks, take

# The columns of a row of quantities; device code can read constants of its module only.
_COLUMNS = tl.constexpr(len(FIELDS))
_TOTAL = tl.constexpr(FIELDS.index("total"))
_ALEATORIC = tl.constexpr(FIELDS.index("aleatoric"))
_EPISTEMIC = tl.constexpr(FIELDS.index("epistemic"))
_IMPLICIT_REWARD = tl.constexpr(FIELDS.index("implicit_reward"))
_LOGPROB = tl.constexpr(FIELDS.index("logprob"))
_ENTROPY = tl.constexpr(FIELDS.index("entropy"))
_SELF_CERTAINTY = tl.constexpr(FIELDS.index("self_certainty"))
_CONFIDENCE = tl.constexpr(FIELDS.index("confidence"))


@triton.jit
def _row_sums(
    partial: tl.tensor,
    token: tl.tensor,
    chunks: tl.tensor,
    vocabulary: tl.tensor,
    NUM_SAMPLES: tl.constexpr,
    SAMPLE_SLOTS: tl.constexpr,
    CHUNKS: tl.constexpr,
    CHUNK: tl.constexpr,
) -> tl.tensor:
    """Per sample of a token, over the vocabulary: max x, sums of e^(x - max), of (x - max) e^(x - max), of x - max."""
    tokens = tl.num_programs(0)
    top, total, below, place, inside = merge_chunks(partial, tokens, token, chunks, NUM_SAMPLES, SAMPLE_SLOTS, CHUNKS)
    kind_stride = tokens.to(tl.int64) * NUM_SAMPLES * chunks
    scale = tl.exp(below)
    below = tl.where(below == -INF, 0.0, below)  # a chunk with every token masked: its sums are 0 or -inf already
    chunk_sum = tl.load(partial + kind_stride + place, mask=inside, other=0.0)
    moment = tl.load(partial + 2 * kind_stride + place, mask=inside, other=0.0)
    distance = tl.load(partial + 3 * kind_stride + place, mask=inside, other=0.0)
    sizes = tl.minimum(CHUNK, vocabulary - CHUNK * tl.arange(0, CHUNKS))[None, :]
    distance = tl.sum(tl.where(inside, distance + sizes * below, 0.0), axis=1)
    moment = tl.sum(scale * (moment + chunk_sum * below), axis=1)
    return top, total, moment, distance


@triton.jit
def finish(
    logits: tl.tensor,
    sample_stride: tl.tensor,
    token_stride: tl.tensor,
    stride: tl.tensor,
    vocabulary: tl.tensor,
    partial: tl.tensor,
    chunks: tl.tensor,
    mixture: tl.tensor,
    mixture_chunks: tl.tensor,
    largest: tl.tensor,
    token_ids: tl.tensor,
    token_id_stride: tl.tensor,
    out: tl.tensor,
    NUM_SAMPLES: tl.constexpr,
    SAMPLE_SLOTS: tl.constexpr,
    CHUNKS: tl.constexpr,
    CHUNK: tl.constexpr,
    MIXTURE_CHUNKS: tl.constexpr,
    TOP_K: tl.constexpr,
) -> None:
    """Program (token): all quantities, each in its column of `out` [N, _COLUMNS]."""
    token = tl.program_id(0).to(tl.int64)
    top, total, moment, distance = _row_sums(
        partial, token, chunks, vocabulary, NUM_SAMPLES, SAMPLE_SLOTS, CHUNKS, CHUNK
    )
    log_total = tl.log(total)
    out += token * _COLUMNS
    chunk = tl.arange(0, MIXTURE_CHUNKS)
    parts = tl.load(mixture + token * mixture_chunks + chunk, mask=chunk < mixture_chunks, other=0.0)
    _store_entropies(out, log_total - moment / total, tl.sum(parts, axis=0), NUM_SAMPLES, SAMPLE_SLOTS)
    if token_ids is None:
        tl.store(out + _IMPLICIT_REWARD, float("nan"))
        tl.store(out + _LOGPROB, float("nan"))
    else:
        token_id = tl.load(token_ids + token * token_id_stride).to(tl.int64)
        known = tl.where((token_id >= 0) & (token_id < vocabulary), NUM_SAMPLES, 0)
        sample = tl.arange(0, SAMPLE_SLOTS).to(tl.int64)
        place = logits + sample * sample_stride + token * token_stride + token_id * stride
        x = tl.load(place, mask=sample < known, other=float("nan")).to(tl.float32)
        _store_token_terms(out, x - top - log_total, NUM_SAMPLES, SAMPLE_SLOTS)
    clean_log_total, clean_distance = take(log_total, 0, SAMPLE_SLOTS), take(distance, 0, SAMPLE_SLOTS)
    tl.store(out + _SELF_CERTAINTY, clean_log_total - clean_distance / vocabulary - tl.log(vocabulary * 1.0))
    tl.store(out + _CONFIDENCE, clean_log_total - tl.load(largest + token) / TOP_K)


@triton.jit
def _store_entropies(
    out: tl.tensor, entropies: tl.tensor, mixture_entropy: tl.tensor, NUM_SAMPLES: tl.constexpr, SLOTS: tl.constexpr
) -> None:
    """What follows from the entropy of each sample [SLOTS] and that of the mean distribution."""
    clean_entropy = take(entropies, 0, SLOTS)
    tl.store(out + _ENTROPY, clean_entropy)
    if NUM_SAMPLES == 1:
        tl.store(out + _TOTAL, clean_entropy)
        tl.store(out + _ALEATORIC, clean_entropy)
        tl.store(out + _EPISTEMIC, 0.0)
    else:
        aleatoric = tl.sum(tl.where(tl.arange(0, SLOTS) < NUM_SAMPLES, entropies, 0.0), axis=0) / NUM_SAMPLES
        tl.store(out + _TOTAL, mixture_entropy)
        tl.store(out + _ALEATORIC, aleatoric)
        tl.store(out + _EPISTEMIC, mixture_entropy - aleatoric)


@triton.jit
def _store_token_terms(
    out: tl.tensor, token_logprob: tl.tensor, NUM_SAMPLES: tl.constexpr, SLOTS: tl.constexpr
) -> None:
    """BIR from log p_s(y) of the first NUM_SAMPLES of SLOTS, 0 if every sample rules the token out; and log p_0(y)."""
    inside = tl.arange(0, SLOTS) < NUM_SAMPLES
    best = tl.max(tl.where(inside, token_logprob, -INF), axis=0)
    below = tl.where(inside, token_logprob - best, 0.0)
    mean = tl.sum(tl.where(inside, tl.exp(below), 0.0), axis=0) / NUM_SAMPLES
    ruled_out = tl.sum((inside & (token_logprob == -INF)).to(tl.int32), axis=0) == NUM_SAMPLES
    tl.store(out + _IMPLICIT_REWARD, tl.where(ruled_out, 0.0, tl.log(mean) - tl.sum(below, axis=0) / NUM_SAMPLES))
    tl.store(out + _LOGPROB, take(token_logprob, 0, SLOTS))
