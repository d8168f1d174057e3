"""The C++ kernels compared with the plain torch formulas and float64 definitions, and what happens without a compiler.

Attention is in test_vllm_attention.py.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

pytest.importorskip("vllm")
from bayesian_transformer.uncertainty import FIELDS, token_uncertainty
from bayesian_transformer.vllm_plugin.kernels import cpp, plain
from tests.helpers.noisy_parts import CHOICES, parts_of, sites_of
from tests.unit.test_uncertainty import brute_force

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
INT64 = st.integers(-(2**63), 2**63 - 1)


def test_are_compiled_here() -> None:
    assert cpp.library() is not None


def check(logits: Tensor, token_ids: Tensor | None, atol: float = 2e-5, brute: bool = True) -> Tensor:
    """Compare with the plain formula, and with the definitions where these are defined; returns float32 [N, 8]."""
    assert cpp.supports(logits)
    result = cpp.token_uncertainty(logits, token_ids).stack()
    wanted = token_uncertainty(logits, token_ids).stack()
    torch.testing.assert_close(result, wanted, rtol=1e-5, atol=atol, equal_nan=True)
    if brute and token_ids is not None:
        expected = brute_force(logits.float().numpy(), token_ids.numpy())
        for name, column in zip(FIELDS, result.numpy().T, strict=True):
            np.testing.assert_allclose(column, expected[name], rtol=1e-5, atol=atol, err_msg=name)
    return result


@given(data=st.data(), num_samples=st.integers(1, 6), tokens=st.integers(1, 3), vocabulary=st.integers(1, 300))
@settings(deadline=None)
def test_statistics_for_any_shape_and_value(
    data: st.DataObject, num_samples: int, tokens: int, vocabulary: int
) -> None:
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**32)))
    scale = data.draw(st.sampled_from([0.0, 0.1, 3.0, 100.0]))
    logits = scale * torch.randn(num_samples, tokens, vocabulary, generator=generator)
    logits += scale * torch.randn(1, tokens, vocabulary, generator=generator)
    for _ in range(data.draw(st.integers(0, 5))):  # extremes at places of hypothesis' choice
        place = tuple(data.draw(st.integers(0, size - 1)) for size in logits.shape)
        logits[place] = data.draw(st.sampled_from([1e4, -1e4, 0.0]))
    token_ids = torch.tensor(data.draw(st.lists(st.integers(0, vocabulary - 1), min_size=tokens, max_size=tokens)))
    check(logits.to(data.draw(st.sampled_from(DTYPES))), token_ids, atol=5e-3)  # log-probabilities reach -2e4


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("num_samples", "vocabulary"), [(1, 49_152), (5, 128_256), (2, 151_936)])
def test_statistics_at_real_vocabulary_sizes(dtype: torch.dtype, num_samples: int, vocabulary: int) -> None:
    torch.manual_seed(num_samples)
    logits = (4 * torch.randn(1, 3, vocabulary) + 0.1 * torch.randn(num_samples, 3, vocabulary)).to(dtype)
    token_ids = torch.randint(vocabulary, (3,))
    result = check(logits, token_ids)
    expected = brute_force(logits.float().numpy(), token_ids.numpy())
    for name, column in zip(FIELDS, result.double().numpy().T, strict=True):  # on average, near float32 rounding
        assert np.abs(column - expected[name]).mean() < 2e-6 * max(1, np.abs(expected[name]).max()), name


def test_one_hot_and_masked_distributions() -> None:
    logits = torch.full((3, 4, 150), -torch.inf)
    logits[:, 0, 140] = 5.0  # everything masked but one token
    logits[:, 1] = -1e4
    logits[[0, 1, 2], 1, [0, 70, 149]] = 1e4  # three certain samples that disagree
    logits[:, 2, 64:128] = torch.randn(3, 64)
    logits[:, 3, ::7] = torch.randn(3, 22)
    for token_ids in ([140, 0, 64, 0], [0, 149, 0, 1]):  # possible tokens, then masked ones
        result = check(logits, torch.tensor(token_ids))
    assert result[0, FIELDS.index("implicit_reward")] == 0  # ruled out by all samples
    assert result[0, FIELDS.index("self_certainty")] == torch.inf
    np.testing.assert_allclose(result[1, FIELDS.index("epistemic")].item(), np.log(3), rtol=1e-6)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("sample", [0, 2])
@pytest.mark.parametrize("place", [3, 198])  # in a whole vector, and in the last one
@pytest.mark.parametrize("dtype", DTYPES)
def test_bad_values_give_nan_where_the_plain_formula_does(
    bad: float, sample: int, place: int, dtype: torch.dtype
) -> None:
    logits = torch.randn(3, 3, 200).to(dtype)
    logits[sample, 0, place] = bad
    logits[sample, 1] = -torch.inf  # no token left
    for token_ids in (torch.tensor([5, 5, 5]), torch.tensor([place, 5, 5])):
        result = check(logits, token_ids, brute=False)
        assert result[:2, FIELDS.index("total")].isnan().all()
        assert not result[2].isnan().any()


def test_samples_that_agree_have_no_epistemic_part() -> None:
    logits = (5 * torch.randn(1, 4, 5000)).expand(5, -1, -1)
    result = cpp.token_uncertainty(logits, torch.arange(4))
    assert result.epistemic.abs().max() < 2e-6
    assert result.implicit_reward.abs().max() < 1e-6


@pytest.mark.parametrize("values", [1, 3, 40])
def test_ties_among_the_largest(values: int) -> None:
    check(torch.randint(values, (2, 3, 260)).to(torch.bfloat16), torch.tensor([0, 100, 259]))


def test_strides_of_the_plugin_and_optional_tokens() -> None:
    padded = torch.randn(4 * 3, 160)
    view = padded[:, :131].unflatten(0, (-1, 3))
    token_ids = torch.tensor([[7, 1], [130, 2], [0, 3]])[:, 0]
    for logits in (view, view.flip(0).transpose(0, 1).contiguous().transpose(0, 1)):
        check(logits, token_ids)
    assert not cpp.supports(view.mT.contiguous().mT)  # left to the plain formula
    assert check(view, None)[:, 3:5].isnan().all()
    out_of_range = cpp.token_uncertainty(view, torch.tensor([-1, 131, 0]))
    assert out_of_range.logprob[:2].isnan().all()
    assert not out_of_range.total.isnan().any()
    assert cpp.token_uncertainty(torch.empty(3, 0, 11)).stack().shape == (0, 8)


def test_a_token_does_not_depend_on_its_batch() -> None:
    logits, token_ids = torch.randn(5, 7, 9000), torch.arange(7)
    whole = cpp.token_uncertainty(logits, token_ids).stack()
    assert torch.equal(cpp.token_uncertainty(logits[:, 3:4], token_ids[3:4]).stack(), whole[3:4])


requests = st.lists(st.tuples(INT64, st.integers(0, 2**31)), min_size=1, max_size=5)


@given(
    requests=requests,
    noisy_samples=st.integers(1, 4),
    layers=st.integers(1, 3),
    width=st.integers(1, 17),
    projections=st.sampled_from(CHOICES),
)
@settings(deadline=None)
def test_drawn_noise_is_the_plain_noise(
    requests: list[tuple[int, int]], noisy_samples: int, layers: int, width: int, projections: tuple[str, ...]
) -> None:
    seeds, positions = torch.tensor(requests).T.contiguous()
    sites = sites_of(projections, layers)
    fused, expected = torch.full((2, layers, noisy_samples * len(requests), len(projections), width), torch.nan)
    cpp.draw_noise(fused, seeds, positions, sites)
    plain.draw_noise(expected, seeds, positions, sites)
    torch.testing.assert_close(fused, expected, rtol=0, atol=1e-6)


def compare(functions: tuple[Callable[..., None], ...], qkv: Tensor, *arguments: object) -> None:
    """Both on copies of `qkv`, the particle rows after two ordinary ones, which stay; equal up to one rounding."""
    buffers = [qkv.clone() for _ in functions]
    for function, buffer in zip(functions, buffers, strict=True):
        function(buffer[2:], *arguments)
    exact = qkv.float()
    functions[1](exact[2:], *(a.float() if isinstance(a, Tensor) and a.is_floating_point() else a for a in arguments))
    for buffer in buffers:
        assert torch.equal(buffer[:2], qkv[:2])
        torch.testing.assert_close(buffer.float(), exact, rtol=torch.finfo(qkv.dtype).eps, atol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("q_size", "kv_size", "hidden"), [(128, 32, 64), (300, 100, 2500), (20, 4, 9)])
@pytest.mark.parametrize("rows", [1, 6])
@pytest.mark.parametrize("projections", CHOICES)
def test_right_noise_is_added_to_the_noisy_parts(
    dtype: torch.dtype, q_size: int, kv_size: int, hidden: int, rows: int, projections: tuple[str, ...]
) -> None:
    torch.manual_seed(0)
    rank, width, parts = 5, q_size + 2 * kv_size, parts_of(projections, q_size, kv_size)
    qkv, x = torch.randn(rows + 2, width).to(dtype), torch.randn(rows, hidden).to(dtype)
    basis = torch.zeros(len(parts) * rank, width)
    for i, (begin, size, _) in enumerate(parts):
        basis[i * rank : (i + 1) * rank, begin : begin + size] = torch.randn(rank, size)
    z = torch.randn(rows, len(parts) * rank)
    functions = (cpp.add_right_noise, plain.add_right_noise)
    compare(functions, qkv, x, basis.to(dtype), z, 0.1, parts)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("q_size", "kv_size", "starts"), [(64, 32, (0, 0)), (260, 132, (260, 128)), (6, 3, (0, 4))])
@pytest.mark.parametrize("projections", CHOICES)
def test_left_noise_is_added_to_the_noisy_parts(
    dtype: torch.dtype, q_size: int, kv_size: int, starts: tuple[int, int], projections: tuple[str, ...]
) -> None:
    torch.manual_seed(0)
    seeds, positions, rows = torch.tensor([3, -9]), torch.tensor([0, 77]), 6
    sites, parts = sites_of(projections, 2)[1], parts_of(projections, q_size, kv_size, starts)
    qkv, scale = torch.randn(rows + 2, q_size + 2 * kv_size).to(dtype), torch.rand(rows, len(parts))
    functions = (cpp.add_left_noise, plain.add_left_noise)
    compare(functions, qkv, scale, seeds, positions, sites, parts)


def test_wrong_tensors_are_named() -> None:
    ids, z = torch.zeros(2, dtype=torch.int64), torch.zeros(1, 4, 2, 3)
    qkv, x, basis = torch.zeros(4, 24), torch.zeros(4, 16), torch.zeros(6, 24)
    sites, parts = torch.zeros(1, 2, dtype=torch.int64), parts_of(("q_proj", "v_proj"), 8, 8)
    with pytest.raises(ValueError, match=r"out must be a contiguous torch.float32 \[1, 4, 2, 3\], got torch.bfloat16"):
        cpp.draw_noise(z.bfloat16(), ids, ids, sites)
    with pytest.raises(ValueError, match="out must be"):
        cpp.draw_noise(torch.zeros(1, 5, 2, 3), ids, ids, sites)
    with pytest.raises(ValueError, match="positions must be"):
        cpp.draw_noise(z, ids, ids.float(), sites)
    with pytest.raises(ValueError, match=r"sites must be a contiguous torch.int64 \[2, 2\]"):
        cpp.draw_noise(torch.zeros(2, 4, 2, 3), ids, ids, sites)
    with pytest.raises(ValueError, match=r"z must be a contiguous torch.float32 \[4, 6\]"):
        cpp.add_right_noise(qkv, x, basis, torch.zeros(3, 6), 0.1, parts)
    with pytest.raises(ValueError, match="scale must be"):
        cpp.add_left_noise(qkv, torch.zeros(4, 3), ids, ids, sites[0], parts)
    with pytest.raises(ValueError, match=r"token_ids must have shape \[2\]"):
        cpp.token_uncertainty(torch.zeros(2, 2, 5), torch.zeros(3, dtype=torch.int64))


WITHOUT = """
import torch
from bayesian_transformer.vllm_plugin import kernels
from bayesian_transformer.vllm_plugin.kernels import cpp, plain
assert kernels.mode() == "plain" or cpp.library() is None
assert kernels.noise_functions(torch.zeros(1)) is plain
assert kernels.token_uncertainty(torch.randn(3, 2, 9), torch.arange(2)).total.isfinite().all()
"""


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"CXX": "no-such-compiler"}, "cannot be compiled"),
        ({"CXX": "false"}, "cannot be compiled"),
        ({"TOKUR_CPU_KERNELS": "0"}, ""),
    ],
)
def test_without_them_the_plain_formulas_are_used(variables: dict[str, str], said: str, tmp_path: Path) -> None:
    environment = {**os.environ, "TOKUR_CACHE": str(tmp_path), **variables}
    done = subprocess.run([sys.executable, "-c", WITHOUT], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (said in done.stdout + done.stderr) if said else "compiled" not in done.stdout + done.stderr
    assert not list(tmp_path.iterdir())  # nothing half-made stays
