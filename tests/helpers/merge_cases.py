"""A case for the merge of the own token with the attention over the prefix, whoever computes it."""

import math
from collections.abc import Callable

import torch

KV_HEADS = 2
GARBAGE = (math.inf, -math.inf, math.nan)  # what kernels leave as LSE of an empty prefix


def check_merge(
    merge: Callable[..., None],
    noisy_samples: int,
    lengths: list[int],
    scale: float,
    garbage: float,
    dtype: torch.dtype,
    seed: int = 0,
    group: int = 3,
    head_size: int = 8,
    soft_cap: float = 0.0,
) -> None:
    """`merge` compared with a float64 softmax over prefix and own token; `scale` up to scores of hundreds."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator).to(dtype)  # noqa: E731
    width = KV_HEADS * group * head_size
    shape = (noisy_samples, len(lengths), KV_HEADS, group, head_size)
    qkv = draw(noisy_samples * len(lengths), width + 2 * KV_HEADS * head_size)  # the rows are parts of a wider matrix
    query = qkv[:, :width].unflatten(1, (KV_HEADS, group, head_size)).unflatten(0, (noisy_samples, -1))
    key, value = (
        t.unflatten(1, (KV_HEADS, head_size)).unflatten(0, (noisy_samples, -1)) for t in qkv[:, width:].chunk(2, dim=1)
    )
    keys, values = draw(2, len(lengths), KV_HEADS, 5, head_size).unbind()
    score = scale * torch.einsum("sbhgd,bhtd->sbhgt", query.double(), keys.double())
    capped = lambda score: soft_cap * (score / soft_cap).tanh() if soft_cap else score  # noqa: E731
    score = capped(score).masked_fill((torch.arange(5) >= torch.tensor(lengths)[:, None])[:, None, None], -torch.inf)
    prefix_out = torch.einsum("sbhgt,bhtd->sbhgd", score.softmax(-1), values.double()).to(dtype)
    empty = torch.tensor(lengths)[:, None, None] == 0
    lse = score.logsumexp(-1).masked_fill(empty, garbage).float()
    own = capped(scale * torch.einsum("sbhgd,sbhd->sbhg", query.double(), key.double()))
    weights = torch.cat([score, own.unsqueeze(-1)], -1).softmax(-1)
    all_values = torch.cat([values[None].expand(noisy_samples, -1, -1, -1, -1), value.unsqueeze(3)], 3).double()
    expected = torch.einsum("sbhgt,sbhtd->sbhgd", weights, all_values)

    out = torch.full(shape, math.nan, dtype=dtype)
    merge(query, key, value, prefix_out, lse, torch.tensor(lengths, dtype=torch.int32), scale, out, soft_cap)
    # In float32 an LSE of hundreds is known to a few 1e-5.
    tolerance = {torch.float32: 1e-5 * max(1.0, scale), torch.bfloat16: 0.03}[dtype]
    torch.testing.assert_close(out.double(), expected, atol=tolerance, rtol=tolerance)
