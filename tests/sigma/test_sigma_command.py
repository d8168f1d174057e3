"""`tokur sigma` from files to table and JSON, on a tiny model."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from transformers import AutoModelForCausalLM, AutoTokenizer

from bayesian_transformer.command_line import main
from bayesian_transformer.encoding import ScoringRequest, encode
from bayesian_transformer.sigma import command, search
from bayesian_transformer.sigma.measuring import measure_text
from bayesian_transformer.sigma.summary import Setting, summarise, text_weights

LINES: list[dict[str, Any]] = [
    {"prompt": "What is 2 + 2?", "response": " It is 4.", "unique_id": "a", "answer": "4"},
    {"messages": [{"role": "user", "content": "3 + 3?"}], "response": "I say 7.", "unique_id": "b", "answer": "6"},
    {"prompt": "Tell me of bees.", "response": " They make honey in their hives, and sting."},
]  # fmt: skip
GRID = ("--sigma", "0.05", "--sigma", "2", "--num-samples", "5", "--num-samples", "2", "--flip-rate", "0.2")


def tokur_sigma(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["sigma", *map(str, arguments)])


def written(path: Path, *lines: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    return written(tmp_path / "texts.jsonl", *LINES)


def failure(*arguments: object) -> str:
    """The one line of an error."""
    result = tokur_sigma(*arguments)
    assert result.exit_code == 1, result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert "Traceback" not in result.output
    return line.removeprefix("Error: ")


def test_table_and_file_hold_what_the_texts_come_to(tiny_llama_tfb_path: Path, texts: Path, tmp_path: Path) -> None:
    output = tmp_path / "sigma.json"
    result = tokur_sigma("--model-path", tiny_llama_tfb_path, "--texts", texts, *GRID, "--seed", 7, "--output", output)
    assert result.exit_code == 0, result.output
    stored = json.loads(output.read_text())
    model = AutoModelForCausalLM.from_pretrained(tiny_llama_tfb_path, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama_tfb_path)
    requests = [ScoringRequest(line.get("prompt") or line["messages"], line["response"]) for line in LINES]
    pairs = [encode(tokenizer, request) for request in requests]
    measured = [
        measure_text(model, *pair, seed=7 + number, sigmas=[0.05, 2.0], sample_counts=[2, 5])
        for number, pair in enumerate(pairs)
    ]
    weights = text_weights(["a", "b", "c"])
    assert [(row["num_samples"], row["sigma"]) for row in stored["rows"]] == [(2, 0.05), (2, 2.0), (5, 0.05), (5, 2.0)]
    for row in stored["rows"]:
        expected = vars(summarise(measured, Setting(row["sigma"], row["num_samples"]), weights))
        assert row.pop("flip_rate_interval") == pytest.approx(expected.pop("flip_rate_interval"), abs=1e-9)
        assert row.keys() == expected.keys()
        for key, value in expected.items():
            assert row[key] == (value if value is None else pytest.approx(value, rel=1e-3, abs=1e-6)), key
    assert stored["tokens"] == sum(len(response) for _, response in pairs)
    assert (stored["responses"], stored["problems"], stored["failed"], stored["seed"]) == (3, 3, 0, 7)
    assert stored["model"] == str(tiny_llama_tfb_path)
    assert [choice["sigma"] for choice in stored["recommended"]] == [0.05, 0.05]
    found = stored["detection"]
    assert (found["right"], found["wrong"], found["problems"]) == (1, 1, 2)
    assert [(each["score"], each["num_samples"]) for each in found["detections"]] == [
        ("eu_mean", 2), ("tu_sum", 2), ("eu_mean", 5), ("tu_sum", 5),
    ]  # fmt: skip
    lines = result.stdout.splitlines()
    assert lines[0].startswith(f"3 responses to 3 problems, {stored['tokens']} tokens; noise-free NLL ")
    small, large = (100 * row["flip_rate"] for row in stored["rows"][2:])
    assert small < 20 < large
    assert any(line.startswith(f"  5       2  {large:6.2f} % [") for line in lines)
    assert any(line.startswith(f"5 weight samples: sigma 0.05, which flips {small:.2f} % of the") for line in lines)
    assert "note: S = 2: the error of EU needs at least 5 weight samples" in lines
    assert any(line.startswith("note: no theory ties") for line in lines)
    assert lines[-1] == f"{output}: written"


def test_greedy_results_are_measured_by_their_tokens(tiny_llama_tfb_path: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama_tfb_path)
    prompt, response = "<|im_start|>user\nHi<|im_end|>\n", [90, 91, 92, 2]
    record = {"unique_id": "a", "formatted_prompt": prompt, "text": "Hello", "token_ids": response, "seed": 9}
    source = written(tmp_path / "batch_results_0_1.jsonl", record)
    output = tmp_path / "sigma.json"
    result = tokur_sigma(
        "--model-path", tiny_llama_tfb_path, "--texts", source, "--sigma", 0.3, "--num-samples", 5, "--output", output
    )
    assert result.exit_code == 0, result.output
    model = AutoModelForCausalLM.from_pretrained(tiny_llama_tfb_path, dtype=torch.float32)
    ids = tokenizer(prompt, add_special_tokens=False).input_ids
    measured = measure_text(model, ids, response, seed=0, sigmas=[0.3], sample_counts=[5])
    (row,) = json.loads(output.read_text())["rows"]
    assert row["eu_mean"] == pytest.approx(measured.at[Setting(0.3, 5)].epistemic / 4, rel=1e-3)
    assert json.loads(output.read_text())["detection"] is None
    assert "AUROC" not in result.stdout


def test_bisection_tries_sigmas_in_between(tiny_llama_tfb_path: Path, texts: Path, tmp_path: Path) -> None:
    output = tmp_path / "sigma.json"
    options = ("--sigma", 0.01, "--sigma", 4, "--num-samples", 3, "--bisect", 4, "--flip-rate", 0.05)
    result = tokur_sigma("--model-path", tiny_llama_tfb_path, "--texts", texts, *options, "--output", output)
    assert result.exit_code == 0, result.output
    stored = json.loads(output.read_text())
    sigmas = [row["sigma"] for row in stored["rows"]]
    assert len(sigmas) == 6
    assert sigmas == sorted(sigmas)
    assert 0.2 in sigmas  # the geometric mean of both
    (choice,) = stored["recommended"]
    place = sigmas.index(choice["sigma"])
    assert [row["flip_rate"] <= 0.05 for row in stored["rows"][: place + 2]] == [True] * (place + 1) + [False]
    assert sigmas[place + 1] / sigmas[place] < 400 ** (1 / 4)


def test_nothing_to_recommend_is_said(tiny_llama_tfb_path: Path, texts: Path) -> None:
    result = tokur_sigma("--model-path", tiny_llama_tfb_path, "--texts", texts, "--sigma", 4, "--num-samples", 2)
    assert result.exit_code == 0, result.output
    assert "2 weight samples: none of these: even sigma 4 flips " in result.stdout
    result = tokur_sigma("--model-path", tiny_llama_tfb_path, "--texts", texts, "--sigma", 0.001, "--num-samples", 2)
    assert "sigma 0.001, which flips 0.00 % of the tokens (at most 1 %); even the largest one tried" in result.stdout


def test_lines_that_cannot_be_measured_are_named_and_left_out(tiny_llama_tfb_path: Path, tmp_path: Path) -> None:
    source = written(
        tmp_path / "texts.jsonl", {"prompt": "a"}, LINES[0], {"prompt": "a", "response": " b" * 3000}, LINES[1]
    )
    result = tokur_sigma(
        "--model-path", tiny_llama_tfb_path, "--texts", source, "--sigma", 0.1, "--num-samples", 2, "--bisect", 1
    )
    assert result.exit_code == 1
    assert f"{source}:1: has no response" in result.stderr
    assert result.stderr.count(f"{source}:3: prompt and response have ") == 1
    assert result.stdout.startswith("2 responses to 2 problems, ")
    assert "2 of 4 lines could not be measured and are in no figure above" in result.stdout


def test_a_text_that_fails_later_leaves_earlier_rows_too() -> None:
    """At a sigma that bisection tries."""
    from bayesian_transformer.sigma.summary import Sums, TextSums
    from bayesian_transformer.sigma.texts import Text

    texts = [Text(number, f"line {number}", str(number), "a", "b", None, None) for number in range(3)]
    failed: list[str] = []

    def measure(text: Text, sigmas: Any) -> TextSums:
        if text.number == 1 and 0.2 in sigmas:
            raise ValueError("no")
        return TextSums(10, 1.0, {Setting(sigma, 2): Sums(float(sigma > 0.2), 1, 0, 1, 0, 0) for sigma in sigmas})

    def fail(text: Text, error: ValueError) -> None:
        failed.append(text.place)

    found = search.Search(measure, fail, [2], 0.01, texts)
    found.add([0.1, 0.4])
    assert [row.flips for row in found.rows()[0]] == [0, 3]
    found.bisect(1)
    assert failed == ["line 1"]
    assert found.sigmas == [0.1, 0.2, 0.4]
    assert [row.flips for row in found.rows()[0]] == [0, 0, 2]


def test_without_the_grader_the_table_stands(
    tiny_llama_tfb_path: Path, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(workers: int) -> Any:
        raise ValueError("sympy not installed; install bayesian_transformer with its extra [grading]")

    monkeypatch.setattr(search, "Grader", missing)
    result = tokur_sigma("--model-path", tiny_llama_tfb_path, "--texts", texts, "--sigma", 0.1, "--num-samples", 2)
    assert result.exit_code == 0, result.output
    assert "note: detection is left out: sympy not installed; install" in result.stdout


def test_wrong_options_are_one_line(tiny_llama_tfb_path: Path, texts: Path, tmp_path: Path) -> None:
    model = ("--model-path", tiny_llama_tfb_path)
    assert failure(*model, "--texts", texts, "--num-samples", 10**6).startswith("num_samples must be at most")
    empty = written(tmp_path / "empty.jsonl")
    assert failure(*model, "--texts", empty) == f"{empty}: no line has a prompt with a response"
    long = written(tmp_path / "long.jsonl", {"prompt": "a", "response": " b" * 3000})
    assert failure(*model, "--texts", long, "--num-samples", 2) == "not one text could be measured"
    config = json.loads((tiny_llama_tfb_path / "config.json").read_text())
    single = Path(shutil.copytree(tiny_llama_tfb_path, tmp_path / "single"))
    (single / "config.json").write_text(json.dumps(config | {"num_samples": 1}))
    assert (
        failure("--model-path", single, "--texts", texts)
        == "the model has one weight sample, so no noise; give --num-samples"
    )
    numbers = (("--sigma", "nan"), ("--sigma", "inf"), ("--sigma", -1), ("--flip-rate", "nan"), ("--flip-rate", 2))
    for arguments in (("--num-samples", 1), *numbers, ("--output", texts)):
        result = tokur_sigma(*model, "--texts", texts, *arguments)
        assert result.exit_code == 2, result.output
    assert texts.read_text().startswith('{"prompt"')


def test_a_model_whose_noise_is_switched_off_is_measured(
    tiny_llama_tfb_path: Path, texts: Path, tmp_path: Path
) -> None:
    config = json.loads((tiny_llama_tfb_path / "config.json").read_text())
    silent = Path(shutil.copytree(tiny_llama_tfb_path, tmp_path / "silent"))
    (silent / "config.json").write_text(json.dumps(config | {"sample": False}))
    output = tmp_path / "sigma.json"
    result = tokur_sigma(
        "--model-path", silent, "--texts", texts, "--sigma", 0.1, "--num-samples", 2, "--output", output
    )
    assert result.exit_code == 0, result.output
    assert json.loads(output.read_text())["rows"][0]["eu_mean"] > 1e-4


def test_out_of_memory_is_one_line(tiny_llama_tfb_path: Path, texts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bayesian_transformer.sigma import measuring

    def full(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(measuring, "measure_text", full)
    said = failure("--model-path", tiny_llama_tfb_path, "--texts", texts, "--num-samples", 2)
    assert said == "--device cpu: out of memory; lower --chunk-rows"


def test_the_help_tells_a_newcomer_what_to_type() -> None:
    said = tokur_sigma("--help").output
    assert "tokur sigma --model-path TFB-MODEL --texts texts.jsonl" in said
    assert "no theory ties it to detection" in " ".join(said.split())
    assert command.GRID == (0.01, 0.02, 0.05, 0.1, 0.2, 0.4)
