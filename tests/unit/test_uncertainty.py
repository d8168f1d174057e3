"""Token uncertainties beside the textbook formulas in float64."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, logsumexp, xlogy

from bayesian_transformer.uncertainty import FIELDS, TokenUncertainty, mixture_logits, token_uncertainty

finite_logits = st.floats(-1e4, 1e4, width=32)


def brute_force(logits: np.ndarray, token_ids: np.ndarray) -> dict[str, np.ndarray]:
    """The definitions, in float64."""
    with np.errstate(divide="ignore", invalid="ignore"):
        log_p = log_softmax(logits.astype(np.float64), axis=-1)
        p = np.exp(log_p)

        def entropy(q: np.ndarray) -> np.ndarray:
            return -xlogy(q, q).sum(-1)

        chosen = np.take_along_axis(log_p, np.broadcast_to(token_ids, log_p.shape[:2])[..., None], -1)[..., 0]
        reward = logsumexp(chosen, axis=0) - np.log(len(chosen)) - chosen.mean(0)
        vocabulary = logits.shape[-1]
        return {
            "total": entropy(p.mean(0)),
            "aleatoric": entropy(p).mean(0),
            "epistemic": entropy(p.mean(0)) - entropy(p).mean(0),
            "implicit_reward": np.where(np.isneginf(chosen).all(0), 0.0, reward),
            "logprob": chosen[0],
            "entropy": entropy(p[0]),
            "self_certainty": -np.log(vocabulary) - log_p[0].mean(-1),
            "confidence": -np.sort(log_p[0], axis=-1)[:, ::-1][:, : min(20, vocabulary)].mean(-1),
        }


def check(logits: torch.Tensor, token_ids: torch.Tensor, atol: float = 2e-5) -> TokenUncertainty:
    result = token_uncertainty(logits, token_ids)
    expected = brute_force(logits.float().numpy(), token_ids.numpy())
    for name in FIELDS:
        value = getattr(result, name)
        assert value.dtype == torch.float32
        np.testing.assert_allclose(value.numpy(), expected[name], rtol=1e-5, atol=atol, err_msg=name)
    return result


@given(data=st.data(), num_samples=st.integers(1, 5), tokens=st.integers(1, 4), vocabulary=st.integers(1, 30))
@settings(deadline=None)
def test_agrees_with_the_definitions(data: st.DataObject, num_samples: int, tokens: int, vocabulary: int) -> None:
    size = num_samples * tokens * vocabulary
    values = data.draw(st.lists(finite_logits, min_size=size, max_size=size))
    chosen = data.draw(st.lists(st.integers(0, vocabulary - 1), min_size=tokens, max_size=tokens))
    logits = torch.tensor(values).view(num_samples, tokens, vocabulary)
    check(logits, torch.tensor(chosen), atol=5e-3)  # log-probabilities of -2e4 carry float32 rounding of 1e-3


@pytest.mark.parametrize("num_samples", [1, 2, 10])
def test_agrees_at_a_real_vocabulary_size(num_samples: int) -> None:
    torch.manual_seed(num_samples)
    base = 4 * torch.randn(1, 9, 50_000)
    check(base + 0.1 * torch.randn(num_samples, 9, 50_000), torch.arange(9))


def test_masked_tokens_and_one_hot_distributions() -> None:
    logits = torch.tensor([[[0.0, -torch.inf, 1.0], [1e4, -1e4, 0.0]], [[0.0, -torch.inf, 2.0], [-1e4, 1e4, 0.0]]])
    result = check(logits, torch.tensor([1, 0]))
    assert result.implicit_reward[0] == 0  # ruled out by both samples
    assert result.self_certainty[0] == torch.inf
    np.testing.assert_allclose(result.total[1], math.log(2), rtol=1e-6)  # two certain samples that disagree
    assert result.aleatoric[1] == 0
    np.testing.assert_allclose(result.epistemic[1], math.log(2), rtol=1e-6)


def test_one_sample_is_entropy_only() -> None:
    result = token_uncertainty(torch.randn(1, 7, 100), torch.arange(7))
    assert torch.equal(result.total, result.entropy)
    assert torch.equal(result.aleatoric, result.entropy)
    assert not result.epistemic.any()
    assert result.implicit_reward.abs().max() < 1e-6


def test_identical_samples_have_no_epistemic_uncertainty() -> None:
    result = token_uncertainty((5 * torch.randn(1, 7, 5000)).expand(10, -1, -1), torch.arange(7))
    assert result.epistemic.abs().max() < 1e-5
    assert result.implicit_reward.abs().max() < 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_dtypes_are_computed_in_float32(dtype: torch.dtype) -> None:
    logits = torch.randn(3, 4, 50).to(dtype)
    expected = token_uncertainty(logits.float(), torch.arange(4))
    assert torch.equal(token_uncertainty(logits, torch.arange(4)).stack(), expected.stack())


def test_chunks_give_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, tokens = torch.randn(4, 23, 300), torch.arange(23)
    whole = token_uncertainty(logits, tokens).stack()
    monkeypatch.setattr("bayesian_transformer.uncertainty._CHUNK_ELEMENTS", 4 * 300 * 5)
    torch.testing.assert_close(token_uncertainty(logits, tokens).stack(), whole)


def test_input_is_left_alone_and_tokens_are_optional() -> None:
    logits = torch.randn(3, 2, 11)
    before = logits.clone()
    result = token_uncertainty(logits)
    assert torch.equal(logits, before)
    assert result.logprob.isnan().all()
    assert result.implicit_reward.isnan().all()
    assert not result.total.isnan().any()


def test_no_tokens() -> None:
    assert token_uncertainty(torch.empty(3, 0, 11), torch.empty(0, dtype=torch.int64)).stack().shape == (0, 8)


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(ValueError, match=r"\[num_samples, tokens, vocabulary\].*\[2, 3\]"):
        token_uncertainty(torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"shape \[3\], got \[2\]"):
        token_uncertainty(torch.zeros(2, 3, 4), torch.zeros(2, dtype=torch.int64))


def test_mixture_is_the_log_of_the_mean_distribution() -> None:
    logits = 3 * torch.randn(5, 4, 60)
    expected = torch.softmax(logits.double(), -1).mean(0).log()
    torch.testing.assert_close(mixture_logits(logits).double(), expected, atol=1e-5, rtol=1e-5)
