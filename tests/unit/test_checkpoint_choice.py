"""Which files hold the weights where a folder has several: what transformers reads, the conversion reads too."""

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from bayesian_transformer.checkpoint import tensor_files
from bayesian_transformer.conversion import convert_checkpoint
from convert_to_tfb import main

EMBEDDING = "model.embed_tokens.weight"


def parameters(path: Path) -> dict[str, torch.Tensor]:
    return dict(AutoModelForCausalLM.from_pretrained(path, dtype="auto").named_parameters())


def saved_twice(sharded: Path, folder: Path) -> Path:
    """A model saved in shards, changed, and saved as one file into the same folder: the old index stays."""
    model = AutoModelForCausalLM.from_pretrained(shutil.copytree(sharded, folder))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("shards_stay", [True, False])
def test_a_folder_saved_twice(
    tiny_llama_sharded_path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, shards_stay: bool
) -> None:
    """From https://github.com/Blaizzy/mlx-vlm/issues/1464; with the old shards it would be other weights silently."""
    base = saved_twice(tiny_llama_sharded_path, tmp_path / "base")
    if shards_stay:
        for shard in tiny_llama_sharded_path.glob("model-*.safetensors"):
            shutil.copyfile(shard, base / shard.name)
    expected = parameters(base)
    with caplog.at_level(logging.WARNING):
        tfb = convert_checkpoint(base, tmp_path / "tfb")
    said = [record.getMessage() for record in caplog.records if str(base) in record.getMessage()]
    assert said == [
        f"{base / 'model.safetensors'}: is read alone, as transformers does; remove what is out of date, it or "
        "model.safetensors.index.json"
    ]
    found = parameters(tfb)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert sorted(file.name for file in tfb.glob("*.safetensors")) == sorted(set(tensor_files(tfb).values()))


def test_an_index_of_the_single_file_is_no_second_choice(
    tiny_llama_path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base = Path(shutil.copytree(tiny_llama_path, tmp_path / "base"))
    names = dict.fromkeys(load_file(base / "model.safetensors"), "model.safetensors")
    (base / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))
    with caplog.at_level(logging.WARNING):
        tfb = convert_checkpoint(base, tmp_path / "tfb")
    assert not [record for record in caplog.records if str(base) in record.getMessage()]
    assert all(torch.equal(a, b) for a, b in zip(parameters(tfb).values(), parameters(base).values(), strict=True))


def test_an_index_over_the_single_file_and_another_one(tiny_llama_path: Path, tmp_path: Path) -> None:
    """transformers would read model.safetensors alone and fill the rest with random values."""
    base = Path(shutil.copytree(tiny_llama_path, tmp_path / "base"))
    tensors = load_file(base / "model.safetensors")
    rest = {EMBEDDING: tensors.pop(EMBEDDING)}
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    save_file(rest, base / "extra.safetensors", {"format": "pt"})
    weight_map = dict.fromkeys(tensors, "model.safetensors") | dict.fromkeys(rest, "extra.safetensors")
    (base / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    result = CliRunner().invoke(main, ["--model-path", str(base), "--output-path", str(tmp_path / "tfb")])
    assert result.exit_code == 1
    assert result.output.splitlines()[-1] == (
        f"Error: {base}: tensor {EMBEDDING} is missing; the checkpoint does not fit its config.json; "
        "model.safetensors.index.json is not read beside model.safetensors, nor by transformers"
    )
    assert not (tmp_path / "tfb").exists()
