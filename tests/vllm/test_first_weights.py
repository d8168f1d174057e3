"""Whether a file of bases belongs to the weights that are loaded into a running engine: not, if these may be others."""

import os
from pathlib import Path

import pytest

pytest.importorskip("vllm")
from bayesian_transformer.vllm_plugin.model_mixin import TFBModelMixin, _written


def model(name: str, basis_path: Path | None) -> TFBModelMixin:
    """No more of a model than what knows this, after its first weights have come."""
    made = TFBModelMixin.__new__(TFBModelMixin)
    made._name, made._written, made.basis_path = name, _written(Path(name)), basis_path
    made._loaded_bases = {"a basis"}
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    return tmp_path


def test_the_own_weights_come_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    for name in (str(folder), folder.name):  # however it is spelt
        known = model(str(folder), Path("bases.safetensors"))
        assert known.expect_first_weights(name)
        assert not known._loaded_bases


def test_a_name_on_the_hub_is_its_own() -> None:
    known = model("org/Model-AWQ", Path("bases.safetensors"))
    assert known.expect_first_weights("org/Model-AWQ")
    assert not known.expect_first_weights("org/Model-GPTQ")


def test_the_weights_of_another_folder_are_others(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    known = model(str(folder), Path("bases.safetensors"))
    assert not known.expect_first_weights(str(tmp_path_factory.mktemp("other")))
    assert not model(str(folder), None).expect_first_weights(str(folder))
    assert known._loaded_bases


def test_weights_that_were_written_over_are_refused(folder: Path) -> None:
    known = model(str(folder), Path("bases.safetensors"))
    file = folder / "model.safetensors"
    file.write_bytes(b"trained")  # as long as the others
    os.utime(file, ns=(1, 1))
    with pytest.raises(ValueError, match="has other files of weights than at the start") as error:
        known.expect_first_weights(str(folder))
    assert "\n" not in str(error.value)
    assert known._loaded_bases
