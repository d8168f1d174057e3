"""The run scripts as a whole on hostile data sets and results: each run ends well, or with one line of error.

The engine is the one that stands in for vLLM's in the tests of the run scripts; what it answers is not the matter here.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st

from bayesian_transformer.results import SETTINGS_FILE
from tests.helpers.run_scripts import (
    PROBLEMS,
    greedy,
    greedy_folder,
    install_fake,
    only_line,
    save_model,
    scaling,
    scaling_folder,
    write_rows,
)
from tests.soak.hostile_files import hostile_document, hostile_lines

Script = Callable[..., Result]
ROWS = [PROBLEMS[0], {"question": "What?", "answer": 4, "metadata": {"source_index": 0}, "level": [1]}]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model") / "TFB-tiny")


@pytest.fixture(scope="module", autouse=True)
def engine() -> Iterator[None]:
    pytest.importorskip("vllm")
    with pytest.MonkeyPatch.context() as monkeypatch:
        install_fake(monkeypatch, prompt_limit=10**6, die_after=10**9)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


def ended_well_or_in_one_line(result: Result) -> None:
    if result.exit_code:
        error = only_line(result)
        assert "Traceback" not in result.output
        assert len(error) < 3000


@given(content=hostile_lines(ROWS), script=st.sampled_from((greedy, scaling)))
def test_hostile_data_sets(folder: Path, model: Path, content: bytes, script: Script) -> None:
    """What could be asked is stored, and is taken for done by a second run."""
    shutil.rmtree(folder / "results", ignore_errors=True)
    dataset = folder / "sums.jsonl"
    dataset.write_bytes(content)
    first = script(model, dataset)
    ended_well_or_in_one_line(first)
    stored = {path: path.read_bytes() for path in folder.joinpath("results").rglob("*.json*")}
    second = script(model, dataset)
    assert (second.exit_code, second.output) == (first.exit_code, first.output)
    assert stored == {path: path.read_bytes() for path in folder.joinpath("results").rglob("*.json*")}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    """The data set of a run of each script over two problems."""
    dataset = write_rows(tmp_path_factory.mktemp("good") / "sums.jsonl", PROBLEMS[:2])
    with pytest.MonkeyPatch.context() as monkeypatch:
        install_fake(monkeypatch)
        assert greedy(model, dataset).exit_code == scaling(model, dataset).exit_code == 0
    return dataset


@given(data=st.data())
def test_hostile_results(good: Path, model: Path, data: st.DataObject) -> None:
    """Of greedy answers, and of the settings of their folder."""
    part, settings = greedy_folder(good) / "batch_results_0_2.jsonl", greedy_folder(good) / SETTINGS_FILE
    kept = {path: path.read_bytes() for path in (part, settings)}
    rows = [json.loads(line) for line in kept[part].splitlines()]
    try:
        part.write_bytes(data.draw(hostile_lines(rows)))
        settings.write_bytes(data.draw(st.just(kept[settings]) | hostile_document(json.loads(kept[settings]))))
        ended_well_or_in_one_line(greedy(model, good))
    finally:
        for path, content in kept.items():
            path.write_bytes(content)


@given(data=st.data())
def test_hostile_responses(good: Path, model: Path, data: st.DataObject) -> None:
    """Of sampled answers."""
    path = scaling_folder(good) / "test_sum_1.json"
    kept = path.read_bytes()
    try:
        path.write_bytes(data.draw(hostile_document(json.loads(kept))))
        ended_well_or_in_one_line(scaling(model, good))
    finally:
        path.write_bytes(kept)
