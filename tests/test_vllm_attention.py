"""The particle rows' attention beside a float64 softmax over explicit keys and values."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("vllm")
from bayesian_transformer.vllm_plugin import attention
from bayesian_transformer.vllm_plugin.attention import CachePacking, Prefix, attend_prefix

BLOCK, HEAD = 4, 8


class Metadata:
    def __init__(self, lengths: list[int], block_table: torch.Tensor) -> None:
        self.seq_lens = torch.tensor(lengths, dtype=torch.int32)
        self.block_table = block_table


def brute_force(
    query: np.ndarray, own_score: float, own_value: np.ndarray, keys: np.ndarray, values: np.ndarray
) -> np.ndarray:
    scores = np.append(keys @ query, own_score)
    weights = np.exp(scores - scores.max())
    return (weights / weights.sum()) @ np.vstack([values, own_value])


@given(
    lengths=st.lists(st.integers(1, 3 * BLOCK + 1), min_size=1, max_size=4),
    heads=st.integers(1, 2),
    rows=st.integers(1, 3),
    seed=st.integers(0, 2**31),
    scale=st.sampled_from([0.1, 3.0, 60.0]),
    shuffled=st.booleans(),
    chunk=st.sampled_from([1, 1 << 20]),
)
@settings(deadline=None)
def test_merge_equals_one_softmax(
    lengths: list[int], heads: int, rows: int, seed: int, scale: float, shuffled: bool, chunk: int
) -> None:
    rng = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=rng)  # noqa: E731
    requests, pool = len(lengths), 4 * len(lengths)
    table = torch.randperm(pool, generator=rng).view(requests, 4).int()
    keys, values = draw(pool, heads, BLOCK, HEAD), draw(pool, heads, BLOCK, HEAD)
    order = torch.randperm(BLOCK * HEAD, generator=rng) if shuffled else torch.arange(BLOCK * HEAD)
    packing = CachePacking(BLOCK, HEAD, order.view(HEAD, BLOCK), order.view(BLOCK, HEAD))
    packed_keys, packed_values = torch.empty(2, pool, heads, BLOCK * HEAD).unbind()
    packed_keys[..., order] = keys.transpose(-1, -2).flatten(-2)
    packed_values[..., order] = values.flatten(-2)
    query, own_score = scale * draw(requests, heads, rows, HEAD), scale * draw(requests, heads, rows)
    own_value = draw(requests, heads, rows, HEAD)

    prefix = Prefix.from_metadata(Metadata(lengths, table), BLOCK)
    attention._CHUNK_ELEMENTS, saved = chunk, attention._CHUNK_ELEMENTS
    try:
        result = attend_prefix(query, own_score, own_value, (packed_keys, packed_values), prefix, packing)
    finally:
        attention._CHUNK_ELEMENTS = saved

    for b, length in enumerate(lengths):
        for h in range(heads):
            flat = lambda t: t[table[b].long(), h].reshape(-1, HEAD)[: length - 1].double().numpy()  # noqa: B023, E731
            for r in range(rows):
                expected = brute_force(
                    query[b, h, r].double().numpy(),
                    own_score[b, h, r].item(),
                    own_value[b, h, r].double().numpy(),
                    flat(keys),
                    flat(values),
                )
                np.testing.assert_allclose(result[b, h, r].numpy(), expected, atol=2e-5, rtol=1e-4)


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
    packed_keys, packed_values = cache.view(3, 2, 2, -1)[1:2].unbind(2)
    assert torch.equal(packing.keys(packed_keys)[0], key.permute(1, 2, 0).float())
    assert torch.equal(packing.values(packed_values)[0], value.transpose(0, 1).float())
