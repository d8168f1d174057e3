"""The kernel that merges a row's own token: in Triton's interpreter, compiled, and run where there is a GPU."""

import importlib.util
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.vllm.test_kernels import run_python

needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")


@needs_triton
def test_the_kernel_agrees_in_the_interpreter() -> None:
    code = """
import torch
from bayesian_transformer.vllm_plugin.kernels.triton_merge import merge
from tests.helpers.merge_cases import GARBAGE, check_merge
for dtype in (torch.float32, torch.bfloat16):
    for garbage in GARBAGE:  # and neither heads nor their size a power of two
        check_merge(merge, 2, [0, 3, 5], 40.0, garbage, dtype, head_size=24)
        check_merge(merge, 1, [2], 0.1, garbage, dtype, seed=1)
        check_merge(merge, 2, [4, 1], 1.0, garbage, dtype, group=1)
        for soft_cap in (0.5, 30.0):
            check_merge(merge, 2, [0, 3, 5], 40.0, garbage, dtype, soft_cap=soft_cap)
print("agreed")
"""
    assert "agreed" in run_python("-W", "ignore::RuntimeWarning", "-c", code, TRITON_INTERPRET="1")


@needs_triton
def test_rows_with_gaps_are_refused_by_name() -> None:
    from bayesian_transformer.vllm_plugin.kernels.triton_merge import merge

    rows, lse, lengths = torch.zeros(2, 3, 2, 4, 16), torch.zeros(2, 3, 2, 4), torch.ones(3, dtype=torch.int32)
    own = rows[..., 0, :].contiguous()
    gaps, spread = torch.zeros(2, 3, 2, 4, 32)[..., ::2], torch.zeros(2, 3, 2, 5, 16)[..., :4, :]
    for bad in (gaps, spread):
        with pytest.raises(ValueError, match="query must have the heads of a row side by side"):
            merge(bad, own, own, rows, lse, lengths, 1.0, rows)
        with pytest.raises(ValueError, match="output must have the heads of a row side by side"):
            merge(rows, own, own, rows, lse, lengths, 1.0, bad)
    with pytest.raises(ValueError, match="prefix_out must have a group's heads side by side"):
        merge(rows, own, own, gaps, lse, lengths, 1.0, rows)
    with pytest.raises(ValueError, match="value must be particle rows at one distance"):
        merge(rows, own, torch.zeros(2, 4, 2, 16)[:, :3], rows, lse, lengths, 1.0, rows)


@needs_triton
def test_the_kernel_compiles_for_a_gpu(tmp_path: Any) -> None:
    code = """
import unittest.mock, torch
from triton.runtime import driver
from triton.runtime.jit import JITFunction
from bayesian_transformer.vllm_plugin.kernels.triton_merge import merge
from tests.helpers.compile_kernels import AbsentGPU
launch = JITFunction.run
def compile_only(self, *args, warmup, **kwargs):
    kernel = launch(self, *args, warmup=True, **kwargs)
    print(self.fn.__name__, len(kernel.asm["cubin"]))
    return kernel
driver.set_active(AbsentGPU())
with unittest.mock.patch.object(JITFunction, "run", compile_only):
    cases = ((64, 4, torch.bfloat16, 0.0), (128, 8, torch.bfloat16, 50.0), (64, 3, torch.float16, 0.0))
    for head_size, group, dtype, soft_cap in cases:
        rows = torch.empty(4, 3, 2 * group + 4, head_size, dtype=dtype)
        query, key, value = rows.split([2 * group, 2, 2], dim=2)
        query = query.unflatten(2, (2, group))
        output = torch.empty_like(query, memory_format=torch.contiguous_format)
        lse = torch.empty(2, group, 3, 4).permute(3, 2, 0, 1)
        merge(query, key, value, output.clone(), lse, torch.ones(3, dtype=torch.int32), 0.125, output, soft_cap)
"""
    output = run_python("-c", code, TRITON_CACHE_DIR=str(tmp_path), TRITON_INTERPRET="0")
    sizes = [line.split() for line in output.splitlines() if line.startswith("_merge")]
    assert len(sizes) == 3
    assert all(int(size) > 0 for _, size in sizes)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("version", [2, 3, 4])
@pytest.mark.parametrize(("window", "soft_cap"), [(None, None), (2, None), (40, 0.7), (None, 0.7)])
def test_the_real_kernels_on_a_gpu(version: int, window: int | None, soft_cap: float | None) -> None:
    """FlashAttention and the merge kernel, captured in a CUDA graph and replayed with other contents."""
    pytest.importorskip("vllm")
    from vllm.v1.attention.backends import fa_utils

    from tests.helpers.cuda_stand_ins import HEADS, KV_HEADS, brute_force, make_impl, make_metadata

    if not fa_utils.is_fa_version_supported(version):
        pytest.skip(f"FlashAttention {version} is not for this GPU")
    requests, noisy_samples, blocks, block, head = 3, 4, 8, 16, 64
    limits: dict[str, Any] = {"sliding_window": window, "logits_soft_cap": soft_cap}
    impl = make_impl(version, SimpleNamespace(num_tokens=0, noisy_samples=noisy_samples), head, **limits)
    table = torch.arange(requests * blocks, dtype=torch.int32).view(requests, blocks).cuda()
    rows = torch.zeros(noisy_samples * requests, HEADS + 2 * KV_HEADS, head, dtype=torch.bfloat16, device="cuda")
    cache = torch.zeros(requests * blocks, KV_HEADS, block, 2 * head, dtype=torch.bfloat16, device="cuda")
    seq_lens = torch.ones(requests, dtype=torch.int32, device="cuda")
    query, key, value = rows.split([HEADS, KV_HEADS, KV_HEADS], dim=1)
    output = torch.empty_like(query, memory_format=torch.contiguous_format)

    def step() -> None:
        start = torch.arange(requests + 1, device="cuda")
        metadata = make_metadata(start, seq_lens, table, start[1:], max_seq_len=blocks * block)
        metadata.max_num_splits = 32 if version == 3 else 0
        impl._attend(query, key, value, cache, metadata, output)

    step()  # compiles
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    for lengths in ([1, 100, 128], [17, 0, 2]):
        for buffer in (rows, cache):
            buffer.normal_()
        seq_lens.copy_(torch.tensor(lengths))
        graph.replay()
        for b, length in enumerate(lengths):
            stored = cache[table[b].long()].transpose(1, 2).flatten(0, 1)[: max(0, length - 1)].split(head, dim=-1)
            for row in range(b, noisy_samples * requests, requests):
                seen = [torch.cat([t, own[row : row + 1]]) for t, own in zip(stored, (key, value), strict=True)]
                expected = brute_force(query[row], *seen, window=window, soft_cap=soft_cap)
                torch.testing.assert_close(output[row].double(), expected, atol=0.03, rtol=0.03)
