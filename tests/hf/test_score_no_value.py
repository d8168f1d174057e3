"""Texts of which not one value is finite, as float16 that overflows gives: they fail, by number, and say why."""

import json
import math
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from safetensors.torch import load_file, save_file

from bayesian_transformer.quantities import FIELDS, without_value
from bayesian_transformer.score import main


def run(model: Path, source: Path, output: Path, *options: str) -> Result:
    paths = ["--model-path", str(model), "--input", str(source), "--output", str(output)]
    return CliRunner().invoke(main, [*paths, "--num-samples", "2", *options])


@pytest.fixture
def overflowing(tiny_llama_tfb_path: Path, tmp_path: Path) -> Path:
    """A model whose hidden states fit into float32 and not into float16: no norm tames the last sum."""
    path = Path(shutil.copytree(tiny_llama_tfb_path, tmp_path / "model"))
    shard = path / "model-00001-of-00002.safetensors"
    tensors = load_file(shard)
    for name in tensors:
        if name.endswith("down_proj.weight"):
            tensors[name] = tensors[name] * 1e5
    save_file(tensors, shard, {"format": "pt"})
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"prompt": "a", "response": f" {i} b"}) + "\n" for i in range(3)))
    return path


def test_a_model_that_overflows(overflowing: Path, source: Path, tmp_path: Path) -> None:
    output = tmp_path / "scores.jsonl"
    result = run(overflowing, source, output, "--dtype", "float16")
    assert result.exit_code == 1
    for number in (1, 2, 3):
        assert f"{source}:{number}: not one value is finite: the model overflows in float16; use an" in result.stderr
    assert "0 texts were there, 3 more attempted, 3 failed" in result.stdout
    assert output.read_text() == ""
    assert run(overflowing, source, tmp_path / "other.jsonl").exit_code == 0


def test_stored_lines_without_a_value_count_as_well(tiny_llama_tfb_path: Path, source: Path, tmp_path: Path) -> None:
    """As they were written before."""
    output = tmp_path / "scores.jsonl"
    assert run(tiny_llama_tfb_path, source, output).exit_code == 0
    first, *rest = map(json.loads, output.read_text().splitlines())
    first |= {name: [None] * len(first["token_ids"]) for name in FIELDS}
    output.write_text("".join(json.dumps(row) + "\n" for row in (first, *rest)))
    before = output.read_bytes()
    result = run(tiny_llama_tfb_path, source, output)
    assert result.exit_code == 1
    assert f"{source}:1: not one value is finite" in result.stderr
    assert "3 texts were there, 0 more attempted, 1 failed" in result.stdout
    assert output.read_bytes() == before


@pytest.mark.parametrize(
    ("arrays", "is_without"),
    [
        ([[math.nan, math.inf], [-math.inf, None]], True),
        ([[None], [None]], True),
        ([[], []], False),  # no token
        ([], False),
        ([[None, None], [None, 0.5]], False),
        ([None, "x"], False),
    ],
)
def test_what_counts(arrays: list, is_without: bool) -> None:
    assert without_value(arrays) is is_without
