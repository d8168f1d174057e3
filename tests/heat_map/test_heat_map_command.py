"""The report command: which results it reads, what it shows of them, and how it names what it cannot read."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from transformers import PreTrainedTokenizerBase

from bayesian_transformer import TokenUncertainty, Uncertainty
from bayesian_transformer.heat_map.page import LEVELS, Response, render, value_text, write_report
from bayesian_transformer.heat_map.records import BadRecord, read_records, response_of
from bayesian_transformer.score import main as score
from bayesian_transformer.stored_records import greedy_record, response_record, scaling_record
from bayesian_transformer.uncertainty import FIELDS
from tests.helpers.heat_map_pages import Page, a_record, a_response, run, write


def test_greedy_and_scaling_results_are_read(tmp_path: Path, smollm2_path: Path, smollm2_tokenizer: Any) -> None:
    ids = [*smollm2_tokenizer("6 + 5 = 11 😀").input_ids, smollm2_tokenizer.eos_token_id]
    entries = [{i: Uncertainty(0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, smollm2_tokenizer.decode([i]))} for i in ids]
    completion = SimpleNamespace(text="6 + 5 = 11 😀", token_ids=ids, finish_reason="stop", uncertainties=entries)
    problem = {"unique_id": "sum/0", "problem": "6 + 5?", "answer": "11"}
    settings = {"seed": 1, "num_samples": 2, "bayes_sigma": 0.1, "model": "M", "schema_version": 1}
    greedy = write(tmp_path / "batch_results_0_1.jsonl", greedy_record(problem, "prompt", completion, settings))
    outputs = [response_record(completion, per_token=True)] * 2
    scaling = write(tmp_path / "sum_0.json", scaling_record(problem, "prompt", outputs, settings))

    page = tmp_path / "page.html"
    assert run(greedy, scaling, "--output", page, "--tokenizer", smollm2_path).exit_code == 0
    parsed = Page(page.read_text())
    assert len(parsed.data) == 3
    for name in ("sum/0", "sum/0 #1", "sum/0 #2"):
        assert name in parsed.text
    shown = "".join(text for text, _ in parsed.tokens)
    assert shown == "6 + 5 = 11 😀<|im_end|>" * 3

    greedy.write_text(greedy.read_text() * 2)
    result = run(greedy, "--output", tmp_path / "none.html")  # one line for the file, not one for each record
    message = "has token ids but no texts of the tokens; give the model's folder as --tokenizer"
    assert (result.exit_code, result.stderr) == (1, f"Error: {greedy}:1: {message}\n")
    assert not (tmp_path / "none.html").exists()

    short = write(tmp_path / "short.json", scaling_record(problem, "prompt", [response_record(completion)], settings))
    assert "--per-token" in run(short, "--output", page, "--tokenizer", smollm2_path).stderr

    direct = Response.from_completion("x", completion)
    assert direct.values["epistemic"] == [pytest.approx(0.2)] * len(ids)
    assert direct.values["confidence"] == [pytest.approx(0.7)] * len(ids)


def test_output_of_the_score_command_is_read(tmp_path: Path, tiny_llama_tfb_path: Path) -> None:
    source = write(tmp_path / "texts.jsonl", {"messages": [{"role": "user", "content": "Hi"}], "response": "né 😀\n"})
    scores = tmp_path / "scores.jsonl"
    paths = ["--model-path", str(tiny_llama_tfb_path), "--input", str(source), "--output", str(scores)]
    assert CliRunner().invoke(score, [*paths, "--num-samples", "2"]).exit_code == 0
    page = tmp_path / "page.html"
    result = run(scores, "--output", page)
    assert (result.exit_code, result.stdout) == (0, f"{page}: 1 of 1 responses shown, 0 failed\n")
    parsed = Page(page.read_text())
    stored = json.loads(scores.read_text())
    assert "".join(text for text, _ in parsed.tokens) == "né 😀\n"
    assert parsed.data[0]["ids"] == stored["token_ids"]
    assert parsed.data[0]["values"]["total"] == [value_text(v) for v in stored["total"]]
    assert "user: Hi" in parsed.text
    assert f"model {tiny_llama_tfb_path.name}" in parsed.text
    assert str(tiny_llama_tfb_path.parent) not in page.read_text()


@pytest.mark.parametrize("suffix", ["jsonl", "json"])
def test_a_byte_order_mark_is_skipped(tmp_path: Path, suffix: str) -> None:
    record: dict[str, Any] = a_record(["a"]) if suffix == "jsonl" else {"prompt": "p", "outputs": [a_record(["a"])]}
    path = write(tmp_path / f"marked.{suffix}", record)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    result = run(path, "--output", tmp_path / "page.html")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "1 of 1 responses shown, 0 failed" in result.stdout


def test_tensors_can_be_written(tmp_path: Path) -> None:
    values = TokenUncertainty(*torch.arange(16.0).view(8, 2))
    path = tmp_path / "folder" / "page.html"
    write_report(path, [Response("a", torch.tensor([5, 6]).tolist(), ["x", "y"], vars(values))], title="mine")
    assert Page(path.read_text()).data[0]["values"]["total"] == ["0", "1.0000"]


def test_bad_lines_are_reported_and_the_others_shown(tmp_path: Path) -> None:
    source = write(tmp_path / "scores.jsonl", a_record(["good"]), "", "{", "[1]", a_record(["two"]), "{}")
    page = tmp_path / "page.html"
    result = run(source, "--output", page)
    assert result.exit_code == 1
    assert [line.split(": ")[0] for line in result.stderr.splitlines()] == [f"{source}:{n}" for n in (3, 4, 6)]
    assert "2 of 2 responses shown, 3 failed" in result.stdout
    assert len(Page(page.read_text()).data) == 2


def test_lines_that_no_parser_takes_are_reported(tmp_path: Path) -> None:
    source = tmp_path / "scores.jsonl"
    huge = json.dumps(a_record(["a"])).replace("0.01", "1" + "0" * 400, 1).encode()
    source.write_bytes(b"\n".join([b"\xff", b"[" * 100_000, huge, json.dumps(a_record(["good"])).encode()]))
    result = run(source, "--output", tmp_path / "page.html")
    assert result.exit_code == 1
    for line, message in ((1, "not valid UTF-8"), (2, "not valid JSON"), (3, "total: ")):
        assert f"{source}:{line}: {message}" in result.stderr
    assert "1 of 1 responses shown, 3 failed" in result.stdout


def test_an_input_is_not_overwritten(tmp_path: Path) -> None:
    source = write(tmp_path / "scores.jsonl", a_record(["a"]))
    before = source.read_bytes()
    result = run(source, "--output", source)
    assert result.exit_code == 2
    assert "--output is one of the inputs" in result.stderr
    assert source.read_bytes() == before


@pytest.mark.parametrize("content", ["", "\n\n", "{\n"])
def test_nothing_to_show_is_one_line_and_no_page(tmp_path: Path, content: str) -> None:
    source = tmp_path / "scores.jsonl"
    source.write_text(content)
    result = run(source, "--output", tmp_path / "page.html")
    assert result.exit_code == 1
    assert "there are no responses to show" in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "page.html").exists()


def test_no_folder_of_a_tokenizer_is_one_line(tmp_path: Path) -> None:
    source = write(tmp_path / "scores.jsonl", a_record(["a"]))
    result = run(source, "--output", tmp_path / "page.html", "--tokenizer", tmp_path)
    assert result.exit_code == 1
    assert [line for line in result.stderr.splitlines() if line.strip()][-1].startswith("Error: --tokenizer")
    assert "Traceback" not in result.stderr


def test_the_limit_is_said(tmp_path: Path) -> None:
    source = write(tmp_path / "scores.jsonl", *[a_record([f"t{i}"]) for i in range(3)])
    page = tmp_path / "page.html"
    assert "2 of 3 responses shown" in run(source, "--output", page, "--limit", "2").stdout
    assert "The first 2 of 3 responses." in Page(page.read_text()).text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"token_ids": None}, "token_ids"),
        ({"token_ids": [True, 2]}, "token_ids"),
        ({"token_ids": [-1, 2]}, "token_ids"),
        ({"tokens": "ab"}, "tokens must be"),
        ({"tokens": ["a"]}, "token_ids has 2 values for 1 tokens"),
        ({"response": 3}, "response must be a string"),
        ({"total": [1.0]}, "total has 1 values for 2 tokens"),
        ({"total": "ab"}, "total must be a list of numbers"),
        ({"total": [1.0, "b"]}, "total must be a list of numbers"),
        (dict.fromkeys(FIELDS), "none of the per-token arrays"),
    ],
)
def test_bad_records_say_why(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRecord, match=message):
        response_of(a_record(["a", "b"], **changes))


def test_ids_outside_the_tokenizer_are_named(smollm2_tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(BadRecord, match="token id 999999 is not in the --tokenizer"):
        response_of(a_record(["a"], tokens=None, token_ids=[999999]), smollm2_tokenizer)


def test_an_id_of_a_padded_vocabulary_stands_by_its_number(smollm2_tokenizer: PreTrainedTokenizerBase) -> None:
    """A model may know more ids than its tokenizer, and sample one."""
    before, after = smollm2_tokenizer("The sum").input_ids, smollm2_tokenizer(" is 7").input_ids
    ids = [*before, 49_153, *after]
    shown = response_of(a_record(["a"] * len(ids), tokens=None, token_ids=ids), smollm2_tokenizer)
    assert shown.text == "The sum<49153> is 7"
    assert "".join(shown.tokens) == shown.text


def test_json_documents_without_responses_are_named(tmp_path: Path) -> None:
    for content, message in (
        ("{", "not valid JSON"),
        ("{}", "outputs"),
        ('{"outputs": [1]}', "expected a JSON object"),
    ):
        path = tmp_path / "a.json"
        path.write_text(content)
        ((where, record),) = read_records(path)
        assert where.startswith(str(path))
        assert isinstance(record, BadRecord)
        assert message in str(record)


def test_some_arrays_are_enough() -> None:
    record = {key: value for key, value in a_record(["a"]).items() if key not in FIELDS or key == "entropy"}
    page = render([response_of(record), a_response(["b"])], "t")
    assert Page(page).data[0]["levels"] == {"epistemic": "-", "entropy": str(LEVELS - 1)}
