"""The fused kernels compared with the plain torch formulas and float64 definitions.

Run by test_kernels.py in Triton's interpreter, on the CPU; by hand on a machine with a GPU: `pytest
tests/gpu/kernel_cases.py` then compiles the kernels and runs them there, CUDA graph included.
"""

import os

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from bayesian_transformer.noise import philox4x32, standard_normal
from bayesian_transformer.uncertainty import FIELDS, mixture_logits, token_uncertainty
from bayesian_transformer.vllm_plugin.kernels import triton_statistics
from bayesian_transformer.vllm_plugin.kernels.triton_noise import (
    add_left_noise,
    add_right_noise,
    draw_noise,
    random_words,
)
from bayesian_transformer.vllm_plugin.kernels.triton_statistics import fused_mixture_logits, fused_token_uncertainty
from tests.helpers.noisy_parts import CHOICES, parts_of, sites_of
from tests.unit.test_uncertainty import brute_force

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
INT64 = st.integers(-(2**63), 2**63 - 1)
few = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
# The interpreter computes with numpy, which warns where infinities are meant to meet.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore:TRITON_DEFAULT_FP_FUSION")


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several chunks and groups in a few hundred tokens."""
    monkeypatch.setattr(triton_statistics, "_ROW_CHUNK", 64)
    monkeypatch.setattr(triton_statistics, "_MIXTURE_CHUNK", 32)
    monkeypatch.setattr(triton_statistics, "_GROUP", 8)


def check(logits: Tensor, token_ids: Tensor | None, atol: float = 2e-5, brute: bool = True) -> Tensor:
    """Compare with the plain formula, and with the definitions where these are defined; returns float32 [N, 8]."""
    logits, token_ids = logits.to(DEVICE), None if token_ids is None else token_ids.to(DEVICE)
    result = fused_token_uncertainty(logits, token_ids).stack()
    assert result.dtype == torch.float32
    torch.testing.assert_close(
        result, token_uncertainty(logits, token_ids).stack(), rtol=1e-5, atol=atol, equal_nan=True
    )
    if brute and token_ids is not None:
        expected = brute_force(logits.float().cpu().numpy(), token_ids.cpu().numpy())
        for name, column in zip(FIELDS, result.cpu().numpy().T, strict=True):
            np.testing.assert_allclose(column, expected[name], rtol=1e-5, atol=atol, err_msg=name)
    plain_mixture = mixture_logits(logits)
    torch.testing.assert_close(fused_mixture_logits(logits), plain_mixture, rtol=1e-5, atol=atol, equal_nan=True)
    return result


@given(data=st.data(), num_samples=st.integers(1, 6), tokens=st.integers(1, 3), vocabulary=st.integers(1, 300))
@few
def test_agrees_for_any_shape_and_value(
    small_chunks: None, data: st.DataObject, num_samples: int, tokens: int, vocabulary: int
) -> None:
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**32)))
    scale = data.draw(st.sampled_from([0.0, 0.1, 3.0, 100.0]))
    logits = scale * torch.randn(num_samples, tokens, vocabulary, generator=generator)
    logits += scale * torch.randn(1, tokens, vocabulary, generator=generator)
    for _ in range(data.draw(st.integers(0, 5))):  # extremes at places of hypothesis' choice
        place = tuple(data.draw(st.integers(0, size - 1)) for size in logits.shape)
        logits[place] = data.draw(st.sampled_from([1e4, -1e4, 0.0]))
    token_ids = torch.tensor(data.draw(st.lists(st.integers(0, vocabulary - 1), min_size=tokens, max_size=tokens)))
    dtype = data.draw(st.sampled_from([torch.float32, torch.bfloat16, torch.float16]))
    check(logits.to(dtype), token_ids, atol=5e-3)  # log-probabilities of -2e4 carry float32 rounding of 1e-3


@pytest.mark.parametrize(("num_samples", "tokens"), [(1, 3), (2, 1), (10, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_agrees_at_a_real_vocabulary_size(num_samples: int, tokens: int, dtype: torch.dtype) -> None:
    torch.manual_seed(num_samples)
    logits = (4 * torch.randn(1, tokens, 50_257) + 0.1 * torch.randn(num_samples, tokens, 50_257)).to(dtype)
    check(logits, torch.randint(50_257, (tokens,)))


def test_one_hot_and_masked_distributions(small_chunks: None) -> None:
    logits = torch.full((3, 4, 150), -torch.inf)
    logits[:, 0, 140] = 5.0  # everything masked but one token
    logits[:, 1] = -1e4
    logits[[0, 1, 2], 1, [0, 70, 149]] = 1e4  # three certain samples that disagree
    logits[:, 2, 64:128] = torch.randn(3, 64)  # whole chunks masked
    logits[:, 3, ::7] = torch.randn(3, 22)
    for token_ids in ([140, 0, 64, 0], [0, 149, 0, 1]):  # possible tokens, then masked ones
        result = check(logits, torch.tensor(token_ids))
    assert result[0, FIELDS.index("implicit_reward")] == 0  # ruled out by all samples
    assert result[0, FIELDS.index("self_certainty")] == torch.inf
    np.testing.assert_allclose(result[1, FIELDS.index("epistemic")].item(), np.log(3), rtol=1e-6)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("sample", [0, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bad_values_give_nan_where_the_plain_formula_does(
    small_chunks: None, bad: float, sample: int, dtype: torch.dtype
) -> None:
    logits = torch.randn(3, 3, 200).to(dtype)
    logits[sample, 0, 130] = bad
    logits[sample, 1] = -torch.inf  # no token left
    result = check(logits, torch.tensor([5, 5, 5]), brute=False)
    assert result[:2, FIELDS.index("total")].isnan().all()
    assert not result[2].isnan().any()


def test_nan_among_masked_tokens(small_chunks: None) -> None:
    logits = torch.full((2, 1, 100), -torch.inf)
    logits[0, 0, 99] = torch.nan
    check(logits, torch.tensor([3]), brute=False)


@pytest.mark.parametrize("values", [1, 3, 40])
def test_ties_among_the_largest(small_chunks: None, values: int) -> None:
    check(torch.randint(values, (2, 3, 260)).to(torch.bfloat16), torch.tensor([0, 100, 259]))


def test_strides_of_the_plugin(small_chunks: None) -> None:
    """A vocabulary cut from padded rows, token ids cut from a matrix, samples in any order."""
    torch.manual_seed(0)
    padded = torch.randn(4 * 3, 160, device=DEVICE)
    view = padded[:, :131].unflatten(0, (-1, 3))
    token_ids = torch.tensor([[7, 1], [130, 2], [0, 3]], device=DEVICE)[:, 0]
    for logits in (view, view.flip(0).transpose(0, 1).contiguous().transpose(0, 1), view.mT.contiguous().mT):
        check(logits, token_ids)


def test_tokens_are_optional_and_checked() -> None:
    assert check(torch.randn(3, 2, 50), None)[:, 3:5].isnan().all()
    result = fused_token_uncertainty(
        torch.randn(3, 2, 50, device=DEVICE), torch.tensor([-1, 50], device=DEVICE)
    )  # a gather would read outside of the logits
    assert result.logprob.isnan().all()
    assert not result.total.isnan().any()
    assert fused_token_uncertainty(torch.empty(3, 0, 11, device=DEVICE)).stack().shape == (0, 8)
    with pytest.raises(ValueError, match=r"shape \[3\], got \[2\]"):
        fused_token_uncertainty(torch.zeros(2, 3, 4, device=DEVICE), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"\[num_samples, tokens, vocabulary\].*\[2, 3\]"):
        fused_token_uncertainty(torch.zeros(2, 3, device=DEVICE))


def test_a_token_does_not_depend_on_its_batch() -> None:
    logits, token_ids = torch.randn(5, 7, 9000, device=DEVICE), torch.arange(7, device=DEVICE)
    whole = fused_token_uncertainty(logits, token_ids).stack()
    assert torch.equal(fused_token_uncertainty(logits[:, 3:4], token_ids[3:4]).stack(), whole[3:4])


@triton.jit
def store_words(
    out: tl.tensor, seeds: tl.tensor, positions: tl.tensor, sites: tl.tensor, samples: tl.tensor, blocks: tl.tensor
) -> None:
    i = tl.program_id(0)
    position, site, sample = tl.load(positions + i), tl.load(sites + i), tl.load(samples + i)
    word0, word1, word2, word3 = random_words(tl.load(seeds + i), position, site, sample, tl.load(blocks + i))
    tl.store(out + 4 * i, word0.to(tl.int64))
    tl.store(out + 4 * i + 1, word1.to(tl.int64))
    tl.store(out + 4 * i + 2, word2.to(tl.int64))
    tl.store(out + 4 * i + 3, word3.to(tl.int64))


@given(
    st.lists(
        st.tuples(INT64, st.integers(0, 2**32 - 1), st.integers(0, 500), st.integers(1, 64), st.integers(0, 5000)),
        min_size=1,
        max_size=20,
    )
)
@few
def test_random_words_are_bit_exact(counters: list[tuple[int, ...]]) -> None:
    seed, position, site, sample, block = columns = torch.tensor(counters, device=DEVICE).T.contiguous()
    out = torch.empty(len(counters), 4, dtype=torch.int64, device=DEVICE)
    store_words[(len(counters),)](out, *columns)
    expected = philox4x32((block, position, site, sample), (seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF))
    assert torch.equal(out, torch.stack(expected, dim=-1))


def plain_noise(seeds: Tensor, positions: Tensor, num_samples: int, sites: Tensor, width: int) -> Tensor:
    """float32 [layers, P, N, width] from noise.py for sites [layers, N], with rows as in particles.py."""
    sample = torch.arange(1, num_samples, device=DEVICE).repeat_interleave(len(seeds))[:, None]
    seed, position = (t.repeat(num_samples - 1)[:, None] for t in (seeds, positions))
    return standard_normal(seed, position, sites[:, None], sample, width)


requests = st.lists(st.tuples(INT64, st.integers(0, 2**31)), min_size=1, max_size=5)


@given(
    requests=requests,
    num_samples=st.integers(1, 4),
    layers=st.integers(1, 3),
    width=st.integers(1, 17),
    projections=st.sampled_from(CHOICES),
)
@few
def test_drawn_noise_is_the_plain_noise(
    requests: list[tuple[int, int]], num_samples: int, layers: int, width: int, projections: tuple[str, ...]
) -> None:
    seeds, positions = torch.tensor(requests, device=DEVICE).T.contiguous()
    sites = sites_of(projections, layers).to(DEVICE)
    expected = plain_noise(seeds, positions, num_samples, sites, width)
    out = torch.full_like(expected, torch.nan)
    draw_noise(out, seeds, positions, sites)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("q_size", "kv_size", "hidden"), [(128, 32, 64), (300, 100, 2500)])
@pytest.mark.parametrize("rows", [1, 6])
@pytest.mark.parametrize("projections", CHOICES)
def test_right_noise_is_added_to_the_noisy_parts(
    dtype: torch.dtype, q_size: int, kv_size: int, hidden: int, rows: int, projections: tuple[str, ...]
) -> None:
    torch.manual_seed(0)
    rank, sigma, parts = 5, 0.1, parts_of(projections, q_size, kv_size)
    buffer = torch.randn(rows + 2, q_size + 2 * kv_size, device=DEVICE).to(dtype)
    x = torch.randn(rows + 2, hidden, device=DEVICE).to(dtype)
    basis = torch.randn(len(parts) * rank, q_size + 2 * kv_size, device=DEVICE).to(dtype)
    z = torch.randn(rows, len(parts) * rank, device=DEVICE)
    expected = buffer.float()
    scaled = sigma * x[2:].float().norm(dim=-1, keepdim=True) * z
    for i, (begin, size, _) in enumerate(parts):
        share, columns = slice(i * rank, (i + 1) * rank), slice(begin, begin + size)
        expected[2:, columns] += scaled[:, share] @ basis[share, columns].float()
    add_right_noise(buffer[2:], x[2:], basis, z, sigma, parts)
    torch.testing.assert_close(
        buffer.float(), expected.to(dtype).float(), rtol=1e-2 if dtype.itemsize == 2 else 1e-5, atol=1e-4
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("q_size", "kv_size", "starts"), [(64, 32, (0, 0)), (260, 132, (260, 128))])
@pytest.mark.parametrize("projections", CHOICES)
def test_left_noise_is_added_to_the_noisy_parts(
    dtype: torch.dtype, q_size: int, kv_size: int, starts: tuple[int, int], projections: tuple[str, ...]
) -> None:
    torch.manual_seed(0)
    parts = parts_of(projections, q_size, kv_size, starts)
    seeds, positions = torch.tensor([3, -9], device=DEVICE), torch.tensor([0, 77], device=DEVICE)
    num_samples, layer = 4, 1
    rows = 2 * (num_samples - 1)
    buffer = torch.randn(rows + 1, q_size + 2 * kv_size, device=DEVICE).to(dtype)
    scale = torch.rand(rows, len(parts), device=DEVICE)
    sites = sites_of(projections, layer + 1).to(DEVICE)
    expected = buffer.float()
    z = plain_noise(seeds, positions, num_samples, sites, starts[0] + q_size + starts[1] + kv_size)[layer]
    for i, (begin, size, start) in enumerate(parts):
        expected[1:, begin : begin + size] += scale[:, i, None] * z[:, i, start : start + size]
    add_left_noise(buffer[1:], scale, seeds, positions, sites[layer], parts)
    torch.testing.assert_close(
        buffer.float(), expected.to(dtype).float(), rtol=1e-2 if dtype.itemsize == 2 else 1e-5, atol=1e-5
    )


def test_wrong_arguments_of_the_noise_are_named() -> None:
    ids = torch.zeros(2, dtype=torch.int64, device=DEVICE)
    qkv, x, basis = (torch.zeros(*shape, device=DEVICE) for shape in ((4, 24), (4, 16), (6, 24)))
    sites, parts = torch.zeros(1, 2, dtype=torch.int64, device=DEVICE), parts_of(("q_proj", "v_proj"), 8, 8)
    with pytest.raises(ValueError, match="5 particle rows cannot belong to 2 requests"):
        draw_noise(torch.zeros(1, 5, 2, 3, device=DEVICE), ids, ids, sites)
    with pytest.raises(ValueError, match="positions must be a contiguous int64"):
        draw_noise(torch.zeros(1, 4, 2, 3, device=DEVICE), ids, ids.float(), sites)
    with pytest.raises(ValueError, match=r"sites must be a contiguous int64 \[1, 3\], got torch.int64 \[1, 2\]"):
        draw_noise(torch.zeros(1, 4, 3, 3, device=DEVICE), ids, ids, sites)
    with pytest.raises(ValueError, match=r"z must be a contiguous float32 \[4, 6\]"):
        add_right_noise(qkv, x, basis, torch.zeros(3, 6, device=DEVICE), 0.1, parts)
    further = parts_of(("q_proj", "v_proj"), 9, 8)
    with pytest.raises(ValueError, match=r"qkv must be \[rows, 25 or more\]"):
        add_right_noise(qkv, x, basis, torch.zeros(4, 6, device=DEVICE), 0.1, further)
    scale = torch.zeros(4, 2, device=DEVICE)
    with pytest.raises(ValueError, match="multiple of 4"):
        add_left_noise(qkv, scale, ids, ids, sites[0], parts_of(("q_proj", "v_proj"), 8, 8, (2, 0)))


@pytest.mark.skipif(INTERPRETED, reason="a CUDA graph needs a GPU")
def test_a_captured_graph_replays_on_new_values() -> None:
    logits, token_ids = torch.randn(5, 3, 5000, device=DEVICE), torch.arange(3, device=DEVICE)
    noise, seeds = torch.empty(2, 12, 2, 8, device=DEVICE), torch.arange(3, device=DEVICE)
    sites = sites_of(("q_proj", "v_proj"), 2).to(DEVICE)
    fused_token_uncertainty(logits, token_ids)  # compiles
    draw_noise(noise, seeds, token_ids, sites)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = fused_token_uncertainty(logits, token_ids).stack()
        draw_noise(noise, seeds, token_ids, sites)
    logits.normal_()
    seeds += 5
    graph.replay()
    torch.testing.assert_close(result, token_uncertainty(logits, token_ids).stack(), rtol=1e-5, atol=2e-5)
    torch.testing.assert_close(noise, plain_noise(seeds, token_ids, 5, sites, 8), rtol=0, atol=1e-6)
