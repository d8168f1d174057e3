"""`python -m bayesian_transformer.score`: good lines are scored, bad ones reported, runs resume."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from bayesian_transformer.hf.noisy_forward import particle_logits
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


def test_scores_of_other_projections_are_not_mixed(tiny_qwen2_path: Path, source: Path, tmp_path: Path) -> None:
    """Those of the default do not name them, as before there was a choice."""
    default, other = tmp_path / "default.jsonl", tmp_path / "other.jsonl"
    run(tiny_qwen2_path, source, default)
    run(tiny_qwen2_path, source, other, "--bayes-projections", "k_proj,q_proj")
    assert "bayes_projections" not in rows(default)[0]
    assert rows(other)[0]["bayes_projections"] == ["q_proj", "k_proj"]
    assert rows(other)[0]["epistemic"] != rows(default)[0]["epistemic"]
    for output, options in ((default, ["--bayes-projections", "q_proj,k_proj"]), (other, [])):
        before = output.read_bytes()
        result = run(tiny_qwen2_path, source, output, *options)
        assert "was scored with {'bayes_projections': " in result.stderr
        assert output.read_bytes() == before
    assert "3 texts were there" in run(tiny_qwen2_path, source, other, "--bayes-projections", "q_proj,k_proj").stdout


@pytest.mark.parametrize("left", [LINES[:3], [*LINES[:5], ""], [*LINES[:5], "{"]])
def test_output_of_lines_that_are_gone_is_refused(
    tiny_llama_tfb_path: Path, source: Path, tmp_path: Path, left: list[str]
) -> None:
    output = tmp_path / "scores.jsonl"
    run(tiny_llama_tfb_path, source, output)
    before = output.read_bytes()
    source.write_text("\n".join(left))
    result = run(tiny_llama_tfb_path, source, output)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == f"Error: {output}: line 6 is not that of {source}; choose another --output"
    assert output.read_bytes() == before


def test_memory_that_runs_out_is_one_line_and_what_was_scored_is_kept(
    tiny_llama_tfb_path: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, left = tmp_path / "scores.jsonl", [particle_logits]

    def run_out(*arguments: Any) -> Any:
        if not left:
            raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 20 MiB.")
        return left.pop()(*arguments)

    monkeypatch.setattr("bayesian_transformer.scoring.particle_logits", run_out)
    result = run(tiny_llama_tfb_path, source, output, "--batch-size", "1")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith(
        "Error: --device cpu: out of memory; lower --chunk-rows or --batch"
    )
    assert [row["line"] for row in rows(output)] == [1]


@pytest.mark.parametrize(
    "content",
    [
        '{"my": "precious", "notes": [1, 2, 3]}',
        '{"my": "precious", "notes": [1, 2, 3]}\n',
        "first line\nsecond line without an end",
        '{"prompt": "2 + 2 =", "response": " 4."}\n',
        "[" * 100_000 + "\n",
        '{"schema_version": 1, "line": "1"}\n',
        '{"schema_version": 2, "line": 1}\n',
        "\n\n",
    ],
)
def test_a_file_of_something_else_is_left_alone(
    tiny_llama_tfb_path: Path, source: Path, tmp_path: Path, content: str
) -> None:
    output = tmp_path / "precious.json"
    output.write_text(content)
    result = run(tiny_llama_tfb_path, source, output)
    assert result.exit_code == 1
    assert next(line for line in result.stderr.splitlines() if str(output) in line).endswith("choose another --output")
    assert output.read_text() == content


def test_a_torn_first_line_is_scored_again(tiny_llama_tfb_path: Path, source: Path, tmp_path: Path) -> None:
    whole, output = tmp_path / "whole.jsonl", tmp_path / "scores.jsonl"
    run(tiny_llama_tfb_path, source, whole, "--batch-size", "1")
    first = whole.read_bytes().split(b"\n")[0]
    for size in (1, 30, len(first) - 1):  # within the repeated input, and after it
        output.write_bytes(first[:size])
        run(tiny_llama_tfb_path, source, output, "--batch-size", "1")
        assert output.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("name", ["line", "model", "total", "schema_version", "token_ids"])
def test_input_fields_are_not_overwritten(tiny_llama_tfb_path: Path, source: Path, tmp_path: Path, name: str) -> None:
    output = tmp_path / "scores.jsonl"
    source.write_text(f'{{"prompt": "a", "response": " b", "{name}": 1}}\n{LINES[0]}\n')
    result = run(tiny_llama_tfb_path, source, output)
    assert result.exit_code == 1
    assert f"{source}:1: has the field {name}, which the output line adds; rename it" in result.stderr
    assert [row["line"] for row in rows(output)] == [2]


def test_what_a_line_asks_of_tokenizer_and_template_fails_alone(
    tiny_llama_tfb_path: Path, source: Path, tmp_path: Path
) -> None:
    """A token that the model does not know, and messages that the chat template stumbles over."""
    model = Path(shutil.copytree(tiny_llama_tfb_path, tmp_path / "model"))
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|new|>"]})
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{{ m.tools | length }}{% endfor %}"
    tokenizer.save_pretrained(model)
    lines = [
        {"prompt": "a", "response": " b"},
        {"prompt": "a", "response": " c<|new|>"},
        {"messages": [{"role": "user", "content": "x", "tools": 5}], "response": " d"},
        {"messages": [{"role": "user", "content": "x", "tools": [5]}], "response": " e"},
    ]
    source.write_text("\n".join(map(json.dumps, lines)))
    result = run(model, source, tmp_path / "scores.jsonl", "--batch-size", "2")
    assert result.exit_code == 1
    assert f"{source}:2: token '<|new|>' has the id 49152" in result.stderr
    assert f"{source}:3: the chat template refuses the messages" in result.stderr
    assert [row["line"] for row in rows(tmp_path / "scores.jsonl")] == [1, 4]


def test_a_byte_order_mark_is_no_part_of_the_first_line(
    tiny_llama_tfb_path: Path, source: Path, tmp_path: Path
) -> None:
    source.write_bytes(b"\xef\xbb\xbf" + LINES[0].encode())
    assert run(tiny_llama_tfb_path, source, tmp_path / "scores.jsonl").exit_code == 0
    assert rows(tmp_path / "scores.jsonl")[0]["id"] == "first"


def test_the_model_may_be_spelt_otherwise_when_resuming(
    tiny_llama_tfb_path: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "scores.jsonl"
    run(tiny_llama_tfb_path, source, output)
    before = output.read_bytes()
    monkeypatch.chdir(tiny_llama_tfb_path.parent)
    for model in (Path(tiny_llama_tfb_path.name), tiny_llama_tfb_path / "." / ".." / tiny_llama_tfb_path.name):
        assert "3 texts were there" in run(model, source, output).stdout
    assert output.read_bytes() == before
    other = Path(shutil.copytree(tiny_llama_tfb_path, tmp_path / "other"))
    assert "choose another --output" in run(other, source, output).stderr


def test_an_input_without_texts_has_an_output(tiny_llama_tfb_path: Path, source: Path, tmp_path: Path) -> None:
    source.write_text("\n")
    output = tmp_path / "new" / "scores.jsonl"
    assert run(tiny_llama_tfb_path, source, output).exit_code == 0
    assert output.read_bytes() == b""


def test_a_plain_checkpoint_has_the_scores_of_the_converted_one(
    tiny_llama_path: Path, tiny_llama_tfb_path: Path, source: Path, tmp_path: Path
) -> None:
    outputs = [tmp_path / "plain.jsonl", tmp_path / "converted.jsonl"]
    for model, output in zip((tiny_llama_path, tiny_llama_tfb_path), outputs, strict=True):
        run(model, source, output)
    plain, converted = ([row | {"model": ""} for row in rows(output)] for output in outputs)
    assert plain == converted
    assert plain


def test_bad_options_are_one_line(source: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=2, vocab_size=50)).save_pretrained(other)
    for model, message in [(other, "is not a TFB model"), (tmp_path / "nowhere", "no such folder")]:
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
