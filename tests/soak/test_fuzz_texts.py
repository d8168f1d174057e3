"""What `tokur score`, `tokur heatmap`, run scripts and benchmarks read, on files that nobody wrote on purpose."""

import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bayesian_transformer.files import read_jsonl
from bayesian_transformer.heat_map.command import choose, collect
from bayesian_transformer.heat_map.page import Response, write_report
from bayesian_transformer.noise_config import NoiseConfig
from bayesian_transformer.quantities import FIELDS
from bayesian_transformer.results import read_settings
from bayesian_transformer.score import SCHEMA_VERSION, Scoring, parse_line, read_lines, read_scores
from benchmarks.utils.baseline import baseline_of, regressions
from run.utils.run_options import RunOptions
from tests.helpers.run_scripts import write_rows
from tests.soak.hostile_files import (
    any_bytes,
    damaged,
    good_line,
    hostile_document,
    hostile_lines,
    one_hostile,
    only_named_errors,
    only_short_errors,
)

TEXTS: list[dict[str, Any]] = [
    {"prompt": "1 + 1 =", "response": " 2"},
    {"messages": [{"role": "user", "content": "é"}], "response": "x", "seed": 3, "note": [None]},
]
SETTINGS = {"num_samples": 3, "bayes_sigma": 0.1, "model": "model", "dtype": "float32"}
ARRAYS = {"token_ids": [5, 6], "tokens": ["a", "b"], **{name: [0.5, None] for name in FIELDS}}
SCORES = [
    {**text, "line": number, **ARRAYS, **SETTINGS, "seed": text.get("seed", 0), "schema_version": SCHEMA_VERSION}
    for number, text in enumerate(TEXTS, start=1)
]
SAMPLED = {"prompt": "p", "unique_id": "a", "answer": "2", "outputs": [{"text": "ab", **ARRAYS}]}
CASE = {"batch": 1, "num_samples": 3, "context": 16, "limit": {"ratio": 1.1}, "plain": {"ratio": 1.3}}
BENCHMARK = {"model": "m", "dtype": "float32", "device": "cpu", "enforce_eager": True, "cases": [CASE]}
SIZE = 300_000
NOISE = NoiseConfig(num_samples=3)


def by_score(path: Path) -> object:
    lines = read_lines(path)
    return read_scores(path, lines), [parse_line(line, 0) for _, line in lines]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile")


@given(line=any_bytes | hostile_document(TEXTS[1]))
def test_lines_to_score(line: bytes) -> None:
    with only_short_errors():
        record, request = parse_line(line, seed=7)
        assert request.response == record["response"]
        assert isinstance(request.seed, int)


@given(
    files=one_hostile(
        (b"".join(map(good_line, TEXTS)), hostile_lines(TEXTS)),
        (b"".join(map(good_line, SCORES)), hostile_lines(SCORES)),
    )
)
def test_a_run_of_score_that_goes_on(folder: Path, files: list[bytes]) -> None:
    source, output = folder / "texts.jsonl", folder / "scores.jsonl"
    texts, scores = files
    source.write_bytes(texts)
    output.write_bytes(scores)
    with only_named_errors(source, output):
        done = read_scores(output, read_lines(source))
        assert len(done) <= scores.count(b"\n")
    with only_named_errors(source, output):
        scoring = Scoring(read_lines(source), output, NOISE, 0, model="model", dtype="float32")
        todo = list(scoring.requests(source))
        assert len(todo) + len(scoring.done) + scoring.failures <= texts.count(b"\n") + 1


@given(content=hostile_lines(SCORES) | hostile_document(SAMPLED), suffix=st.sampled_from((".json", ".jsonl")))
def test_heat_map(folder: Path, content: bytes, suffix: str) -> None:
    path = (folder / "records").with_suffix(suffix)
    path.write_bytes(content)
    responses: list[Response] = []
    with only_named_errors(path):
        responses, failures = collect((path,), None)
        assert len(responses) + failures <= content.count(b"\n") + 20
    if responses:
        write_report(folder / "page.html", responses)
        with only_short_errors():
            choose(responses, limit=1, most=1, least=1, by="eu_mean")


@given(content=any_bytes | st.text(max_size=40).map(str.encode).flatmap(damaged))
def test_system_prompt_files(folder: Path, content: bytes) -> None:
    path = folder / "system.txt"
    path.write_bytes(content)
    options = RunOptions(path, 0, None, "model", folder, 0, 1, None, None, 1, path, {})
    with only_named_errors(path):
        text = options.system_prompt()
        assert text == content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n").strip()


@given(content=hostile_document(baseline_of(BENCHMARK)))
def test_baselines_of_benchmarks(folder: Path, content: bytes) -> None:
    path = folder / "baseline.json"
    path.write_bytes(content)
    with only_named_errors(path):
        assert all(isinstance(line, str) for line in regressions(path, BENCHMARK, 0.1))


def test_good_files_are_read(folder: Path) -> None:
    """The files that the strategies start from are good ones."""
    assert (
        len(collect((write_rows(folder / "good.jsonl", SCORES), write_rows(folder / "good.json", [SAMPLED])), None)[0])
        == 3
    )
    source = write_rows(folder / "good_texts.jsonl", TEXTS)
    scoring = Scoring(read_lines(source), folder / "good.jsonl", NOISE, 0, model="model", dtype="float32")
    assert (list(scoring.requests(source)), scoring.failures, len(scoring.done)) == ([], 0, 2)
    assert regressions(write_rows(folder / "good_baseline.json", [baseline_of(BENCHMARK)]), BENCHMARK, 0.1) == []


@pytest.mark.parametrize(
    "piece", [b"[", b'{"a":', b"\n", b"x", b"\xff", b'{"a":1}\n', b'{"a":1}', b"[],", b'"\\ud800",', b"1e9"]
)
@pytest.mark.parametrize("read", [read_jsonl, read_settings, lambda path: collect((path,), None), by_score])
def test_a_large_file_takes_bounded_time_and_memory(
    folder: Path, piece: bytes, read: Callable[[Path], object], capsys: pytest.CaptureFixture[str]
) -> None:
    """No more memory than some tens of times its size, which is what JSON takes in Python."""
    path = folder / "large.json"
    path.write_bytes(piece * (SIZE // len(piece)))
    begin = time.monotonic()
    tracemalloc.start()
    with only_named_errors(path):
        read(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 60 * SIZE
    assert time.monotonic() - begin < 20
    capsys.readouterr()
