"""`plain.merge_own_token` as one Triton kernel."""

import triton
import triton.language as tl
from torch import Tensor


def merge(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    prefix_out: Tensor,
    prefix_lse: Tensor,
    lengths: Tensor,
    scale: float,
    output: Tensor,
) -> None:
    """Add each row's own token to its attention over the prefix; arguments as in `merge_own_token`.

    Rows of query, key, value and output lie sample by sample at one distance; prefix_out and prefix_lse are any views.
    """
    samples, requests, kv_heads, group, head_size = query.shape
    for name, tensor in (("query", query), ("key", key), ("value", value), ("output", output)):
        if samples > 1 and tensor.stride(0) != requests * tensor.stride(1):
            raise ValueError(f"{name} must be particle rows at one distance, got strides {tensor.stride()}")
    if any(tensor.stride(-1) != 1 for tensor in (query, key, value, prefix_out, output)):
        raise ValueError("the last dimension of query, key, value, prefix_out and output must be contiguous")
    if query.numel():
        _merge[(samples * requests, kv_heads)](
            *(query, *query.stride()[1:4], key, *key.stride()[1:3], value, *value.stride()[1:3]),
            *(prefix_out, *prefix_out.stride()[:4], prefix_lse, *prefix_lse.stride(), lengths),
            *(output, *output.stride()[1:4], scale, requests),
            GROUP=group,
            GROUP_SLOTS=triton.next_power_of_2(group),
            HEAD_SIZE=head_size,
            HEAD_SLOTS=triton.next_power_of_2(head_size),
        )


# The distances in the LSE change with the batch: a kernel for each kind of number would be compiled while serving.
@triton.jit(do_not_specialize=["lse_sample", "lse_request", "lse_head", "lse_query", "requests"])
def _merge(
    query: tl.tensor,
    query_row: tl.tensor,
    query_head: tl.tensor,
    query_query: tl.tensor,
    key: tl.tensor,
    key_row: tl.tensor,
    key_head: tl.tensor,
    value: tl.tensor,
    value_row: tl.tensor,
    value_head: tl.tensor,
    prefix: tl.tensor,
    prefix_sample: tl.tensor,
    prefix_request: tl.tensor,
    prefix_head: tl.tensor,
    prefix_query: tl.tensor,
    lse: tl.tensor,
    lse_sample: tl.tensor,
    lse_request: tl.tensor,
    lse_head: tl.tensor,
    lse_query: tl.tensor,
    lengths: tl.tensor,
    output: tl.tensor,
    output_row: tl.tensor,
    output_head: tl.tensor,
    output_query: tl.tensor,
    scale: tl.tensor,
    requests: tl.tensor,
    GROUP: tl.constexpr,
    GROUP_SLOTS: tl.constexpr,
    HEAD_SIZE: tl.constexpr,
    HEAD_SLOTS: tl.constexpr,
) -> None:
    """Program (i, j): all query heads of particle row i that KV head j serves."""
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    sample, request = row // requests, row % requests
    g, d = tl.arange(0, GROUP_SLOTS), tl.arange(0, HEAD_SLOTS)
    in_head = d < HEAD_SIZE
    inside = (g < GROUP)[:, None] & in_head[None, :]

    q = tl.load(query + row * query_row + head * query_head + g[:, None] * query_query + d[None, :], inside, 0.0)
    k = tl.load(key + row * key_row + head * key_head + d, in_head, 0.0)
    v = tl.load(value + row * value_row + head * value_head + d, in_head, 0.0).to(tl.float32)
    own_score = scale * tl.sum(q.to(tl.float32) * k.to(tl.float32)[None, :], axis=1)

    # What the attention kernel leaves behind for an empty prefix is not read.
    present = g < tl.where(tl.load(lengths + request) > 0, GROUP, 0)
    place = lse + sample * lse_sample + request * lse_request + head * lse_head + g * lse_query
    difference = tl.load(place, present, float("-inf")) - own_score
    place = prefix + sample * prefix_sample + request * prefix_request + head * prefix_head
    prefix_out = tl.load(place + g[:, None] * prefix_query + d[None, :], present[:, None] & in_head[None, :], 0.0)

    prefix_weight, own_weight = 1.0 / (1.0 + tl.exp(-difference)), 1.0 / (1.0 + tl.exp(difference))
    merged = prefix_weight[:, None] * prefix_out.to(tl.float32) + own_weight[:, None] * v[None, :]
    tl.store(output + row * output_row + head * output_head + g[:, None] * output_query + d[None, :], merged, inside)
