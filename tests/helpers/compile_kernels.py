"""Compile the fused kernels for an NVIDIA GPU of compute capability 9.0, without one; run by test_kernels.py.

Triton's interpreter accepts what its compiler refuses (a variable of two types, say). The launchers run as they are,
on CPU tensors, but each launch only compiles: Triton brings its own assembler.
"""

import itertools
import unittest.mock
from typing import Any

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from bayesian_transformer.vllm_plugin.kernels.plain import Part
from bayesian_transformer.vllm_plugin.kernels.triton_noise import add_left_noise, add_right_noise, draw_noise
from bayesian_transformer.vllm_plugin.kernels.triton_statistics import fused_mixture_logits, fused_token_uncertainty


class AbsentGPU:
    """What the compiler asks Triton's driver."""

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)


def main() -> None:
    """One line for each compiled kernel: its name and the size of its machine code in bytes."""
    launch = JITFunction.run

    def compile_only(self: JITFunction, *args: Any, warmup: bool, **kwargs: Any) -> Any:
        kernel = launch(self, *args, warmup=True, **kwargs)
        print(self.fn.__name__, len(kernel.asm["cubin"]))  # noqa: T201
        return kernel

    driver.set_active(AbsentGPU())
    ids = torch.zeros(4, dtype=torch.int64)
    with unittest.mock.patch.object(JITFunction, "run", compile_only):
        for num_samples, dtype in ((1, torch.bfloat16), (5, torch.bfloat16), (10, torch.float32)):
            logits = torch.empty(num_samples, 4, 50_257, dtype=dtype)
            fused_token_uncertainty(logits, ids)
            fused_mixture_logits(logits)
        fused_token_uncertainty(logits)
        q, k, v = Part(0, 512), Part(512, 128), Part(640, 128, 4)  # 4 / 4 is 1, which is a type of its own to Triton
        for dtype, parts in itertools.product((torch.bfloat16, torch.float32), ((q, v), (k,), (q, k, v))):
            z, sites = torch.empty(2, 16, len(parts), 8), torch.zeros(2, len(parts), dtype=torch.int64)
            draw_noise(z, ids, ids, sites)
            sizes = ((16, 768), (16, 576), (8 * len(parts), 768))
            qkv, x, basis = (torch.empty(*size, dtype=dtype) for size in sizes)
            add_right_noise(qkv, x, basis, z[1], 0.1, parts)
            add_left_noise(qkv, z[0, :, :, 0].contiguous(), ids, ids, sites[1], parts)


if __name__ == "__main__":
    main()
