"""The file of basis vectors alone: what is written, and what is said about one that does not fit."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from bayesian_transformer.bases import ALGORITHM
from bayesian_transformer.basis_file import read_basis_file, write_basis_file
from bayesian_transformer.conversion import convert_bases
from bayesian_transformer.noise_config import NoiseConfig
from convert_to_tfb import main
from tests.helpers.vllm_engines import load_basis

CONFIG: dict[str, Any] = {"model_type": "llama", "num_hidden_layers": 1, "hidden_size": 6}
NOISE = NoiseConfig(basis_idx=(0, 1))
QUERY, VALUE = (f"model.layers.0.self_attn.{name}_proj.basis_vectors" for name in "qv")
SHAPES = {QUERY: (8, 2), VALUE: (4, 2)}


def bases() -> dict[str, Tensor]:
    return {name: torch.ones(shape) for name, shape in SHAPES.items()}


def convert(base: Path, output: Path, *options: str) -> Result:
    arguments = ["--bases-only", "--model-path", str(base), "--output-path", str(output), *options]
    return CliRunner().invoke(main, arguments)


@pytest.mark.parametrize("kind", ["right", "left"])
def test_the_bases_are_those_of_the_converted_model(
    kind: str, tiny_qwen2_path: Path, make_tfb: Callable[..., Path], tmp_path: Path
) -> None:
    output = tmp_path / "new" / "bases.safetensors"
    result = convert(tiny_qwen2_path, output, "--rank", "3", "--bayes-noise", kind)
    assert (result.exit_code, result.stdout) == (0, f"wrote {output}\n")
    written = load_file(output)
    expected = load_basis(make_tfb(tiny_qwen2_path, kind, 3))
    assert written.keys() == expected.keys()
    assert all(torch.equal(written[name], expected[name]) for name in expected)
    with safe_open(output, framework="pt") as file:
        made = json.loads(file.metadata()["tokur_bases"])
    assert made == {
        "version": 1,
        "model_type": "qwen2",
        "num_hidden_layers": 2,
        "hidden_size": 128,
        "bayes_noise": kind,
        "basis_idx": [0, 1, 2],
        "algorithm": ALGORITHM,
    }
    assert list(output.parent.iterdir()) == [output]


def test_a_file_is_replaced_only_if_asked(tiny_llama_path: Path, tmp_path: Path) -> None:
    output = tmp_path / "bases.safetensors"
    output.write_text("mine")
    result = convert(tiny_llama_path, output)
    assert result.exit_code == 1
    assert f"{output}: exists already; choose another --output-path or pass --overwrite" in result.output
    assert output.read_text() == "mine"
    assert convert(tiny_llama_path, output, "--overwrite").exit_code == 0
    assert load_file(output)
    weights = tiny_llama_path / "model.safetensors"
    assert "holds weights of the model" in convert(tiny_llama_path, weights, "--overwrite").output
    assert "give it a name that ends in .safetensors" in convert(tiny_llama_path, tmp_path / "bases").output


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "bases.safetensors"
    write_basis_file(path, bases(), CONFIG, NOISE)
    found = read_basis_file(path, CONFIG | {"model_type": "tfb_llama"}, NOISE, SHAPES)
    assert found.keys() == SHAPES.keys()
    assert all(torch.equal(found[name], basis) for name, basis in bases().items())


@pytest.mark.parametrize(
    ("config", "noise", "said"),
    [
        ({"model_type": "qwen2"}, {}, "holds bases of model_type 'llama', not 'qwen2'; make the file again"),
        ({"num_hidden_layers": 2}, {}, "holds bases of num_hidden_layers 1, not 2"),
        ({"hidden_size": 8}, {}, "holds bases of hidden_size 6, not 8"),
        ({}, {"bayes_noise": "left"}, "holds bases of bayes_noise 'right', not 'left'; set bayes_noise and basis_idx"),
        ({}, {"basis_idx": (0, 2)}, r"holds bases of basis_idx \[0, 1\], not \[0, 2\]; set bayes_noise and basis_idx"),
    ],
)
def test_a_file_for_another_model_or_noise(
    config: dict[str, Any], noise: dict[str, Any], said: str, tmp_path: Path
) -> None:
    path = tmp_path / "bases.safetensors"
    write_basis_file(path, bases(), CONFIG, NOISE)
    with pytest.raises(ValueError, match=f"^{path}: {said}"):
        read_basis_file(path, CONFIG | config, NOISE.replaced(**noise), SHAPES)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({VALUE: torch.ones(5, 2)}, rf"tensor {VALUE} is F32 \[5, 2\] where the model asks for floats \[4, 2\]"),
        ({VALUE: torch.ones(4, 2, dtype=torch.int8)}, rf"tensor {VALUE} is I8 \[4, 2\] where the model asks"),
        ({VALUE: torch.full((4, 2), torch.nan)}, f"tensor {VALUE}: holds torch.float32 values that are not all finite"),
        ({"other": torch.ones(2)}, "tensor other is not of this model"),
    ],
)
def test_a_wrong_tensor_is_named(changed: dict[str, Tensor], said: str, tmp_path: Path) -> None:
    path = tmp_path / "bases.safetensors"
    write_basis_file(path, bases() | changed, CONFIG, NOISE)
    with pytest.raises(ValueError, match=f"^{path}: {said}"):
        read_basis_file(path, CONFIG, NOISE, SHAPES)


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bases.safetensors"
    write_basis_file(path, {QUERY: bases()[QUERY]}, CONFIG, NOISE)
    with pytest.raises(ValueError, match=f"^{path}: tensor {VALUE} is missing; make the file again"):
        read_basis_file(path, CONFIG, NOISE, SHAPES)


def test_what_is_no_such_file_is_said(tmp_path: Path) -> None:
    path = tmp_path / "bases.safetensors"
    with pytest.raises(ValueError, match=f"^{path}: no such file; give the one that tokur convert --bases-only"):
        read_basis_file(path, CONFIG, NOISE, SHAPES)
    path.write_bytes(b"\x10" * 40)
    with pytest.raises(ValueError, match=f"^{path}: not a readable safetensors file"):
        read_basis_file(path, CONFIG, NOISE, SHAPES)
    save_file(bases(), path)
    with pytest.raises(ValueError, match=f"^{path}: is no file of bases, as it has no tokur_bases in its metadata"):
        read_basis_file(path, CONFIG, NOISE, SHAPES)
    save_file(bases(), path, {"tokur_bases": "[1]"})
    with pytest.raises(ValueError, match=f"^{path}: tokur_bases in its metadata: expected a JSON object, got list"):
        read_basis_file(path, CONFIG, NOISE, SHAPES)


def test_bases_of_a_checkpoint_that_has_none_to_compute(tiny_llama_tfb_path: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="says this is a TFB checkpoint already"):
        convert_bases(tiny_llama_tfb_path, tmp_path / "bases.safetensors")
