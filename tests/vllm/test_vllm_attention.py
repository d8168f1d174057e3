"""The particle rows' attention, plain and in C++, compared with a float64 softmax over explicit keys and values."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("vllm")
from bayesian_transformer.vllm_plugin.attention.cpu import CachePacking
from bayesian_transformer.vllm_plugin.kernels import cpp, plain

BLOCK, HEAD = 16, 32
IMPLEMENTATIONS = [plain.attend, cpp.attend]
LAYOUTS = ["plain", "pairs", "shuffled"]


def brute_force(
    query: np.ndarray,
    own_score: float,
    own_value: np.ndarray,
    keys: np.ndarray,
    values: np.ndarray,
    soft_cap: float = 0.0,
) -> np.ndarray:
    scores = np.append(keys @ query, own_score)
    scores = soft_cap * np.tanh(scores / soft_cap) if soft_cap else scores
    weights = np.exp(scores - scores.max())
    return (weights / weights.sum()) @ np.vstack([values, own_value])


def places(layout: str, rng: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Where keys [HEAD, BLOCK] and values [BLOCK, HEAD] lie in a block: in place, in pairs (AMX), anywhere."""
    if layout == "plain":
        return torch.arange(BLOCK * HEAD).view(HEAD, BLOCK), torch.arange(BLOCK * HEAD).view(BLOCK, HEAD)
    if layout == "shuffled":
        order = torch.randperm(BLOCK * HEAD, generator=rng)
        return order.view(HEAD, BLOCK), order.view(BLOCK, HEAD)
    dims, tokens = torch.arange(HEAD), torch.arange(BLOCK)
    pairs = lambda inner, outer: inner // 2 * 32 + inner % 2 + outer % 16 * 2  # noqa: E731
    keys = pairs(dims[:, None], tokens) + tokens // 16 * 16 * HEAD
    values = pairs(tokens[:, None], dims) + dims // 16 * 16 * BLOCK
    return keys, values


class Case:
    """Requests with random caches, tables and particle rows."""

    def __init__(
        self, lengths: list[int], noisy_samples: int, heads: int, group: int, layout: str, seed: int, dtype: torch.dtype
    ) -> None:
        rng = torch.Generator().manual_seed(seed)
        draw = lambda *shape: torch.randn(*shape, generator=rng).to(dtype)  # noqa: E731
        requests, pool, blocks_each = len(lengths), 4 * len(lengths), 4
        self.seq_lens = torch.tensor(lengths, dtype=torch.int32)
        self.block_table = torch.randperm(pool, generator=rng).view(requests, blocks_each).int()
        self.keys, self.values = draw(pool, heads, BLOCK, HEAD), draw(pool, heads, BLOCK, HEAD)
        orders = places(layout, rng)
        self.packing = CachePacking(BLOCK, HEAD, *((None, None) if layout == "plain" else orders))
        packed = torch.empty(pool, heads, 2, BLOCK * HEAD, dtype=dtype)
        packed[..., 0, orders[0].flatten()] = self.keys.mT.flatten(-2)
        packed[..., 1, orders[1].flatten()] = self.values.flatten(-2)
        self.cache = packed.view(pool, heads, BLOCK, 2 * HEAD)
        # Cut from one wider buffer, as q, k and v of a fused projection are.
        fused = draw(noisy_samples * requests, heads * (group + 2), HEAD)
        self.query, self.key, self.value = fused.split([heads * group, heads, heads], dim=1)

    def run(self, attend: Callable[..., None], scale: float, **limits: Any) -> torch.Tensor:
        output = torch.full(self.query.shape, torch.nan, dtype=self.query.dtype)
        table = (self.block_table, self.seq_lens, self.packing)
        attend(self.query, self.key, self.value, self.cache, *table, scale, output, **limits)
        return output

    def expected(self, scale: float, window: int = 10**9, soft_cap: float = 0.0) -> np.ndarray:
        requests, group = len(self.seq_lens), self.query.shape[1] // self.key.shape[1]
        result = np.empty(self.query.shape)
        query, own_key, own_value = (t.double().numpy() for t in (self.query, self.key, self.value))
        for row, head in np.ndindex(*self.query.shape[:2]):
            request, kv_head = row % requests, head // group
            blocks, length = self.block_table[request].long(), int(self.seq_lens[request]) - 1
            keys, values = (
                t[blocks, kv_head].flatten(0, 1)[max(0, length + 1 - window) : length].double().numpy()
                for t in (self.keys, self.values)
            )
            own = (scale * own_key[row, kv_head] @ query[row, head], own_value[row, kv_head])
            result[row, head] = brute_force(scale * query[row, head], *own, keys, values, soft_cap)
        return result


@given(
    lengths=st.lists(st.integers(1, 3 * BLOCK + 1), min_size=1, max_size=4),
    noisy_samples=st.integers(1, 4),
    heads=st.integers(1, 2),
    group=st.integers(1, 3),
    layout=st.sampled_from(LAYOUTS),
    seed=st.integers(0, 2**31),
    scale=st.sampled_from([0.0, 0.1, 1.0, 20.0]),
    window=st.one_of(st.none(), st.integers(1, 3 * BLOCK + 2)),
    soft_cap=st.sampled_from([0.0, 0.5, 30.0]),
)
@settings(deadline=None, max_examples=100)
def test_merge_equals_one_softmax(
    lengths: list[int],
    noisy_samples: int,
    heads: int,
    group: int,
    layout: str,
    seed: int,
    scale: float,
    window: int | None,
    soft_cap: float,
) -> None:
    case = Case(lengths, noisy_samples, heads, group, layout, seed, torch.float32)
    limits: dict[str, Any] = {"soft_cap": soft_cap} | ({} if window is None else {"window": window})
    for attend in IMPLEMENTATIONS:
        result = case.run(attend, scale, **limits).numpy()
        np.testing.assert_allclose(result, case.expected(scale, **limits), atol=3e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("attend", IMPLEMENTATIONS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_half_precision_is_rounded_once(attend: Callable[..., None], dtype: torch.dtype, layout: str) -> None:
    case = Case([1, 17, 49, 32], 4, 3, 3, layout, 0, dtype)
    assert case.packing.steps == {"plain": (1, 1), "pairs": (2, 2), "shuffled": (0, 0)}[layout]
    result, expected = case.run(attend, 0.2), case.expected(0.2)
    assert result.dtype == dtype
    difference = np.abs(result.double().numpy() - expected)
    assert (difference <= torch.finfo(dtype).eps * np.abs(expected) + 1e-5).all()
    assert difference.mean() < torch.finfo(dtype).eps * np.abs(expected).mean()


@pytest.mark.parametrize("attend", IMPLEMENTATIONS)
def test_what_lies_beyond_the_prefix_is_never_read(attend: Callable[..., None]) -> None:
    case = Case([1, 17, 30], 2, 2, 2, "plain", 0, torch.float32)
    expected = case.run(attend, 1.0)
    for request, length in enumerate(case.seq_lens.tolist()):
        for position in range(length - 1, 4 * BLOCK):
            block = case.block_table[request, position // BLOCK]
            packed = case.cache.view(len(case.cache), 2, 2, -1)[block]
            packed[:, 0].view(2, HEAD, BLOCK)[..., position % BLOCK] = torch.nan
            packed[:, 1].view(2, BLOCK, HEAD)[:, position % BLOCK] = torch.nan
    assert torch.equal(case.run(attend, 1.0), expected)


@pytest.mark.parametrize("attend", IMPLEMENTATIONS)
@pytest.mark.parametrize("window", [1, 2, BLOCK, BLOCK + 1, 2 * BLOCK + 5])
def test_what_lies_before_a_window_is_never_read(attend: Callable[..., None], window: int) -> None:
    """vLLM gives the blocks before it to other requests, and puts a block that is nobody's in their places."""
    case = Case([1, 17, 33, 50], 2, 2, 2, "plain", 0, torch.float32)
    expected = case.run(attend, 1.0, window=window)
    for request, length in enumerate(case.seq_lens.tolist()):
        for position in range(max(0, length - window)):
            block = case.block_table[request, position // BLOCK]
            packed = case.cache.view(len(case.cache), 2, 2, -1)[block]
            packed[:, 0].view(2, HEAD, BLOCK)[..., position % BLOCK] = torch.nan
            packed[:, 1].view(2, BLOCK, HEAD)[:, position % BLOCK] = torch.nan
        case.block_table[request, : max(0, length - window) // BLOCK] = 10**9
    assert torch.equal(case.run(attend, 1.0, window=window), expected)


@pytest.mark.parametrize("attend", IMPLEMENTATIONS)
def test_a_soft_cap_at_extreme_scores(attend: Callable[..., None]) -> None:
    case = Case([1, 17, 33], 2, 2, 2, "plain", 0, torch.float32)
    for scale in (1e-6, 1e6):
        np.testing.assert_allclose(
            case.run(attend, scale, soft_cap=20.0).numpy(), case.expected(scale, soft_cap=20.0), atol=3e-5, rtol=1e-4
        )


def test_threads_change_nothing() -> None:
    case = Case([1, 17, 49, 32], 4, 3, 3, "shuffled", 0, torch.float32)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = case.run(cpp.attend, 1.0)
        torch.set_num_threads(3)
        assert torch.equal(case.run(cpp.attend, 1.0), alone)
    finally:
        torch.set_num_threads(threads)


def test_the_kernels_leave_other_layouts_to_the_plain_formula() -> None:
    case = Case([5], 2, 2, 2, "plain", 0, torch.float32)
    rows = (case.query, case.key, case.value)
    assert cpp.supports_attention(*rows, case.cache, case.query)
    assert not cpp.supports_attention(*rows, case.cache.bfloat16(), case.query)
    assert not cpp.supports_attention(*rows, case.cache.transpose(1, 2), case.query)
    assert not cpp.supports_attention(*rows, case.cache[:, :, :8].contiguous(), case.query)
    assert not cpp.supports_attention(case.query[..., ::2], *rows[1:], case.cache, case.query)
    assert not cpp.supports_attention(case.query.transpose(0, 1), *rows[1:], case.cache, case.query)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("block_size", [16, 32, 128])
def test_packing_is_learned_from_the_official_operator(dtype: torch.dtype, block_size: int) -> None:
    from vllm import _custom_ops as ops
    from vllm.v1.attention.backends.cpu_attn import _get_attn_isa

    isa, head_size = _get_attn_isa(dtype, block_size, 64), 64
    packing = CachePacking.probe(isa, dtype, block_size, head_size)
    cache = torch.zeros(3, 2, 2 * block_size, head_size, dtype=dtype)
    key, value = torch.randn(2, block_size, 2, head_size).to(dtype)
    slots = torch.arange(block_size) + block_size  # all of block 1
    ops.cpu_attn_reshape_and_cache(key, value, *cache.chunk(2, dim=2), slots, isa)
    keys, values = packing.unpack(cache.view(3, 2, 2, -1)[1:2])
    assert torch.equal(keys, key.permute(1, 2, 0).float())
    assert torch.equal(values, value.transpose(0, 1).float())
