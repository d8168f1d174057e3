"""FlashAttention's kernels need a GPU: what takes their places where there is none, and layers to put it into.

`stand_in_varlen` and `stand_in_cache_update` work in plain torch behind vLLM's own FlashAttentionImpl and
FlashAttentionMetadata.
"""

import ast
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from vllm.v1.attention.backends import flash_attn

from bayesian_transformer.vllm_plugin.attention import particle_class
from bayesian_transformer.vllm_plugin.attention.gpu import GpuParticleAttention
from bayesian_transformer.vllm_plugin.attention_refusals import refuse_attention

BLOCK, HEAD, KV_HEADS, GROUP = 4, 8, 2, 3
HEADS = KV_HEADS * GROUP
MAX_LENGTH = 16  # longest sequence that a row of the block tables holds


def varlen_parameters() -> set[str]:
    """What vLLM's own flash_attn_varlen_func takes; read from its source, as the module needs a GPU to be imported."""
    source = Path(flash_attn.__file__).parents[3] / "vllm_flash_attn" / "flash_attn_interface.py"
    functions = [node for node in ast.parse(source.read_text()).body if isinstance(node, ast.FunctionDef)]
    (kernel,) = (node.args for node in functions if node.name == "flash_attn_varlen_func")
    return {argument.arg for argument in [*kernel.args, *kernel.kwonlyargs]}


def stand_in_varlen(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    max_seqlen_q: int,
    cu_seqlens_q: Tensor,
    max_seqlen_k: int,
    seqused_k: Tensor,
    block_table: Tensor,
    softmax_scale: float,
    causal: bool,
    fa_version: int,
    garbage: float = math.nan,
    out: Tensor | None = None,
    return_softmax_lse: bool = False,
    num_splits: int = 0,
    window_size: list[int] | None = None,
    softcap: float = 0.0,
    **unused: Any,
) -> Any:
    """flash_attn_varlen_func over a paged cache, in plain torch and without reading a value on the host.

    As its docstring says, a window holds the keys from i + seqlen_k - seqlen_q - window_size[0] on to
    i + seqlen_k - seqlen_q + window_size[1], for query row i of a request; -1 is no limit.
    """
    assert {cu_seqlens_q.dtype, seqused_k.dtype, block_table.dtype} == {torch.int32}
    assert cu_seqlens_q.shape[0] == len(seqused_k) + 1 == len(block_table) + 1
    assert q.stride(-1) == k.stride(-1) == v.stride(-1) == 1
    assert k.dtype == q.dtype
    assert num_splits <= 1 or fa_version == 3
    row = torch.arange(len(q))
    request = torch.searchsorted(cu_seqlens_q[1:].contiguous(), row.int(), right=True).clamp_max(len(seqused_k) - 1)
    keys, values = (t[block_table.long()].flatten(1, 2)[request].float() for t in (k, v))  # [rows, length, h, D]
    group = q.shape[1] // k.shape[2]
    scores = torch.einsum("rhgd,rthd->rhgt", q.float().unflatten(1, (-1, group)), keys) * softmax_scale
    scores = softcap * (scores / softcap).tanh() if softcap else scores
    (before, after), last = window_size or (-1, -1), seqused_k[request] - 1
    place = last - (cu_seqlens_q[1:][request] - 1 - row)  # i + seqlen_k - seqlen_q
    last = torch.minimum(last, place if causal else place + after if after >= 0 else last)
    first = place - before if before >= 0 else torch.zeros_like(place)
    position = torch.arange(keys.shape[1])
    unseen = (position > last[:, None]) | (position < first[:, None]) | (position >= max_seqlen_k)
    scores = scores.masked_fill(unseen[:, None, None], -torch.inf).flatten(1, 2)
    empty = ((last < 0) | (last < first))[:, None]
    result = torch.einsum("rhgt,rthd->rhgd", scores.softmax(-1).unflatten(1, (-1, group)), values).flatten(1, 2)
    result = result.masked_fill(empty[..., None], math.nan).to(q.dtype)
    if out is not None:
        real = (row < cu_seqlens_q[-1])[:, None, None]  # the kernel leaves rows of no request alone
        out.copy_(torch.where(real, result, out))
    return (result, scores.logsumexp(-1).masked_fill(empty, garbage).T) if return_softmax_lse else out


def stand_in_cache_update(
    key: Tensor, value: Tensor, key_cache: Tensor, value_cache: Tensor, slot_mapping: Tensor, *unused: Any
) -> None:
    """reshape_and_cache_flash in plain torch: as many rows as there are slots, slot -1 skipped."""
    for row, slot in enumerate(slot_mapping.tolist()):
        if slot >= 0:
            key_cache[slot // key_cache.shape[1], slot % key_cache.shape[1]] = key[row]
            value_cache[slot // key_cache.shape[1], slot % key_cache.shape[1]] = value[row]


def make_impl(version: int, rows: Any, head_size: int = HEAD, **options: Any) -> Any:
    """vLLM's own attention implementation of one layer, made ours."""
    arguments = {"alibi_slopes": None, "sliding_window": None, "kv_cache_dtype": "auto", "num_kv_heads": KV_HEADS}
    stock = flash_attn.FlashAttentionImpl(HEADS, head_size, head_size**-0.5, **arguments | options)
    refuse_attention(stock, GpuParticleAttention.over)
    ours: Any = particle_class(stock, GpuParticleAttention)
    impl = ours.__new__(ours)
    vars(impl).update(vars(stock), particles=rows, vllm_flash_attn_version=version)
    return impl


def make_metadata(query_start: Tensor, seq_lens: Tensor, block_table: Tensor, slots: Tensor, **more: Any) -> Any:
    values: dict[str, Any] = {
        "num_actual_tokens": len(slots),
        "max_query_len": MAX_LENGTH,
        "max_seq_len": MAX_LENGTH,
        "query_start_loc": query_start.int(),
        "seq_lens": seq_lens.int(),
        "block_table": block_table.int(),
        "slot_mapping": slots,
    }
    if "use_cascade" in flash_attn.FlashAttentionMetadata.__dataclass_fields__:  # vLLM 0.30
        values |= dict.fromkeys(("cu_prefix_query_lens", "prefix_kv_lens", "suffix_kv_lens"))
        values |= {"use_cascade": False, "common_prefix_len": 0}
    return flash_attn.FlashAttentionMetadata(**values | more)


def brute_force(
    query: Tensor, keys: Tensor, values: Tensor, *, window: int | None = None, soft_cap: float | None = None
) -> Tensor:
    """float64 attention of one row [heads, D] to keys and values [length, KV heads, D], the last `window` of them."""
    keys, values = (t[-(window or 0) :].double().repeat_interleave(GROUP, dim=1) for t in (keys, values))
    scores = torch.einsum("hd,thd->ht", query.double(), keys) * query.shape[-1] ** -0.5
    weights = (soft_cap * (scores / soft_cap).tanh() if soft_cap else scores).softmax(-1)
    return torch.einsum("ht,thd->hd", weights, values)
