"""`python -m bayesian_transformer.score`: good lines are scored, bad ones reported, runs resume."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bayesian_transformer.score import BadLine, main, parse_line
from bayesian_transformer.uncertainty import FIELDS

LINES = [
    '{"prompt": "2 + 2 =", "response": " 4.", "id": "first"}',
    '{"prompt": "no end',
    '{"messages": [{"role": "user", "content": "Hi"}], "response": "Hello\\nthere", "seed": 9}',
    "",
    '{"prompt": "x", "response": ""}',
    '{"prompt": "x", "response": " y"}',
]
NOT_UTF8 = b'{"prompt": "x", "response": "\xff"}\n'


def run(model: Path, source: Path, output: Path, *options: str) -> Result:
    paths = ["--model-path", str(model), "--input", str(source), "--output", str(output)]
    return CliRunner().invoke(main, [*paths, "--num-samples", "3", *options])


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "texts.jsonl"
    path.write_bytes("\n".join(LINES).encode() + b"\n" + NOT_UTF8)
    return path


def rows(output: Path) -> list[dict]:
    return [json.loads(line) for line in output.read_text().splitlines()]


def test_good_lines_are_scored_and_bad_ones_reported(tiny_llama_tfb_path: Path, source: Path, tmp_path: Path) -> None:
    output = tmp_path / "scores.jsonl"
    result = run(tiny_llama_tfb_path, source, output)
    assert result.exit_code == 1
    assert f"{source}:2: not valid JSON" in result.stderr
    assert f"{source}:5: the response is empty" in result.stderr
    assert f"{source}:7: not valid UTF-8" in result.stderr
    assert "3 failed" in result.stdout
    scored = rows(output)
    assert [row["line"] for row in scored] == [1, 3, 6]
    assert [row["seed"] for row in scored] == [0, 9, 0]
    assert scored[0]["id"] == "first"
    for row in scored:
        assert {row["num_samples"], row["bayes_sigma"], row["model"]} == {3, 0.1, str(tiny_llama_tfb_path)}
        assert all(len(row[name]) == len(row["token_ids"]) == len(row["tokens"]) > 0 for name in FIELDS)
        assert "".join(row["tokens"]) == row["response"]


def test_a_killed_run_resumes(tiny_llama_tfb_path: Path, source: Path, tmp_path: Path) -> None:
    whole, output = tmp_path / "whole.jsonl", tmp_path / "scores.jsonl"
    run(tiny_llama_tfb_path, source, whole, "--batch-size", "1")
    text = whole.read_text()
    output.write_text(text[: text.index("\n") + 20])  # the second line is torn
    result = run(tiny_llama_tfb_path, source, output, "--batch-size", "1")
    assert "1 texts were there" in result.stdout
    assert rows(output) == rows(whole)
    before = output.read_bytes()
    assert run(tiny_llama_tfb_path, source, output).exit_code == 1  # the bad lines are still bad
    assert output.read_bytes() == before


def test_all_good_ends_with_zero(tiny_llama_tfb_path: Path, source: Path, tmp_path: Path) -> None:
    source.write_text(LINES[0])
    assert run(tiny_llama_tfb_path, source, tmp_path / "scores.jsonl").exit_code == 0


def test_output_of_other_settings_or_texts_is_refused(tiny_llama_tfb_path: Path, source: Path, tmp_path: Path) -> None:
    output = tmp_path / "scores.jsonl"
    run(tiny_llama_tfb_path, source, output)
    before = output.read_bytes()
    for options in (["--sigma", "0.2"], ["--seed", "1"]):
        result = run(tiny_llama_tfb_path, source, output, *options)
        assert result.exit_code == 1
        assert "choose another --output" in result.stderr
    source.write_text(LINES[-1])
    assert "choose another --output" in run(tiny_llama_tfb_path, source, output).stderr
    assert output.read_bytes() == before


def test_bad_options_are_one_line(tiny_llama_path: Path, source: Path, tmp_path: Path) -> None:
    for model, message in [(tiny_llama_path, "is no TFB model"), (tmp_path / "nowhere", "no such folder")]:
        result = run(model, source, tmp_path / "scores.jsonl")
        assert result.exit_code == 1
        assert [line for line in result.stderr.splitlines() if line.startswith("Error")] == [
            line for line in result.stderr.splitlines() if message in line
        ]
        assert message in result.stderr


def test_input_is_not_taken_for_output(tiny_llama_tfb_path: Path, source: Path) -> None:
    before = source.read_bytes()
    result = run(tiny_llama_tfb_path, source, source)
    assert result.exit_code == 2
    assert "--output is the --input file" in result.stderr
    assert source.read_bytes() == before


def test_damaged_model_and_unknown_device_are_one_line(tiny_llama_tfb_path: Path, source: Path, tmp_path: Path) -> None:
    damaged = Path(shutil.copytree(tiny_llama_tfb_path, tmp_path / "damaged"))
    shard = next(damaged.glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:1000])
    for model, device, message in [(damaged, "cpu", shard.name), (tiny_llama_tfb_path, "abacus", "--device abacus")]:
        result = run(model, source, tmp_path / "scores.jsonl", "--device", device)
        assert result.exit_code == 1
        assert [message in line for line in result.stderr.splitlines() if line.startswith("Error")] == [True]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ('{"prompt": "a", "response": "a", "seed": ' + "9" * 5000 + "}", "not valid JSON"),
        ('{"prompt": "a", "response": "a", "id": "\\ud800"}', "not valid UTF-8"),
        ("[1]", "expected a JSON object"),
        ('{"prompt": "a"}', "response"),
        ('{"prompt": "a", "response": 3}', "response"),
        ('{"response": "a"}', "prompt and messages"),
        ('{"prompt": "a", "messages": [], "response": "a"}', "prompt and messages"),
        ('{"prompt": 1, "response": "a"}', "prompt must be a string"),
        ('{"messages": "a", "response": "a"}', "messages must be"),
        ('{"messages": [{"role": "user"}], "response": "a"}', "messages must be"),
        ('{"prompt": "a", "response": "a", "seed": 1.5}', "seed"),
        ('{"prompt": "a", "response": "a", "seed": true}', "seed"),
    ],
)
def test_bad_lines_say_why(line: str, message: str) -> None:
    with pytest.raises(BadLine, match=message):
        parse_line(line.encode(), 0)
