"""Device code of triton_statistics.py, which says what each kernel is for: the passes over the logits.

A token has S = NUM_SAMPLES rows of logits, one for each weight sample. Partial sums lie as float32 [4, S, N, chunks];
the four are, for the logits x of a chunk with maximum m: m, sum e^(x - m), sum (x - m) e^(x - m), sum (x - m).
"""

import triton
import triton.language as tl

INF = tl.constexpr(float("inf"))
_LOG_FLOOR = tl.constexpr(-1e4)  # exp of it is 0, and 0 * _LOG_FLOOR is 0 where 0 * -inf would be NaN


@triton.jit
def _load_logits(row: tl.tensor, offset: tl.tensor, stride: tl.tensor, vocabulary: tl.tensor) -> tl.tensor:
    """Logits at `offset` of the row that starts at pointer `row`, in float32; -inf past its end."""
    return tl.load(row + offset.to(tl.int64) * stride, mask=offset < vocabulary, other=-INF).to(tl.float32)


@triton.jit
def row_pass(
    logits: tl.tensor,
    sample_stride: tl.tensor,
    token_stride: tl.tensor,
    stride: tl.tensor,
    vocabulary: tl.tensor,
    tokens: tl.tensor,
    partial: tl.tensor,
    group_max: tl.tensor,
    groups: tl.tensor,
    CHUNK: tl.constexpr,
    GROUP: tl.constexpr,
) -> None:
    """Program (row, chunk): the row's partial sums over the chunk and, for a clean row, its group maxima."""
    row, chunk, chunks = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.num_programs(1)
    start = logits + (row // tokens) * sample_stride + (row % tokens) * token_stride
    offset = chunk * CHUNK + tl.arange(0, CHUNK)
    x = _load_logits(start, offset, stride, vocabulary)
    top = tl.max(x, axis=0)
    below = x - tl.where(top == -INF, 0.0, top)
    weight = tl.exp(below)
    out = partial + row * chunks + chunk
    kind_stride = tl.num_programs(0).to(tl.int64) * chunks
    tl.store(out, top)
    tl.store(out + kind_stride, tl.sum(weight, axis=0))
    tl.store(out + 2 * kind_stride, tl.sum(weight * tl.maximum(below, _LOG_FLOOR), axis=0))
    tl.store(out + 3 * kind_stride, tl.sum(tl.where(offset < vocabulary, below, 0.0), axis=0))
    if group_max is not None:  # noqa: SIM102 - settled when the kernel is compiled, the next when it runs
        if row < tokens:
            group = chunk * (CHUNK // GROUP) + tl.arange(0, CHUNK // GROUP)
            maxima = tl.max(tl.reshape(x, (CHUNK // GROUP, GROUP)), axis=1)
            tl.store(group_max + row * groups + group, maxima, mask=group < groups)


@triton.jit
def merge_chunks(
    partial: tl.tensor,
    tokens: tl.tensor,
    token: tl.tensor,
    chunks: tl.tensor,
    NUM_SAMPLES: tl.constexpr,
    SAMPLE_SLOTS: tl.constexpr,
    CHUNKS: tl.constexpr,
) -> tuple:
    """Maximum and sum of exponentials of all samples of a token, [SAMPLE_SLOTS] each; NaN in slots without a sample.

    And of each chunk, [SAMPLE_SLOTS, CHUNKS]: its maximum less the row's, where its partial sums lie, and whether it is
    there at all.
    """
    sample, chunk = tl.arange(0, SAMPLE_SLOTS)[:, None], tl.arange(0, CHUNKS)[None, :]
    place = (sample.to(tl.int64) * tokens + token) * chunks + chunk
    inside = (sample < NUM_SAMPLES) & (chunk < chunks)
    chunk_top = tl.load(partial + place, mask=inside, other=-INF)
    chunk_sum = tl.load(partial + tokens.to(tl.int64) * NUM_SAMPLES * chunks + place, mask=inside, other=0.0)
    top = tl.max(chunk_top, axis=1)
    below = chunk_top - top[:, None]
    return top, tl.sum(chunk_sum * tl.exp(below), axis=1), below, place, inside


@triton.jit
def take(values: tl.tensor, index: tl.tensor, SLOTS: tl.constexpr) -> tl.tensor:
    """values[index] of a vector of SLOTS."""
    return tl.sum(tl.where(tl.arange(0, SLOTS) == index, values, 0.0), axis=0)


@triton.jit
def mixture_pass(
    logits: tl.tensor,
    sample_stride: tl.tensor,
    token_stride: tl.tensor,
    stride: tl.tensor,
    vocabulary: tl.tensor,
    partial: tl.tensor,
    chunks: tl.tensor,
    group_max: tl.tensor,
    groups: tl.tensor,
    mixture: tl.tensor,
    largest: tl.tensor,
    NUM_SAMPLES: tl.constexpr,
    SAMPLE_SLOTS: tl.constexpr,
    CHUNKS: tl.constexpr,
    CHUNK: tl.constexpr,
    GROUP: tl.constexpr,
    GROUPS: tl.constexpr,
    TOP_K: tl.constexpr,
    TOP_SLOTS: tl.constexpr,
) -> None:
    """Program (token, 0): the largest logits. Program (token, i): entropy of the mean distribution in chunk i - 1."""
    token, tokens, program = tl.program_id(0).to(tl.int64), tl.num_programs(0), tl.program_id(1)
    start = logits + token * token_stride
    if program == 0:  # the longest task, so it starts first
        maxima = group_max + token * groups
        top_sum = _sum_largest(start, stride, vocabulary, maxima, groups, GROUP, GROUPS, TOP_K, TOP_SLOTS)
        tl.store(largest + token, top_sum)
    else:
        top, total, _, _, _ = merge_chunks(partial, tokens, token, chunks, NUM_SAMPLES, SAMPLE_SLOTS, CHUNKS)
        offset = (program - 1) * CHUNK + tl.arange(0, CHUNK)
        mean = tl.zeros((CHUNK,), dtype=tl.float32)
        for sample in tl.range(NUM_SAMPLES, loop_unroll_factor=4):  # four rows of loads in flight
            x = _load_logits(start + tl.cast(sample, tl.int64) * sample_stride, offset, stride, vocabulary)
            factor = 1.0 / (take(total, sample, SAMPLE_SLOTS) * NUM_SAMPLES)
            mean += tl.exp(x - take(top, sample, SAMPLE_SLOTS)) * factor
        entropy = tl.sum(tl.where(mean == 0, 0.0, -mean * tl.log(mean)), axis=0)
        tl.store(mixture + token * (tl.num_programs(1) - 1) + program - 1, entropy)


@triton.jit
def _sum_largest(
    row: tl.tensor,
    stride: tl.tensor,
    vocabulary: tl.tensor,
    group_max: tl.tensor,
    groups: tl.tensor,
    GROUP: tl.constexpr,
    GROUPS: tl.constexpr,
    TOP_K: tl.constexpr,
    TOP_SLOTS: tl.constexpr,
) -> tl.tensor:
    """Sum of the TOP_K largest logits of a row, each relative to the largest."""
    lane, slot = tl.arange(0, GROUPS), tl.arange(0, TOP_SLOTS)
    maxima = tl.load(group_max + lane, mask=lane < groups, other=-INF)
    chosen = tl.zeros((TOP_SLOTS,), dtype=tl.int32) + groups  # past the end: a slot that stays so loads nothing
    for i in range(TOP_K):
        best, index = tl.max(maxima, axis=0, return_indices=True)
        chosen = tl.where(slot == i, tl.where(best > -INF, index, groups), chosen)
        maxima = tl.where(lane == index, -INF, maxima)
    offset = chosen[:, None] * GROUP + tl.arange(0, GROUP)[None, :]
    x = tl.reshape(_load_logits(row, offset, stride, vocabulary), (TOP_SLOTS * GROUP,))
    lane = tl.arange(0, TOP_SLOTS * GROUP)
    top = tl.max(x, axis=0)
    total = top - top
    for _ in range(TOP_K):
        best, index = tl.max(x, axis=0, return_indices=True)
        total += best - top
        x = tl.where(lane == index, -INF, x)
    return total


@triton.jit
def log_mixture(
    logits: tl.tensor,
    sample_stride: tl.tensor,
    token_stride: tl.tensor,
    stride: tl.tensor,
    vocabulary: tl.tensor,
    partial: tl.tensor,
    chunks: tl.tensor,
    out: tl.tensor,
    NUM_SAMPLES: tl.constexpr,
    SAMPLE_SLOTS: tl.constexpr,
    CHUNKS: tl.constexpr,
    CHUNK: tl.constexpr,
) -> None:
    """Program (token, chunk): log of the mean distribution, by a running log-sum-exp over the samples."""
    token, tokens = tl.program_id(0).to(tl.int64), tl.num_programs(0)
    top, total, _, _, _ = merge_chunks(partial, tokens, token, chunks, NUM_SAMPLES, SAMPLE_SLOTS, CHUNKS)
    log_total = tl.log(total)
    offset = tl.program_id(1) * CHUNK + tl.arange(0, CHUNK)
    best, mean = tl.full((CHUNK,), -INF, dtype=tl.float32), tl.zeros((CHUNK,), dtype=tl.float32)
    for sample in tl.range(NUM_SAMPLES, loop_unroll_factor=4):  # four rows of loads in flight
        row = logits + token * token_stride + tl.cast(sample, tl.int64) * sample_stride
        x = _load_logits(row, offset, stride, vocabulary)
        logprob = x - take(top, sample, SAMPLE_SLOTS) - take(log_total, sample, SAMPLE_SLOTS)
        higher = tl.maximum(best, logprob)
        finite = tl.where(higher == -INF, 0.0, higher)
        mean = mean * tl.exp(best - finite) + tl.exp(logprob - finite)
        best = higher
    value = tl.where(best == -INF, 0.0, best) + tl.log(mean / NUM_SAMPLES)
    tl.store(out + token * vocabulary + offset, value, mask=offset < vocabulary)
