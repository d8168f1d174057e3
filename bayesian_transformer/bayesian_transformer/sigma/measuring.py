"""One text under several sigmas and numbers of weight samples: the sums over its tokens that the table is made of.

The noise-free pass is made once for all sigmas. The noise is counter-based, so all sigmas see the same draws, scaled,
and a smaller number of weight samples is the first ones of a larger number: rows do not differ by other draws.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..encoding import CHUNK_ROWS
from ..model import NoisyModelMixin
from ..scoring import joined_columns, noise_settings, sample_logits
from ..uncertainty import mixture_logits, token_uncertainty
from .summary import LEAST_FOR_HALVES, Setting, Sums, TextSums


@torch.no_grad()
def measure_text(
    model: NoisyModelMixin,
    prompt_ids: Sequence[int],
    response_ids: Sequence[int],
    *,
    seed: int,
    sigmas: Sequence[float],
    sample_counts: Sequence[int],
    chunk_rows: int = CHUNK_ROWS,
) -> TextSums:
    """The sums over the tokens of a response, at each sigma with each number of weight samples.

    `chunk_rows` bounds the rows in one pass of the model, and so the memory. ValueError if prompt or response is empty,
    for what `score_batch` refuses, and if a sum is not finite.
    """
    if not len(prompt_ids) or not len(response_ids):
        raise ValueError("prompt and response must each have at least one token")
    ids = torch.tensor([[*prompt_ids, *response_ids]], device=model.causal_lm.device)
    wanted = torch.arange(ids.shape[1], device=ids.device)[None] >= len(prompt_ids)
    noises = [noise_settings(model, max(sample_counts), sigma) for sigma in sigmas]
    sums = torch.zeros(len(sigmas), len(sample_counts), 7, dtype=torch.float64, device=ids.device)
    chunks = sample_logits(model, ids, torch.ones_like(wanted), wanted, [seed], noises, chunk_rows)
    for index, columns, parts in chunks:
        tokens = ids[0, columns]
        for some, logits in joined_columns(parts):
            for place, count in enumerate(sample_counts):
                sums[index, place] += token_values(logits[:count, 0], tokens[some]).sum(0)
    if not sums.isfinite().all():
        dtype = str(model.causal_lm.dtype).removeprefix("torch.")
        raise ValueError(f"a value is not finite, as where the model overflows in {dtype}; try another --dtype")
    at = {
        Setting(sigma, count): Sums(*values[1:])
        for sigma, of_sigma in zip(sigmas, sums.tolist(), strict=True)
        for count, values in zip(sample_counts, of_sigma, strict=True)
    }
    return TextSums(len(response_ids), float(sums[0, 0, 0]), at)


def token_values(logits: Tensor, tokens: Tensor) -> Tensor:
    """What is summed, of N tokens [N] from the logits of their S weight samples [S, N, V]: float64 [N, 7].

    The columns are the noise-free -log p_0(y), then the fields of `Sums`. With p = mean_s p_s over all S samples, the
    noise-free one included, which is what `use_tfb_for_generation` samples from:

        flip: 1 where p is larger at some token than at the most likely one under p_0 (at all of them, if tokens tie)
        NLL: -log p(y)
        EU of two halves: of the noise-free sample and the first, or the second, half of the noisy ones; an odd one is
            left out. 0 where there are fewer than two in a half.
    """
    clean, mixture = logits[0].float(), mixture_logits(logits)
    of_clean_choice = mixture.masked_fill(clean < clean.amax(-1, keepdim=True), -torch.inf).amax(-1)
    quantities = token_uncertainty(logits, tokens)
    first = second = torch.zeros_like(quantities.epistemic)
    if len(logits) >= LEAST_FOR_HALVES:
        end = 1 + (len(logits) - 1) // 2
        first = token_uncertainty(logits[:end]).epistemic
        second = token_uncertainty(torch.cat([logits[:1], logits[end : 2 * end - 1]])).epistemic
    return torch.stack(
        [
            -quantities.logprob,
            (mixture.amax(-1) > of_clean_choice).float(),
            -mixture.gather(-1, tokens[:, None]).squeeze(-1),
            quantities.epistemic,
            quantities.total,
            first,
            second,
        ],
        dim=-1,
    ).double()
