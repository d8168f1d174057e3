"""What the tests of the run scripts start from: a model, a data set, and an engine that stands in for vLLM's."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.helpers.run_scripts import FakeEngine, install_fake, save_model, write_sums


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_model(tmp_path / "TFB-tiny")


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return write_sums(tmp_path)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeEngine]:
    """Function that installs a FakeEngine with the given options, in place of the one that the scripts would start."""
    pytest.importorskip("vllm")
    return partial(install_fake, monkeypatch)
