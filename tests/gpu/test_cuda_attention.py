"""The GPU's particle attention, driven on the CPU with a stand-in for FlashAttention."""

import functools
import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

pytest.importorskip("vllm")
from vllm.v1.attention.backends import fa_utils, flash_attn

from bayesian_transformer.config import NoiseConfig
from bayesian_transformer.noise import standard_normal
from bayesian_transformer.vllm_plugin import particles
from bayesian_transformer.vllm_plugin.attention import gpu
from bayesian_transformer.vllm_plugin.attention.gpu import PrefixPlan, pack_queries, unpack_result
from bayesian_transformer.vllm_plugin.kernels.plain import merge_own_token
from tests.helpers.cuda_stand_ins import (
    BLOCK,
    GROUP,
    HEAD,
    HEADS,
    KV_HEADS,
    brute_force,
    make_impl,
    make_metadata,
    stand_in_cache_update,
    stand_in_varlen,
    varlen_parameters,
)
from tests.helpers.merge_cases import GARBAGE, check_merge


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels of a GPU replaced; where we call one, by a stand-in that takes the arguments of the real one only."""
    parameters = varlen_parameters()

    def strict(**arguments: Any) -> Any:
        assert arguments.keys() <= parameters
        return stand_in_varlen(**arguments)

    monkeypatch.setattr(fa_utils, "flash_attn_varlen_func", strict, raising=False)
    monkeypatch.setattr(flash_attn, "flash_attn_varlen_func", stand_in_varlen, raising=False)
    monkeypatch.setattr(flash_attn, "reshape_and_cache_flash", stand_in_cache_update, raising=False)


@given(
    noisy_samples=st.integers(1, 4),
    lengths=st.lists(st.integers(0, 5), min_size=1, max_size=4),
    scale=st.sampled_from([0.1, 1.0, 40.0]),
    garbage=st.sampled_from(GARBAGE),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    soft_cap=st.sampled_from([0.0, 0.5, 30.0]),
    seed=st.integers(0, 2**31),
)
@settings(deadline=None, max_examples=50)
def test_merge_equals_one_softmax(
    noisy_samples: int,
    lengths: list[int],
    scale: float,
    garbage: float,
    dtype: torch.dtype,
    soft_cap: float,
    seed: int,
) -> None:
    check_merge(merge_own_token, noisy_samples, lengths, scale, garbage, dtype, seed, soft_cap=soft_cap)


@pytest.mark.parametrize("own", [-1e30, -500.0, 0.0, 500.0, 1e30])
def test_merge_at_extreme_scores(own: float) -> None:
    query, key = torch.ones(1, 1, 1, 1, 1), torch.full((1, 1, 1, 1), own)
    value, prefix_out, lse = torch.full((1, 1, 1, 1), 3.0), torch.full((1, 1, 1, 1, 1), 5.0), torch.zeros(1, 1, 1, 1)
    out = torch.empty(1, 1, 1, 1, 1)
    merge_own_token(query, key, value, prefix_out, lse, torch.ones(1, dtype=torch.int32), 1.0, out)
    assert out.item() == (5.0 if own < 0 else 3.0 if own > 0 else 4.0)


@pytest.mark.parametrize("as_heads", [False, True])
@pytest.mark.parametrize("noisy_samples", [1, 4])
def test_packing_puts_every_row_where_the_kernel_looks_for_it(as_heads: bool, noisy_samples: int) -> None:
    requests = 3
    rows = torch.arange(noisy_samples * requests * HEADS * HEAD).view(-1, HEADS, HEAD)  # sample by sample
    query = gpu.split_rows(rows, noisy_samples, KV_HEADS)
    packed = pack_queries(query, as_heads)
    assert packed.is_contiguous()
    lse = torch.arange(packed.shape[0] * packed.shape[1]).view(packed.shape[1], packed.shape[0])
    unpacked, unpacked_lse = unpack_result(packed, lse, query.shape, as_heads)
    assert torch.equal(unpacked, query)
    for s in range(noisy_samples):
        for b in range(requests):
            for h in range(KV_HEADS):
                for g in range(GROUP):
                    if as_heads:
                        row, head = b, (h * noisy_samples + s) * GROUP + g
                    else:
                        row, head = b * noisy_samples + s, h * GROUP + g
                    assert head // (packed.shape[1] // KV_HEADS) == h
                    assert torch.equal(packed[row, head], rows[s * requests + b, h * GROUP + g])
                    assert unpacked_lse[s, b, h, g] == lse[head, row]


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("noisy_samples", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("window", "soft_cap"), [(None, None), (2, None), (5, 0.7), (9, None), (None, 0.7)])
def test_a_layer_equals_brute_force(
    stand_ins: None,
    version: int,
    noisy_samples: int,
    dtype: torch.dtype,
    window: int | None,
    soft_cap: float | None,
) -> None:
    """Prefill, decode, a first token, and two requests that only pad the batch, in one step of one layer."""
    torch.manual_seed(version)
    seq_lens, new_tokens = [9, 6, 1, 0, 0], [4, 1, 1, 0, 0]
    tokens, padded = sum(new_tokens), 8  # the batch has more rows than tokens
    requests, particle_rows = len(seq_lens), noisy_samples * len(seq_lens)
    block_table = torch.randperm(20).view(requests, 4)
    cache = torch.randn(20, KV_HEADS, BLOCK, 2 * HEAD).to(dtype)
    cache[block_table[3:]] = math.nan  # nothing may be read for the padding
    slots = torch.full((padded,), -1)
    slots[:tokens] = torch.cat(
        [
            block_table[b][torch.arange(n - m, n) // BLOCK] * BLOCK + torch.arange(n - m, n) % BLOCK
            for b, (n, m) in enumerate(zip(seq_lens, new_tokens, strict=True))
        ]
    )
    query_start = torch.tensor([0, 4, 5, 6, 6, 6])
    metadata = make_metadata(query_start, torch.tensor(seq_lens), block_table, slots, num_actual_tokens=tokens)
    limits: dict[str, Any] = {"sliding_window": window, "logits_soft_cap": soft_cap}
    impl = make_impl(version, SimpleNamespace(num_tokens=padded, noisy_samples=noisy_samples), **limits)
    layer = SimpleNamespace(_q_scale=torch.ones(1), _k_scale=torch.ones(1), _v_scale=torch.ones(1))
    qkv = torch.randn(padded + particle_rows, HEADS + 2 * KV_HEADS, HEAD).to(dtype)
    query, key, value = qkv.split([HEADS, KV_HEADS, KV_HEADS], dim=1)

    before = cache.clone()
    impl.do_kv_cache_update(layer, key, value, cache, slots)
    assert ((cache != before) & cache.isfinite()).flatten(1).any(1).sum() <= tokens  # particle rows wrote nothing
    output = torch.full_like(query, -1.0).contiguous()
    assert impl.forward(layer, query, key, value, cache, metadata, output=output, output_scale=None) is output

    tolerance = {torch.float32: 1e-5, torch.bfloat16: 0.03}[dtype]
    for b, (length, new) in enumerate(zip(seq_lens, new_tokens, strict=True)):
        stored = cache[block_table[b]].transpose(1, 2).flatten(0, 1)[:length].split(HEAD, dim=-1)
        for i in range(new):
            row, seen = int(query_start[b]) + i, length - new + i + 1
            expected = brute_force(query[row], *(t[:seen] for t in stored), window=window, soft_cap=soft_cap)
            torch.testing.assert_close(output[row].double(), expected, atol=tolerance, rtol=tolerance)
        for s in range(noisy_samples):
            row = padded + s * requests + b
            prefix = (t[: max(0, length - 1)] for t in stored)
            seen_by_row = [torch.cat([t, own[row : row + 1]]) for t, own in zip(prefix, (key, value), strict=True)]
            expected = brute_force(query[row], *seen_by_row, window=window, soft_cap=soft_cap)
            torch.testing.assert_close(output[row].double(), expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("version", [2, 3])
def test_layers_with_and_without_a_window_share_a_step(stand_ins: None, version: int) -> None:
    """As in Gemma 3 without vLLM's hybrid cache: one metadata object for all layers."""
    requests, noisy_samples, length = 2, 3, 7
    metadata = make_metadata(
        torch.arange(requests + 1), torch.full((requests,), length), torch.arange(8).view(requests, 4), torch.arange(2)
    )
    cache = torch.randn(8, KV_HEADS, BLOCK, 2 * HEAD)
    query, key, value = (torch.randn(noisy_samples * requests, heads, HEAD) for heads in (HEADS, KV_HEADS, KV_HEADS))
    for window in (None, 3, None, 4):
        impl = make_impl(version, SimpleNamespace(num_tokens=0, noisy_samples=noisy_samples), sliding_window=window)
        output = torch.empty_like(query)
        impl._attend(query, key, value, cache, metadata, output)
        for row in range(noisy_samples * requests):
            stored = cache[metadata.block_table[row % requests].long()].transpose(1, 2).flatten(0, 1)[: length - 1]
            seen = [
                torch.cat([t, own[row : row + 1]]) for t, own in zip(stored.split(HEAD, -1), (key, value), strict=True)
            ]
            torch.testing.assert_close(
                output[row].double(), brute_force(query[row], *seen, window=window), atol=1e-5, rtol=1e-5
            )


@pytest.mark.parametrize("garbage", GARBAGE)
def test_whatever_the_kernel_says_of_an_empty_prefix(
    stand_ins: None, monkeypatch: pytest.MonkeyPatch, garbage: float
) -> None:
    kernel = functools.partial(stand_in_varlen, garbage=garbage)
    monkeypatch.setattr(fa_utils, "flash_attn_varlen_func", kernel, raising=False)
    impl = make_impl(3, SimpleNamespace(num_tokens=2, noisy_samples=2))
    metadata = make_metadata(torch.tensor([0, 1, 2]), torch.tensor([1, 0]), torch.zeros(2, 4), torch.arange(2))
    query, key, value = torch.randn(6, HEADS, HEAD), *torch.randn(2, 6, KV_HEADS, HEAD)
    output = torch.empty_like(query)
    impl._attend(query[2:], key[2:], value[2:], torch.zeros(4, KV_HEADS, BLOCK, 2 * HEAD), metadata, output[2:])
    assert torch.equal(output[2:], value[2:].repeat_interleave(GROUP, dim=1))


def test_profiling_fills_the_rows(stand_ins: None) -> None:
    impl = make_impl(3, SimpleNamespace(num_tokens=2, noisy_samples=2))
    rows = torch.randn(6, HEADS, HEAD)
    output = torch.full_like(rows, math.nan)
    impl.forward(None, rows, rows[:, :KV_HEADS], rows[:, :KV_HEADS], torch.empty(0), None, output=output)
    assert not output.any()


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("noise", ["right", "left"])
def test_replay_on_static_buffers(stand_ins: None, monkeypatch: pytest.MonkeyPatch, version: int, noise: str) -> None:
    """A step traced once and replayed on the same buffers with other contents, as a captured graph would be.

    Tracing fails where a value is read on the host. The replayed graph holds no Python of ours.
    """
    requests, noisy_samples = 4, 2
    rows = particles.Particles(NoiseConfig(num_samples=noisy_samples + 1, bayes_noise=noise), 1, 8, torch.device("cpu"))
    impl = make_impl(version, rows)
    impl_layer = SimpleNamespace(_q_scale=torch.ones(1), _k_scale=torch.ones(1), _v_scale=torch.ones(1))
    weight = torch.randn(KV_HEADS * HEAD, (HEADS + 2 * KV_HEADS) * HEAD)
    # The kernels in C++ or Triton are opaque to the trace; the plain formulas stand for them.
    monkeypatch.setattr("bayesian_transformer.vllm_plugin.kernels.cpp.supports", lambda *tensors: False)

    def step(buffers: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        metadata = make_metadata(
            buffers["query_start"], buffers["seq_lens"], buffers["block_table"], torch.arange(requests), max_query_len=1
        )
        context = SimpleNamespace(attn_metadata={"layer": metadata})
        monkeypatch.setattr(particles, "get_forward_context", lambda: context)
        rows.seeds = buffers["seeds"]
        hidden, positions = rows.begin(buffers["embeddings"], buffers["positions"])
        qkv = (hidden @ weight).unflatten(1, (-1, HEAD))
        query, key, value = qkv.split([HEADS, KV_HEADS, KV_HEADS], dim=1)
        output = torch.zeros_like(query, memory_format=torch.contiguous_format)
        impl.forward(impl_layer, query, key, value, buffers["cache"], metadata, output=output)
        seed, position = rows.counters
        return output, positions, standard_normal(seed, position, torch.zeros(1).long(), torch.ones(1).long(), 4)

    def fill(buffers: dict[str, Tensor], lengths: list[int], seed: int) -> None:
        torch.manual_seed(seed)
        real = len(lengths)
        buffers["seq_lens"][:] = torch.tensor(lengths + [0] * (requests - real))
        buffers["query_start"][:] = torch.arange(requests + 1).clamp_max(real)
        buffers["positions"][:real] = torch.tensor(lengths) - 1
        buffers["block_table"][:] = torch.randperm(requests * 4).view(requests, 4)
        buffers["seeds"].random_()
        for name in ("embeddings", "cache"):
            buffers[name].normal_()

    buffers = {
        "seq_lens": torch.zeros(requests, dtype=torch.int32),
        "query_start": torch.zeros(requests + 1, dtype=torch.int32),
        "positions": torch.zeros(requests, dtype=torch.int64),
        "block_table": torch.zeros(requests, 4, dtype=torch.int32),
        "seeds": torch.zeros(8, dtype=torch.int64),
        "embeddings": torch.zeros(requests, KV_HEADS * HEAD),
        "cache": torch.zeros(requests * 4, KV_HEADS, BLOCK, 2 * HEAD),
    }
    fill(buffers, [1, 1, 1, 1], seed=0)  # as vLLM captures: every request in its first token
    graph = make_fx(step)(buffers)
    for seed, lengths in enumerate(([7, 2, 16, 1], [3, 12])):
        fill(buffers, lengths, seed + 1)
        pointers = {name: buffer.data_ptr() for name, buffer in buffers.items()}
        expected = step(buffers)
        with monkeypatch.context() as patch:
            patch.setattr(gpu.GpuParticleAttention, "forward", None)
            patch.setattr(particles.Particles, "begin", None)
            replayed = graph(buffers)
        assert pointers == {name: buffer.data_ptr() for name, buffer in buffers.items()}
        real = len(lengths)
        for result, eager in zip(replayed, expected, strict=True):
            particle_part = result[-noisy_samples * requests :]
            assert particle_part.isfinite().all()  # padding included
            torch.testing.assert_close(result[:real], eager[:real])
            torch.testing.assert_close(particle_part, eager[-noisy_samples * requests :])


@pytest.mark.parametrize("as_heads", [False, True])
def test_a_plan_never_asks_for_less_than_nothing(as_heads: bool) -> None:
    seq_lens = torch.tensor([5, 1, 0]).int()
    metadata = SimpleNamespace(seq_lens=seq_lens, max_num_splits=0, max_seq_len=8)
    plan = PrefixPlan.from_metadata(metadata, 4, as_heads)
    assert plan.lengths.tolist() == [4, 0, 0]
    assert plan.cu_seqlens.tolist() == ([0, 1, 2, 3] if as_heads else [0, 4, 8, 12])
    assert plan.lengths.dtype == plan.cu_seqlens.dtype == torch.int32
    assert seq_lens.tolist() == [5, 1, 0]  # vLLM's buffer is left alone


def test_the_workspace_of_splits_is_bounded() -> None:
    def splits(requests: int, noisy_samples: int, limit: int) -> int:
        metadata = SimpleNamespace(seq_lens=torch.ones(requests).int(), max_num_splits=limit, max_seq_len=8)
        return PrefixPlan.from_metadata(metadata, noisy_samples, False).num_splits

    assert [splits(16, 4, limit) for limit in (0, 1, 32)] == [0, 1, 32]
    for requests, noisy_samples in ((128, 4), (256, 9), (1024, 31)):
        count = splits(requests, noisy_samples, 32)
        assert count == 1 or count * requests * noisy_samples <= 32 * 512
        assert (count + 1) * requests * noisy_samples > 32 * 512 or count == 32
