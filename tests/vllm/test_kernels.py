"""The fused kernels of the vLLM plugin, as far as a machine without a GPU can test them, and who chooses them.

Whether Triton interprets or compiles is settled when it is imported, so each way has a process of its own.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bayesian_transformer.uncertainty import mixture_logits, token_uncertainty
from bayesian_transformer.vllm_plugin import kernels

needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
TESTS = Path(__file__).parents[1]
KERNELS = {"row_pass", "mixture_pass", "finish", "log_mixture", "_draw", "_add_right", "_add_left"}


def run_python(*arguments: str, **environment: str) -> str:
    """Output of a Python process started in the repository root; its end is shown if it fails."""
    command = [sys.executable, *arguments]
    variables = {**os.environ, "PYTHONPATH": str(TESTS.parent), "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run(command, cwd=TESTS.parent, env=variables, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, (done.stdout + done.stderr)[-5000:]
    return done.stdout


@needs_triton
def test_agree_with_the_plain_formulas_in_the_interpreter() -> None:
    output = run_python(
        "-m", "pytest", "-q", "-p", "no:cacheprovider", str(TESTS / "gpu" / "kernel_cases.py"), TRITON_INTERPRET="1"
    )
    assert " passed" in output
    assert "failed" not in output


@needs_triton
def test_compile_for_a_gpu(tmp_path: Path) -> None:
    output = run_python(
        str(TESTS / "helpers" / "compile_kernels.py"), TRITON_CACHE_DIR=str(tmp_path), TRITON_INTERPRET="0"
    )
    sizes = [line.split() for line in output.splitlines()]
    assert {name for name, _ in sizes} == KERNELS
    assert all(int(size) > 0 for _, size in sizes)


def test_the_cpu_keeps_the_plain_formulas_where_triton_is_absent() -> None:
    code = """
import sys
sys.modules["triton"] = None  # importing it fails
import torch
from bayesian_transformer.vllm_plugin import kernels
assert not kernels.HAS_TRITON
assert kernels.token_uncertainty(torch.randn(3, 2, 9), torch.arange(2)).total.isfinite().all()
assert kernels.mixture_logits(torch.randn(3, 2, 9)).isfinite().all()
"""
    run_python("-c", code)


def test_the_choice_gives_the_plain_numbers_on_the_cpu() -> None:
    logits, token_ids = torch.randn(3, 4, 50), torch.arange(4)
    expected = token_uncertainty(logits, token_ids).stack()
    torch.testing.assert_close(kernels.token_uncertainty(logits, token_ids).stack(), expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(kernels.mixture_logits(logits), mixture_logits(logits))
