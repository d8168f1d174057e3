"""Token uncertainties from the next-token distributions of S weight samples. All formulas live here.

With p_s the softmax of sample s over the whole vocabulary and H(p) = -sum_v p(v) log p(v), in nats:

    total      TU = H(mean_s p_s)
    aleatoric  AU = mean_s H(p_s)
    epistemic  EU = TU - AU, the mutual information between the token and the weights
    BIR(y)        = log mean_s p_s(y) - mean_s log p_s(y), the Bayesian implicit reward of token y

Source: TokUR (arXiv 2505.11737). Of the noise-free p_0 alone: its entropy, the log-probability of y, self-certainty
KL(uniform || p_0), and DeepConf's token confidence, minus the mean of the 20 largest log-probabilities.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .quantities import ATTRIBUTES, FIELDS

CONFIDENCE_TOP_K = 20
_CHUNK_ELEMENTS = 1 << 20  # bounds the float32 temporaries of one chunk to a few times 4 MiB: a CPU's caches
_LOG_FLOOR = -1e4  # exp of it is exactly 0 in float32, and 0 * _LOG_FLOOR is 0 where 0 * -inf would be NaN


@dataclass(frozen=True)
class TokenUncertainty:
    """Eight quantities for N tokens: float32 tensors of shape [N], in nats."""

    total: Tensor
    aleatoric: Tensor
    epistemic: Tensor
    implicit_reward: Tensor
    logprob: Tensor
    entropy: Tensor
    self_certainty: Tensor
    confidence: Tensor

    @classmethod
    def from_table(cls, table: Tensor) -> "TokenUncertainty":
        """From a tensor [..., 8] with columns in the order of FIELDS; the quantities are views of it."""
        return cls(**dict(zip(FIELDS, table.unbind(-1), strict=True)))

    def stack(self) -> Tensor:
        """The quantities as one float32 tensor [N, 8], columns in the order of FIELDS."""
        return torch.stack([getattr(self, name) for name in FIELDS], dim=-1)


@dataclass(frozen=True)
class Uncertainty:
    """The uncertainties of one generated token, in nats, under the published names."""

    total_uncertainty: float
    aleatoric_uncertainty: float
    epistemic_uncertainty: float
    bayes_implicit_reward: float
    logprob: float
    entropy: float
    self_certainty: float
    confidence: float
    decoded_token: str | None = None

    @classmethod
    def from_row(cls, row: Sequence[float], decoded_token: str | None = None) -> "Uncertainty":
        """From the eight values in the order of FIELDS."""
        return cls(**dict(zip(ATTRIBUTES, row, strict=True)), decoded_token=decoded_token)

    def row(self) -> list[float]:
        """The eight values in the order of FIELDS."""
        return [getattr(self, attribute) for attribute in ATTRIBUTES]


def token_uncertainty(logits: Tensor, token_ids: Tensor | None = None) -> TokenUncertainty:
    """Uncertainties of N tokens from the raw logits of S weight samples; sample 0 is the noise-free one.

    Args:
        logits: [S, N, V], any floating dtype; computed in float32. -inf masks a token; +inf or NaN gives NaN.
        token_ids: int [N], the tokens that were chosen. Without them implicit_reward and logprob are NaN.

    With S = 1, total and aleatoric equal the entropy, epistemic and implicit_reward are 0.
    A masked token makes self_certainty +inf (the uniform distribution is not absolutely continuous to p_0).
    """
    if logits.dim() != 3 or 0 in (logits.shape[0], logits.shape[2]):
        raise ValueError(
            f"logits must be [num_samples, tokens, vocabulary], none empty but tokens; got {list(logits.shape)}"
        )
    if token_ids is not None and token_ids.shape != logits.shape[1:2]:
        raise ValueError(f"token_ids must have shape [{logits.shape[1]}], got {list(token_ids.shape)}")
    num_samples, tokens, vocabulary = logits.shape
    step = max(1, _CHUNK_ELEMENTS // (num_samples * vocabulary))
    parts = [
        _chunk_uncertainty(logits[:, i : i + step], None if token_ids is None else token_ids[i : i + step])
        for i in range(0, max(tokens, 1), step)
    ]
    return TokenUncertainty.from_table(torch.cat([part.stack() for part in parts]))


def mixture_logits(logits: Tensor) -> Tensor:
    """log mean_s p_s as float32 [N, V], from logits [S, N, V]: what `use_tfb_for_generation` samples from."""
    return logits.float().log_softmax(-1).logsumexp(0) - math.log(logits.shape[0])


def _chunk_uncertainty(logits: Tensor, token_ids: Tensor | None) -> TokenUncertainty:
    num_samples, _, vocabulary = logits.shape
    shifted = logits.float()
    shifted = shifted - shifted.amax(-1, keepdim=True)
    probability = shifted.exp()
    normaliser = probability.sum(-1, keepdim=True)
    log_normaliser = normaliser.log().squeeze(-1)
    probability /= normaliser
    sample_entropy = log_normaliser - (probability * shifted.clamp_min(_LOG_FLOOR)).sum(-1)

    clean, clean_normaliser = shifted[0], log_normaliser[0]
    entropy = sample_entropy[0]
    self_certainty = clean_normaliser - clean.mean(-1) - math.log(vocabulary)
    confidence = clean_normaliser - clean.topk(min(CONFIDENCE_TOP_K, vocabulary), dim=-1).values.mean(-1)
    if num_samples == 1:
        total = aleatoric = entropy
        epistemic = torch.zeros_like(entropy)
    else:
        total = torch.special.entr(probability.mean(0)).sum(-1)
        aleatoric = sample_entropy.mean(0)
        epistemic = total - aleatoric

    if token_ids is None:
        reward = logprob = torch.full_like(entropy, math.nan)
    else:
        index = token_ids.to(device=logits.device, dtype=torch.int64).expand(num_samples, -1).unsqueeze(-1)
        token_logprob = shifted.gather(-1, index).squeeze(-1) - log_normaliser
        logprob = token_logprob[0]
        reward = _implicit_reward(token_logprob)
    return TokenUncertainty(
        total=total,
        aleatoric=aleatoric,
        epistemic=epistemic,
        implicit_reward=reward,
        logprob=logprob,
        entropy=entropy,
        self_certainty=self_certainty,
        confidence=confidence,
    )


def _implicit_reward(token_logprob: Tensor) -> Tensor:
    """BIR from log p_s(y), float32 [S, n]. A token that every sample rules out carries no disagreement: 0."""
    log_mean = token_logprob.logsumexp(0) - math.log(token_logprob.shape[0])
    reward = log_mean - token_logprob.mean(0)
    return torch.where((token_logprob == -math.inf).all(0), torch.zeros_like(reward), reward)
