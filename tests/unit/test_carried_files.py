"""What a conversion takes over besides the weights, and what becomes of links."""

import logging
import os
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from transformers import AutoTokenizer

from bayesian_transformer import embedded
from bayesian_transformer.conversion import convert_checkpoint
from convert_to_tfb import main

TOOL = "additional_chat_templates/tool_use.jinja"


@pytest.fixture
def base(tiny_llama_path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_llama_path, tmp_path / "base"))


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def listing(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_chat_templates_come_along(base: Path, tmp_path: Path) -> None:
    """From https://github.com/huggingface/transformers/issues/36588."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = {"default": tokenizer.chat_template, "tool_use": "tools: {{ messages }}"}
    tokenizer.save_pretrained(base)
    assert (base / TOOL).is_file()
    tfb = convert_checkpoint(base, tmp_path / "tfb")
    assert AutoTokenizer.from_pretrained(tfb).chat_template == tokenizer.chat_template


def test_everything_but_weights_and_hidden_files_is_carried(base: Path, tmp_path: Path) -> None:
    before = listing(base)
    kept = {"custom_generate/generate.py", "decoder_tokenizer/tokenizer.json", "notes/a/b/c.txt", "tokenizer.model"}
    kept |= {TOOL, "LICENSE", "vocab.txt", "modeling_extra.py"}
    put(base, *kept)
    put(base, "original/params.json", "original/consolidated.00.pth", "original/tokenizer.model", "onnx/model.onnx")
    put(base, "onnx/config.json", "checkpoint-5/trainer_state.json", "checkpoint-5/model.safetensors", "model.gguf")
    put(base, "gguf/q4/model.gguf", ".git/config", ".cache/huggingface/x", ".gitattributes", "pytorch_model.bin")
    put(base, "pytorch_model.bin.index.json", "training_args.bin", "tf_model.h5", "consolidated.safetensors")
    tfb = convert_checkpoint(base, tmp_path / "tfb")
    made = {"model.safetensors.index.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"}
    assert listing(tfb) == (before - {"model.safetensors"}) | kept | made


def test_a_hub_cache_is_copied_as_files(base: Path, tmp_path: Path) -> None:
    """Its snapshots are links to blobs outside of them."""
    put(base, TOOL)
    snapshot, blobs = tmp_path / "hub" / "snapshots" / "abc", tmp_path / "hub" / "blobs"
    blobs.mkdir(parents=True)
    for number, name in enumerate(sorted(listing(base))):
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(base / name, blobs / str(number))
        (snapshot / name).symlink_to(os.path.relpath(blobs / str(number), (snapshot / name).parent))
    tfb = convert_checkpoint(snapshot, tmp_path / "tfb")
    assert not [path for path in tfb.rglob("*") if path.is_symlink()]
    assert listing(tfb) == listing(convert_checkpoint(base, tmp_path / "other"))
    assert (tfb / TOOL).read_text() == TOOL


@pytest.mark.parametrize(
    "name",
    ["tokenizer.json", "generation_config.json", "LICENSE", TOOL, "model.safetensors", "config.json"],
)
@pytest.mark.parametrize("target", ["../../blobs/0123", "itself"])
def test_a_broken_link_is_named(base: Path, tmp_path: Path, name: str, target: str) -> None:
    """From https://github.com/debpalash/VoiceStudio/issues/1056: a tokenizer that was skipped silently."""
    if not (base / name).exists():
        put(base, name)
    (base / name).unlink()
    (base / name).symlink_to((base / name).name if target == "itself" else target)
    result = CliRunner().invoke(main, ["--model-path", str(base), "--output-path", str(tmp_path / "tfb")])
    assert result.exit_code == 1
    assert result.output.splitlines()[-1].startswith(f"Error: {base / name}: a broken link (to ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base"]


def test_a_link_out_of_the_folder_is_named(base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever gives the conversion away may not mean to give that file away."""
    (tmp_path / "private.txt").write_text("mine")
    (base / "LICENSE.txt").symlink_to(tmp_path / "private.txt")
    (base / "README.md").write_text("a model")
    (base / "model_card.md").symlink_to(base / "README.md")
    convert_checkpoint(base, tmp_path / "tfb")
    assert (tmp_path / "tfb" / "LICENSE.txt").read_text() == "mine"
    named = [record.getMessage() for record in caplog.records if "is a link to" in record.getMessage()]
    assert named == [f"{base / 'LICENSE.txt'}: is a link to {tmp_path / 'private.txt'}, whose content is copied"]


def test_what_is_not_read_may_be_broken(base: Path, tmp_path: Path) -> None:
    put(base, "original/model.pth")
    for name in ("pytorch_model.bin", "original/tokenizer.model", ".hidden"):
        (base / name).symlink_to("nowhere")
    convert_checkpoint(base, tmp_path / "tfb")


def test_links_to_folders_are_not_followed(base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    put(base, TOOL)
    (base / "again").symlink_to(".")
    (base / "disk").symlink_to("/")
    (base / "additional_chat_templates" / "up").symlink_to("..")
    before = listing(base)
    with caplog.at_level(logging.WARNING):
        tfb = convert_checkpoint(base, tmp_path / "tfb")
    said = [record.getMessage() for record in caplog.records if "a link to a folder" in record.getMessage()]
    linked = ("additional_chat_templates/up", "again", "disk")
    assert sorted(line.partition(":")[0] for line in said) == [str(base / name) for name in linked]
    assert {name for name in listing(tfb) if not name.startswith("model")} == before - {"model.safetensors"}


def test_a_cached_conversion_follows_the_templates(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKUR_CACHE", str(tmp_path / "cache"))
    put(base, TOOL)
    first = embedded.tfb_model(base)
    (base / TOOL).write_text("another template")
    assert embedded.tfb_model(base) == first
    assert (first / TOOL).read_text() == "another template"
