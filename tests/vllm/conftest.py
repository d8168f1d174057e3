"""One engine for each checkpoint, noise direction and choice of kernels, shared by all tests that want it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.noisy_engines import NUM_SAMPLES, SIGMA, Case, NoisyEngine
from tests.helpers.vllm_engines import close_shared, shared_engine


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that asks for `noisy` runs on the NOISY_CASES of its file; those of a checkpoint stay in one process."""
    if "noisy" in metafunc.fixturenames:
        cases = metafunc.module.NOISY_CASES
        values = [pytest.param(case, marks=pytest.mark.xdist_group(case.rpartition(" ")[0])) for case in cases]
        metafunc.parametrize("noisy", values, indirect=True, scope="session")


@pytest.fixture
def noisy(request: pytest.FixtureRequest, make_tfb: Callable[..., Path]) -> NoisyEngine:
    family, kind, kernels = request.param.split()
    base = request.getfixturevalue("smollm2_path" if family == "smollm2" else f"tiny_{family}_path")
    case = Case(base, make_tfb(base, kind), kind, 64 if family == "smollm2" else 256)
    overrides = {"bayes_sigma": SIGMA, "num_samples": NUM_SAMPLES}
    llm = shared_engine(case.tfb, hf_overrides=overrides, kernel_mode=kernels, max_num_seqs=64)
    return NoisyEngine(llm, case)


def pytest_sessionfinish() -> None:
    close_shared()
