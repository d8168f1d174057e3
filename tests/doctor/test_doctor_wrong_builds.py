"""What the doctor's comparisons find in an engine with other noise, and in a package with a wrong kernel."""

import importlib.util
import re
import shutil
from pathlib import Path

import pytest
import torch

import bayesian_transformer
from bayesian_transformer.doctor.comparisons.differences import Differences
from bayesian_transformer.quantities import FIELDS
from tests.helpers.python_process import run_python

needs_vllm = pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vllm is not installed")


@needs_vllm
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_an_engine_is_told_from_one_with_other_noise(dtype: torch.dtype, tmp_path: Path) -> None:
    """The tolerances, 16 bit included, are far below what the noise of another seed or half a sigma changes."""
    from transformers import AutoModelForCausalLM

    from bayesian_transformer.doctor.comparisons import tiny_engine
    from bayesian_transformer.doctor.comparisons.tiny_model import NOISE, write_tiny_model
    from bayesian_transformer.scoring import score

    path = write_tiny_model(tmp_path, dtype)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, **NOISE).eval()
    prompt, response = tiny_engine.PROMPTS[1], [5, 6, 7, 8, 9, 10, 11, 12]
    right, other, weak = (
        score(model, prompt, response, seed=seed, sigma=sigma).stack()
        for seed, sigma in ((1, None), (2, None), (1, 0.45))
    )
    for got, agree in ((right, True), (other, False), (weak, False)):
        differences = Differences()
        tiny_engine.compare(differences, "request", got, right, dtype)
        assert bool(differences.wrong) != agree
        named = {line.partition(" of ")[0] for line in differences.wrong}
        assert agree or {"total", "epistemic"} <= named <= set(FIELDS) - {"logprob", "entropy", "self_certainty"}


def test_a_wrong_cpp_kernel_is_found_in_a_copy_of_the_package(tmp_path: Path) -> None:
    """The whole way: the package elsewhere, its sources changed, compiled and compared in a process of its own."""
    copy = tmp_path / "site" / "bayesian_transformer"
    shutil.copytree(Path(bayesian_transformer.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    source = copy / "vllm_plugin" / "kernels" / "cpp" / "statistics.h"
    text, count = re.subn(r"(?<=std::log\()", "1.001f * ", source.read_text())
    assert count
    source.write_text(text)
    code = f"""
import sys, threading
sys.path.insert(0, {str(copy.parent)!r})
from bayesian_transformer.doctor import checks, process
check = next(check for check in checks.CHECKS if check.key == "cpp")
result = process.run_check(check, threading.Event())
print(process.__file__)
print(result.finding.verdict)
print(result.finding.found)
print(result.finding.remedy)
"""
    cache = tmp_path / "cache"
    output = run_python(code, PYTHONPATH=str(copy.parent), TOKUR_CACHE=str(cache))
    place, verdict, found, remedy = output.splitlines()
    assert place.startswith(str(copy))
    assert verdict == "error"
    assert found.startswith("wrong: statistics (")
    assert "TOKUR_KERNELS=plain" in remedy
    assert "report this line" in remedy
    assert len(list(cache.iterdir())) == 1  # compiled there
