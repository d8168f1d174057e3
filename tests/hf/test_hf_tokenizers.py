"""A TFB checkpoint has the tokenizer of its base, whatever the checkpoint says about it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

TEXT = "Hello world, 12345 it's  fine\n né"
# Of these, transformers overrules LlamaTokenizerFast for Qwen2, and must find a class by itself for None.
CLASSES = ["LlamaTokenizerFast", "Qwen2Tokenizer", "TokenizersBackend", "PreTrainedTokenizerFast", None]


def without_weights(source: Path, folder: Path, tokenizer_class: str | None, *, files: bool = False) -> Path:
    """Config and tokenizer of a checkpoint; with `files` the vocabulary lies in vocab.json and merges.txt."""
    folder.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(source / name, folder / name)
    path = folder / "tokenizer_config.json"
    settings = {} if files else json.loads(path.read_text())
    settings.pop("tokenizer_class", None)
    path.write_text(json.dumps(settings | ({"tokenizer_class": tokenizer_class} if tokenizer_class else {})))
    if files:
        model = json.loads((folder / "tokenizer.json").read_text())["model"]
        (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
        merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
        (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]))
        (folder / "tokenizer.json").unlink()
    return folder


def behaviour(path: Path) -> tuple[type, list[int], str]:
    tokenizer = AutoTokenizer.from_pretrained(path)
    ids = tokenizer(TEXT).input_ids
    return type(tokenizer), ids, tokenizer.decode(ids)


@pytest.mark.parametrize("tokenizer_class", CLASSES)
@pytest.mark.parametrize("base", ["tiny_llama_path", "tiny_qwen2_path"])
def test_tokenizer_is_that_of_the_base(
    request: pytest.FixtureRequest, make_tfb: Any, tmp_path: Path, base: str, tokenizer_class: str | None
) -> None:
    path = request.getfixturevalue(base)
    expected, got = (
        behaviour(without_weights(source, tmp_path / name, tokenizer_class))
        for name, source in (("base", path), ("tfb", make_tfb(path)))
    )
    assert got == expected
    if "qwen2" in base:
        assert expected[2] == TEXT
        assert expected[0].__name__ in ("Qwen2Tokenizer", "TokenizersBackend")


def test_a_vocabulary_without_tokenizer_json_is_read_as_the_base_reads_it(
    tiny_qwen2_path: Path, tiny_qwen2_tfb_path: Path, tmp_path: Path
) -> None:
    expected, got = (
        behaviour(without_weights(source, tmp_path / name, None, files=True))
        for name, source in (("base", tiny_qwen2_path), ("tfb", tiny_qwen2_tfb_path))
    )
    assert got == expected
    assert got[0].__name__ == "Qwen2Tokenizer"


def test_vllm_has_the_tokenizer_of_the_base(tiny_qwen2_path: Path, tiny_qwen2_tfb_path: Path, tmp_path: Path) -> None:
    """In a process that imports only vLLM, which loads the plugin."""
    pytest.importorskip("vllm")
    folders = [
        str(without_weights(source, tmp_path / name, "LlamaTokenizerFast"))
        for name, source in (("base", tiny_qwen2_path), ("tfb", tiny_qwen2_tfb_path))
    ]
    code = (
        "import json, sys\n"
        "from vllm.plugins import load_general_plugins\n"
        "from vllm.tokenizers import get_tokenizer\n"
        "load_general_plugins()\n"
        "for path in sys.argv[2:]:\n"
        "    tokenizer = get_tokenizer(path)\n"
        "    print(json.dumps([type(tokenizer).__name__, tokenizer(sys.argv[1]).input_ids]))\n"
    )
    result = subprocess.run([sys.executable, "-c", code, TEXT, *folders], capture_output=True, text=True, check=True)
    expected, got = map(json.loads, result.stdout.splitlines()[-2:])
    assert got == expected
    assert "Qwen2" in got[0]
