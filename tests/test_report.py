"""The token heat map: reading results, spelling texts by their tokens, the colour scale, and what the HTML holds."""

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from hypothesis import assume, given
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from bayesian_transformer import TokenUncertainty, Uncertainty
from bayesian_transformer.heat_map import LEVELS, QUANTITIES, Response, Scale, number, render, spell, write_report
from bayesian_transformer.report import BadRecord, main, read_records, response_of
from bayesian_transformer.score import main as score
from bayesian_transformer.uncertainty import FIELDS
from run.utils.results import greedy_record, response_record, scaling_record

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&"


class Page(HTMLParser):
    """Elements of a page: scripts, tokens (text, level), all text outside scripts and styles, tags and attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts: list[str] = []
        self.tokens: list[tuple[str, str]] = []
        self.text, self.tags = "", []  # type: str, list[tuple[str, dict[str, str | None]]]
        self._in: str = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")
        if tag in ("script", "style"):
            self._in = tag
        elif tag == "span" and "data-level" in dict(attrs):
            self.tokens.append(("", dict(attrs)["data-level"] or ""))
            self._in = "token"

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style", "span"):
            self._in = ""

    def handle_data(self, data: str) -> None:
        if self._in == "script":
            self.scripts[-1] += data
        elif self._in != "style":
            self.text += data
            if self._in == "token":
                self.tokens[-1] = (self.tokens[-1][0] + data, self.tokens[-1][1])

    @property
    def data(self) -> list[dict[str, Any]]:
        return json.loads(self.scripts[0])


def a_record(tokens: list[str], /, **changes: Any) -> dict[str, Any]:
    """A line of the score command's output."""
    arrays = {name: [0.01 * (t + 1) for t in range(len(tokens))] for name in FIELDS}
    ids = list(range(len(tokens)))
    return {
        "prompt": "p",
        "response": "".join(tokens),
        "line": 1,
        "token_ids": ids,
        "tokens": tokens,
        **arrays,
        **changes,
    }


def a_response(tokens: list[str], /, name: str = "r", **changes: Any) -> Response:
    values = {"epistemic": [0.1] * len(tokens)}
    return Response(name, list(range(len(tokens))), tokens, **({"values": values} | changes))


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


def write(path: Path, *lines: Any) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


@pytest.fixture(scope="module")
def tokenizer(smollm2_path: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(smollm2_path)


# Escaping


def test_no_text_becomes_markup_or_ends_a_script(tmp_path: Path) -> None:
    record = a_record([EVIL, "\u2028<!--"], prompt=EVIL, id=EVIL, answer=EVIL)
    page = tmp_path / "page.html"
    assert run(write(tmp_path / "scores.jsonl", record), "--output", page, "--title", EVIL).exit_code == 0
    parsed = Page(page.read_text())
    assert [tag for tag, _ in parsed.tags].count("script") == len(parsed.scripts) == 2
    assert "img" not in {tag for tag, _ in parsed.tags}
    assert not [name for _, attributes in parsed.tags for name in attributes if name.startswith("on")]
    assert parsed.data[0]["tokens"] == [EVIL, "\u2028<!--"]
    assert parsed.text.count("<img src=x onerror=alert(2)>") >= 4  # prompt, text, name, answer
    assert parsed.tokens[-2][0] == EVIL


def test_the_page_refers_to_nothing_outside() -> None:
    page = render([a_response(["a"])], "t")
    assert not re.search(r"https?:|//[a-z]|@import|url\(", page)
    attributes = {name for _, attributes in Page(page).tags for name in attributes}
    assert not attributes & {"src", "href", "srcset", "action", "style"}
    policy = next(a["content"] or "" for _, a in Page(page).tags if a.get("http-equiv"))
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


@given(st.lists(st.text(max_size=6), max_size=6))
def test_any_text_is_shown_and_handed_to_the_script(tokens: list[str]) -> None:
    parsed = Page(render([a_response(tokens)], "t"))
    assert parsed.data[0]["tokens"] == tokens
    shown = [text for text, _ in parsed.tokens[LEVELS:]]
    spelled = [re.sub(r"[\x00-\x08\x0b-\x1f]", lambda m: f"\\x{ord(m[0]):02x}", token) for token in tokens]
    assert shown == spelled


def test_lone_surrogates_can_be_written(tmp_path: Path) -> None:
    write_report(tmp_path / "page.html", [a_response(["a\ud800"])])
    assert "a\ufffd" in (tmp_path / "page.html").read_text(encoding="utf-8")


# Spelling


@given(text=st.text(st.characters(codec="utf-8", exclude_characters="\ufffd"), max_size=40))
def test_tokens_of_byte_level_tokenizers_spell_the_text(text: str, tokenizer: PreTrainedTokenizerBase) -> None:
    ids = tokenizer(text).input_ids
    assume(tokenizer.decode(ids) == text)  # the vocabulary lacks some control characters
    tokens = [tokenizer.decode([i]) for i in ids]
    pieces = spell(tokens, text)
    assert pieces is not None
    assert len(pieces) == len(tokens)
    assert "".join(pieces) == text


@pytest.mark.parametrize(
    ("tokens", "text", "pieces"),
    [
        (["a", " \ufffd", "\ufffd", " b"], "a é b", ["a", " ", "é", " b"]),
        (["\ufffd", "\ufffd", " \ufffd", "\ufffd"], "é é", ["", "é", " ", "é"]),
        (["\ufffd", "x"], "\ufffdx", ["\ufffd", "x"]),
        (["a", "\ufffd"], "a\ufffd", ["a", "\ufffd"]),
        (["a", "b", "<end>"], "ab", ["a", "b", "<end>"]),
        (["Hello", "world"], "Hello world\n", ["Hello", " world\n"]),
        (["a", "\ufffd", "<end>"], "aé", ["a", "é", "<end>"]),
        (["a"], "b", None),
        (["a"], "ab", None),
        ([], "", []),
        ([], "a", None),
    ],
)
def test_spelling(tokens: list[str], text: str, pieces: list[str] | None) -> None:
    assert spell(tokens, text) == pieces


def test_tokens_that_do_not_spell_the_text_are_shown_by_themselves() -> None:
    parsed = Page(render([a_response(["a", "b"], text="other")], "t"))
    assert [text for text, _ in parsed.tokens[LEVELS:]] == ["a", "b"]
    assert "do not spell the stored text" in parsed.text


# Scale and numbers


@given(
    st.sampled_from(QUANTITIES),
    st.lists(st.one_of(st.none(), st.floats(-50, 50)), min_size=1, max_size=80),
)
def test_levels_follow_the_order_of_uncertainty(quantity: Any, values: list[float | None]) -> None:
    scale = Scale.of(quantity, values)
    known = sorted((v for v in values if v is not None), reverse=not quantity.high_is_unsure)
    levels = [int(scale.level(v)) for v in known]
    if not quantity.from_zero or all(v * (1 if quantity.high_is_unsure else -1) >= 0 for v in known):
        assert levels == sorted(levels)
        assert not known or known[-1] == scale.pale or levels[-1] == LEVELS - 1
    assert scale.level(None) == "-"


def test_outliers_do_not_fade_the_others() -> None:
    scale = Scale.of(QUANTITIES[0], [0.1] * 99 + [9.0])
    assert (scale.pale, scale.strong, scale.extreme) == (0.0, 0.1, 9.0)
    assert scale.note == " and beyond, to 9.0000"
    assert Scale.of(QUANTITIES[0], [0.0] * 99 + [9.0]).level(9.0) == str(LEVELS - 1)
    assert Scale.of(QUANTITIES[0], [0.0, 0.0]).level(0.0) == "0"


def test_numbers_keep_their_size() -> None:
    assert [number(v) for v in (None, 0.0, -0.0, 1.23456, 0.00012, -3e-9)] == [
        "–", "0", "0", "1.2346", "1.2e-04", "-3.0e-09",
    ]  # fmt: skip


def test_sums_means_and_counts() -> None:
    response = a_response(["a", "b", "c"], values={"epistemic": [0.5, None, 1.0], "logprob": [-1.0, -2.0, -math.inf]})
    page = render([response], "t")
    assert re.search(r'EU</th><td class="now"></td><td>0.7500</td><td>1.5000<small> 1 missing', page)
    assert re.search(r'logprob</th><td class="now"></td><td>-1.5000</td><td>-3.0000<small> 1 missing', page)
    assert "3 tokens" in Page(page).text
    assert Page(page).data[0]["values"]["logprob"] == ["-1.0000", "-2.0000", "–"]


def test_without_javascript_the_text_is_coloured_by_eu() -> None:
    response = a_response(["a", "b", "c"], values={"total": [3.0, 2.0, 1.0], "epistemic": [0.05, None, 1.0]})
    assert Page(render([response], "t")).tokens[2 * LEVELS :] == [("a", "0"), ("b", "-"), ("c", "9")]


def test_quantities_cover_the_fields() -> None:
    assert sorted(q.name for q in QUANTITIES) == sorted(FIELDS)


# Reading


def test_greedy_and_scaling_results_are_read(tmp_path: Path, smollm2_path: Path, tokenizer: Any) -> None:
    ids = [*tokenizer("6 + 5 = 11 😀").input_ids, tokenizer.eos_token_id]
    entries = [{i: Uncertainty(0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, tokenizer.decode([i]))} for i in ids]
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
    assert parsed.data[0]["values"]["total"] == [number(v) for v in stored["total"]]
    assert "user: Hi" in parsed.text
    assert f"model {tiny_llama_tfb_path.name}" in parsed.text
    assert str(tiny_llama_tfb_path.parent) not in page.read_text()


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


def test_ids_outside_the_tokenizer_are_named(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(BadRecord, match="token id 999999 is not in the --tokenizer"):
        response_of(a_record(["a"], tokens=None, token_ids=[999999]), tokenizer)


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
