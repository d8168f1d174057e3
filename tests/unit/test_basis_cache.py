"""The cache of basis vectors: what it gives is what would be computed, whatever happens to its files."""

import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from bayesian_transformer import basis_cache
from bayesian_transformer.bases import basis_vectors
from bayesian_transformer.basis_cache import cached_basis_vectors
from bayesian_transformer.conversion import convert_checkpoint
from bayesian_transformer.model import BayesianForCausalLMModel

INDICES = range(4)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder."""
    monkeypatch.setenv("TOKUR_CACHE", str(tmp_path / "cache"))
    basis_cache._say.cache_clear()
    return tmp_path / "cache" / "bases"


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """The weights whose basis was computed."""
    weights: list[torch.Tensor] = []

    def record(weight: torch.Tensor, *args: object) -> torch.Tensor:
        weights.append(weight)
        return basis_vectors(weight, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(basis_cache, "basis_vectors", record)
    return weights


def weight(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(24, 16, generator=torch.Generator().manual_seed(0)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["right", "left"])
@pytest.mark.parametrize("rank", [1, 4])
def test_the_second_time_nothing_is_computed(
    cache: Path, computed: list[torch.Tensor], dtype: torch.dtype, kind: str, rank: int
) -> None:
    expected = basis_vectors(weight(dtype), range(rank), kind)
    for _ in range(2):
        found = cached_basis_vectors(weight(dtype), range(rank), kind)
        assert found.dtype == dtype
        assert torch.equal(found, expected)
    assert len(computed) == 1
    assert [path.suffix for path in cache.iterdir()] == [".safetensors"]


def test_every_difference_is_another_basis(computed: list[torch.Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    changed = weight()
    changed[7, 3] += 1e-6
    cached_basis_vectors(weight(), INDICES, "right")
    others: list[Callable[[], torch.Tensor]] = [
        lambda: cached_basis_vectors(changed, INDICES, "right"),
        lambda: cached_basis_vectors(weight(torch.bfloat16), INDICES, "right"),
        lambda: cached_basis_vectors(weight().reshape(16, 24), INDICES, "right"),
        lambda: cached_basis_vectors(weight(), INDICES, "left"),
        lambda: cached_basis_vectors(weight(), range(5), "right"),
        lambda: cached_basis_vectors(weight(), (0, 1, 3, 2), "right"),
    ]
    for number, other in enumerate(others, start=2):
        other()
        assert len(computed) == number
    monkeypatch.setattr(basis_cache, "ALGORITHM", basis_cache.ALGORITHM + 1)
    cached_basis_vectors(weight(), INDICES, "right")
    assert len(computed) == len(others) + 2


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-8])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 64
    path.write_bytes(content)


def other_basis(path: Path) -> None:
    save_file({"basis_vectors": torch.zeros(24, 4)}, path)  # a whole file of somebody else


def other_tensor(path: Path) -> None:
    save_file({"other": load_file(path)["basis_vectors"]}, path, {"sha256": "0"})


@pytest.mark.parametrize("damage", [cut, flip, other_basis, other_tensor, lambda path: path.write_bytes(b"")])
def test_a_damaged_file_is_computed_again(
    cache: Path, computed: list[torch.Tensor], caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None]
) -> None:
    expected = cached_basis_vectors(weight(), INDICES, "right")
    (path,) = cache.iterdir()
    damage(path)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(cached_basis_vectors(weight(), INDICES, "right"), expected)
    assert f"{path}: damaged" in caplog.text
    assert torch.equal(cached_basis_vectors(weight(), INDICES, "right"), expected)
    assert len(computed) == 2


def test_what_cannot_be_stored_is_computed_and_said_once(
    cache: Path, computed: list[torch.Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    cache.parent.mkdir()
    cache.write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            found = cached_basis_vectors(weight(), INDICES, "right")
            assert torch.equal(found, basis_vectors(weight(), INDICES, "right"))
    assert caplog.text.count("set TOKUR_CACHE to a folder that can be written") == 1
    assert len(computed) == 2


def test_a_full_disk_costs_no_second_computation(
    cache: Path, computed: list[torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(basis_cache, "save_file", full)
    assert torch.equal(cached_basis_vectors(weight(), INDICES, "right"), basis_vectors(weight(), INDICES, "right"))
    assert len(computed) == 1
    assert list(cache.iterdir()) == []


def test_weights_that_change_leave_nothing_behind(cache: Path, computed: list[torch.Tensor]) -> None:
    cached_basis_vectors(weight(), INDICES, "right", store=False)
    assert not cache.exists()
    expected = cached_basis_vectors(weight(), INDICES, "right")
    assert torch.equal(cached_basis_vectors(weight(), INDICES, "right", store=False), expected)  # but it is read
    assert len(computed) == 2


def test_of_several_processes_one_computes(cache: Path, tmp_path: Path) -> None:
    """They start together, and computing takes long enough for all to want it."""
    code = f"""
import sys, time, torch
from pathlib import Path
from bayesian_transformer import basis_cache
stock = basis_cache.basis_vectors
def slow(*args):
    with Path({str(tmp_path / "computed")!r}).open("a") as file:
        file.write("once\\n")
    time.sleep(3)
    return stock(*args)
basis_cache.basis_vectors = slow
Path({str(tmp_path)!r}, "ready" + sys.argv[1]).touch()
while len(list(Path({str(tmp_path)!r}).glob("ready*"))) < 3:
    time.sleep(0.01)
weight = torch.randn(24, 16, generator=torch.Generator().manual_seed(0))
print(basis_cache.cached_basis_vectors(weight, range(4), "right").tolist())
"""
    run = [sys.executable, "-P", "-c", code]
    processes = [
        subprocess.Popen([*run, str(i)], stdout=subprocess.PIPE, text=True, env={**os.environ}) for i in range(3)
    ]
    printed = {process.communicate(timeout=120)[0] for process in processes}
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert printed == {f"{basis_vectors(weight(), INDICES, 'right').tolist()}\n"}
    assert (tmp_path / "computed").read_text() == "once\n"
    assert [path.suffix for path in cache.iterdir()] == [".safetensors"]


def test_conversion_and_the_wrapper_share_it(
    tiny_llama_path: Path, tmp_path: Path, computed: list[torch.Tensor]
) -> None:
    from transformers import AutoModelForCausalLM

    convert_checkpoint(tiny_llama_path, tmp_path / "one")
    assert len(computed) == 4
    convert_checkpoint(tiny_llama_path, tmp_path / "two")
    lm = AutoModelForCausalLM.from_pretrained(tiny_llama_path)
    wrapped = BayesianForCausalLMModel.wrap(lm)
    assert len(computed) == 4
    shards = [load_file(tmp_path / name / "model-00002-of-00002.safetensors") for name in ("one", "two")]
    for projection in wrapped.noisy_projections:
        for shard in shards:
            assert torch.equal(shard[f"{projection.name}.basis_vectors"], projection.basis)
