"""Models, tokenizers and devices that cannot be used: one line of the command line, which names option and file."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from bayesian_transformer.hf.loading import load_model, load_tokenizer
from tests.helpers.heat_map_pages import a_record, run, write

Damage = Callable[[Path], object]


def config(**keys: Any) -> Damage:
    """Change keys of config.json."""

    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | keys))

    return change


def text(name: str, content: str) -> Damage:
    return lambda folder: (folder / name).write_text(content)


def cut_shard(folder: Path) -> None:
    shard = folder / "model-00002-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:1000])


def no_tokenizer(folder: Path) -> None:
    for file in folder.glob("*token*"):
        file.unlink()


def damaged(source: Path, folder: Path, damage: Damage) -> str:
    shutil.copytree(source, folder)
    damage(folder)
    return str(folder)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (config(num_samples="ten"), "num_samples must be an integer >= 1; got 'ten'"),
        (config(basis_idx=None), "basis_idx must list integers >= 0"),
        (config(num_hidden_layers="2"), "config.json: num_hidden_layers must be an integer >= 1; got '2'"),
        (config(hidden_size=130), "config.json: .*hidden size"),
        (config(bayes_sigma=-1.0), "bayes_sigma"),
        (text("config.json", "{"), "config.json"),
        (cut_shard, "model-00002-of-00002.safetensors: not a readable"),
    ],
)
def test_models_that_cannot_be_loaded(tiny_llama_tfb_path: Path, tmp_path: Path, damage: Damage, message: str) -> None:
    path = damaged(tiny_llama_tfb_path, tmp_path / "model", damage)
    with pytest.raises(click.ClickException, match=rf"^--model-path {path}: .*{message}") as caught:
        load_model(path, "float32", "cpu")
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (text("tokenizer.json", '{"a": 1}'), "tokenizer.json: lacks what a tokenizer has"),
        (text("tokenizer.json", "[1]"), "tokenizer.json: lacks"),
        (text("tokenizer.json", "{"), "tokenizer.json: not valid JSON"),
        (text("tokenizer_config.json", "{"), "tokenizer_config.json: not valid JSON"),
        (no_tokenizer, "Couldn't instantiate"),
    ],
)
def test_tokenizers_that_cannot_be_loaded(
    tiny_llama_tfb_path: Path, tmp_path: Path, damage: Damage, message: str
) -> None:
    path = damaged(tiny_llama_tfb_path, tmp_path / "model", damage)
    with pytest.raises(
        click.ClickException, match=rf"^--model-path {path}: no usable tokenizer \({message}.*there$"
    ) as e:
        load_tokenizer(path, "--model-path")
    assert "\n" not in e.value.message
    source = write(tmp_path / "scores.jsonl", a_record(["a"]))
    result = run(source, "--output", tmp_path / "page.html", "--tokenizer", path)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith(f"Error: --tokenizer {path}: no usable tokenizer (")


@pytest.mark.parametrize("device", ["abacus", "meta", "cuda:99"])
def test_devices_that_cannot_be_used(tiny_llama_tfb_path: Path, device: str) -> None:
    with pytest.raises(click.ClickException, match=f"^--device {device}: ") as caught:
        load_model(str(tiny_llama_tfb_path), "float32", device)
    assert "\n" not in caught.value.message
