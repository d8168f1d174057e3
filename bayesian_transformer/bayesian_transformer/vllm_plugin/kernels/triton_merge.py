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
    soft_cap: float = 0.0,
) -> None:
    """Add each row's own token to its attention over the prefix; arguments as in `merge_own_token`.

    Rows of query, key, value and output lie sample by sample at one distance, with their heads side by side; the query
    heads of one KV head lie side by side in prefix_out too. prefix_lse is any view.
    """
    noisy_samples, requests, kv_heads, group, head_size = query.shape
    _check_places(prefix_out, query=query, key=key, value=value, output=output)
    if query.numel():
        prefix_sample, prefix_request, prefix_head = prefix_out.stride()[:3]
        lse_sample, lse_request, lse_head, lse_member = prefix_lse.stride()
        _merge[(noisy_samples * requests, kv_heads)](
            query=query,
            query_row=query.stride(1),
            key=key,
            key_row=key.stride(1),
            value=value,
            value_row=value.stride(1),
            prefix=prefix_out,
            prefix_sample=prefix_sample,
            prefix_request=prefix_request,
            prefix_head=prefix_head,
            lse=prefix_lse,
            lse_sample=lse_sample,
            lse_request=lse_request,
            lse_head=lse_head,
            lse_member=lse_member,
            lengths=lengths,
            output=output,
            output_row=output.stride(1),
            scale=scale,
            requests=requests,
            SOFT_CAP=soft_cap,
            GROUP=group,
            GROUP_SLOTS=triton.next_power_of_2(group),
            HEAD_SIZE=head_size,
            HEAD_SLOTS=triton.next_power_of_2(head_size),
        )


def _check_places(prefix_out: Tensor, **rows: Tensor) -> None:
    """ValueError unless the rows [samples, requests, ...] and the prefix lie as the kernel takes them."""
    for name, tensor in rows.items():
        if len(tensor) > 1 and tensor.stride(0) != tensor.shape[1] * tensor.stride(1):
            raise ValueError(f"{name} must be particle rows at one distance, got strides {tensor.stride()}")
        if not _is_packed(tensor, 2):
            raise ValueError(f"{name} must have the heads of a row side by side, got strides {tensor.stride()}")
    if not _is_packed(prefix_out, 3):
        raise ValueError(f"prefix_out must have a group's heads side by side, got strides {prefix_out.stride()}")


def _is_packed(tensor: Tensor, first: int) -> bool:
    """Whether the dimensions from `first` on lie without gaps; the stride of a dimension of size 1 means nothing."""
    expected = 1
    for size, stride in zip(reversed(tensor.shape[first:]), reversed(tensor.stride()[first:]), strict=True):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True


# `x_row` is the distance from row to row of x, `x_head` from KV head to KV head, `lse_member` within a group of heads.
# The distances in the LSE change with the batch: a kernel for each kind of number would be compiled while serving.
@triton.jit(do_not_specialize=["lse_sample", "lse_request", "lse_head", "lse_member", "requests"])
def _merge(
    query: tl.tensor,
    query_row: tl.tensor,
    key: tl.tensor,
    key_row: tl.tensor,
    value: tl.tensor,
    value_row: tl.tensor,
    prefix: tl.tensor,
    prefix_sample: tl.tensor,
    prefix_request: tl.tensor,
    prefix_head: tl.tensor,
    lse: tl.tensor,
    lse_sample: tl.tensor,
    lse_request: tl.tensor,
    lse_head: tl.tensor,
    lse_member: tl.tensor,
    lengths: tl.tensor,
    output: tl.tensor,
    output_row: tl.tensor,
    scale: tl.tensor,
    requests: tl.tensor,
    SOFT_CAP: tl.constexpr,
    GROUP: tl.constexpr,
    GROUP_SLOTS: tl.constexpr,
    HEAD_SIZE: tl.constexpr,
    HEAD_SLOTS: tl.constexpr,
) -> None:
    """Program (i, j): the GROUP query heads of particle row i that KV head j serves."""
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    sample, request = row // requests, row % requests
    g, d = tl.arange(0, GROUP_SLOTS), tl.arange(0, HEAD_SLOTS)
    in_head = d < HEAD_SIZE
    inside = (g < GROUP)[:, None] & in_head[None, :]
    group = g[:, None] * HEAD_SIZE + d[None, :]  # places of a group's numbers, of all its heads
    first = head * GROUP * HEAD_SIZE  # of the group in its row

    q = tl.load(query + row * query_row + first + group, inside, 0.0)
    k = tl.load(key + row * key_row + head * HEAD_SIZE + d, in_head, 0.0)
    v = tl.load(value + row * value_row + head * HEAD_SIZE + d, in_head, 0.0).to(tl.float32)
    own_score = _soft_capped(scale * tl.sum(q.to(tl.float32) * k.to(tl.float32)[None, :], axis=1), SOFT_CAP)
    # What the attention kernel leaves behind for an empty prefix is not read.
    present = g < tl.where(tl.load(lengths + request) > 0, GROUP, 0)
    place = lse + sample * lse_sample + request * lse_request + head * lse_head + g * lse_member
    difference = tl.load(place, present, float("-inf")) - own_score
    place = prefix + sample * prefix_sample + request * prefix_request + head * prefix_head + group
    prefix_out = tl.load(place, present[:, None] & in_head[None, :], 0.0)

    prefix_weight, own_weight = 1.0 / (1.0 + tl.exp(-difference)), 1.0 / (1.0 + tl.exp(difference))
    merged = prefix_weight[:, None] * prefix_out.to(tl.float32) + own_weight[:, None] * v[None, :]
    tl.store(output + row * output_row + first + group, merged, inside)


@triton.jit
def _soft_capped(score: tl.tensor, SOFT_CAP: tl.constexpr) -> tl.tensor:
    """SOFT_CAP * tanh(score / SOFT_CAP); 0 leaves the score as it is."""
    if SOFT_CAP != 0.0:
        score = SOFT_CAP * (1.0 - 2.0 / (1.0 + tl.exp(score * (2.0 / SOFT_CAP))))
    return score
