"""Every reader of data sets, settings and results, on files that nobody wrote on purpose.

The claim is that any bytes give rows or one line that names the file, and that what was written is read back. How many
files are tried is a matter of the hypothesis profile; see conftest.py.
"""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bayesian_transformer.files import append_jsonl, drop_torn_line, dumps, read_jsonl, write_json
from bayesian_transformer.grading import Grader
from bayesian_transformer.problems import answer_text, count_problems, load_problems, problem_text, question_id
from bayesian_transformer.results import SETTINGS, SETTINGS_FILE, greedy_part, read_greedy, read_settings
from bayesian_transformer.stored_records import greedy_record, response_record, scaling_record
from eval.eval_scaling_test_multi_gpu import gold_answers
from eval.utils.csv_tables import write_csv
from eval.utils.detection import load_run
from eval.utils.evaluation import evaluate
from eval.utils.notes import evaluation_notes
from eval.utils.responses import Problem, read_problems
from eval.utils.scaling import scaling_notes, scaling_rows
from tests.helpers.eval_results import SETTINGS as MADE_WITH
from tests.helpers.eval_results import completion, problem
from tests.soak.hostile_files import (
    any_bytes,
    check_named,
    good_line,
    hostile_document,
    hostile_lines,
    json_values,
    one_hostile,
    only_named_errors,
    only_short_errors,
)

RNG = np.random.default_rng(0)
ANSWERS = [completion(RNG, f"It is \\boxed{{{7 + i // 2}}}.", 0.1, tokens=3) for i in range(3)]
GREEDY = [greedy_record(problem(i), "prompt", answer, MADE_WITH) for i, answer in enumerate(ANSWERS)]
FOLDER_SETTINGS = {**dict.fromkeys(SETTINGS, "x"), **MADE_WITH, "dataset_problems": 3}
RESPONSES = [response_record(answer, per_token) for answer, per_token in zip(ANSWERS[:2], (True, False), strict=True)]
SAMPLED = scaling_record(problem(0), "prompt", RESPONSES, FOLDER_SETTINGS)
PROBLEMS = [problem(0), {"question": "What?", "answer": 4, "metadata": {"source_index": 0}, "level": [1]}]


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader(workers=1) as grader:
        yield grader


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all examples of a test; each writes its files anew."""
    return tmp_path_factory.mktemp("hostile")


@given(content=any_bytes | hostile_lines(PROBLEMS), torn_end=st.booleans())
def test_json_lines(folder: Path, content: bytes, torn_end: bool) -> None:
    path = folder / "rows.jsonl"
    path.write_bytes(content)
    with only_named_errors(path):
        rows = read_jsonl(path, torn_end)
        assert all(isinstance(row, dict) for row in rows)
        assert len(rows) <= content.count(b"\n") + 1


@settings(max_examples=-(-settings().max_examples // 10))
@given(rows=st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=9) | st.integers(), max_size=2), max_size=3))
def test_a_file_torn_at_any_byte_loses_its_last_line_at_most(folder: Path, rows: list[dict[str, Any]]) -> None:
    path = folder / "torn.jsonl"
    path.unlink(missing_ok=True)
    path.touch()
    for row in rows:
        append_jsonl(path, row)
    whole = path.read_bytes()
    for cut in range(len(whole) + 1):
        kept = whole[:cut].count(b"\n")
        path.write_bytes(whole[:cut])
        assert read_jsonl(path, torn_end=True) in (rows[:kept], rows[: kept + 1])
        drop_torn_line(path)
        assert read_jsonl(path) == rows[:kept]
        assert path.read_bytes() == whole[: path.stat().st_size]
    append_jsonl(path, {"last": 1})
    assert read_jsonl(path) == [*rows, {"last": 1}]


@given(content=hostile_document(FOLDER_SETTINGS))
def test_settings(folder: Path, content: bytes) -> None:
    path = folder / SETTINGS_FILE
    path.write_bytes(content)
    with only_named_errors(path):
        assert isinstance(read_settings(path), dict)


@given(value=st.dictionaries(st.text(), json_values, max_size=4))
def test_what_is_written_is_read_back(folder: Path, value: dict[str, Any]) -> None:
    """But for NaN and infinities, which are read as null."""
    path = folder / "value.json"
    write_json(path, value)
    again = read_settings(path)
    assert dumps(again) == dumps(value)
    write_json(path, again)
    assert read_settings(path) == again


@given(content=hostile_lines(PROBLEMS))
def test_data_sets(folder: Path, content: bytes) -> None:
    path = folder / "problems.jsonl"
    path.write_bytes(content)
    with only_named_errors(path):
        gold_answers(path)
    with only_named_errors(path):
        problems = load_problems(path)
        assert 1 <= count_problems(problems) <= len(problems)
    for row in read_rows(path):
        for reader in (question_id, problem_text, answer_text):
            with only_short_errors():
                assert isinstance(reader(row), str)


def read_rows(path: Path) -> list[dict[str, Any]]:
    try:
        return read_jsonl(path)
    except ValueError:
        return []


@given(
    files=one_hostile(
        (b"".join(map(good_line, GREEDY)), hostile_lines(GREEDY)),
        (good_line(GREEDY[0]), hostile_lines(GREEDY[:1])),
        (good_line(FOLDER_SETTINGS), hostile_document(FOLDER_SETTINGS)),
    )
)
def test_greedy_results(folder: Path, grader: Grader, files: list[bytes]) -> None:
    """Read, graded, scored, evaluated and described."""
    results = folder / "greedy"
    paths = greedy_part(results, 0, 3), greedy_part(results, 1, 2), results / SETTINGS_FILE
    for path, content in zip(paths, files, strict=True):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    with only_named_errors(results):
        assert len({question_id(record) for record in read_greedy(results)}) == len(read_greedy(results))
        run = load_run(0, results, grader, window=4)
        evaluation = evaluate([run], draws=2, strata=2)
        notes = evaluation_notes(evaluation, {}, window=4)
        write_csv(results / "table.csv", [{"id": name, "notes": len(notes)} for name in run.ids])


@given(documents=one_hostile(*2 * [(good_line(SAMPLED), hostile_document(SAMPLED))]))
def test_sampled_results(folder: Path, grader: Grader, documents: list[bytes]) -> None:
    paths = [folder / f"sampled{number}.json" for number in range(2)]
    for path, content in zip(paths, documents, strict=True):
        path.write_bytes(content)
    items = list(read_problems(paths, {}, grader))
    assert len(items) == len(paths)
    for path, item in zip(paths, items, strict=True):
        if isinstance(item, ValueError):
            check_named(item, path)
    if problems := [item for item in items if isinstance(item, Problem)]:
        rows = scaling_rows(problems, seed=0, p_val=0.5, repeats=1, mode="all", progress=iter)
        assert all(0 <= row.accuracy_mean <= 1 for row in rows)
        write_json(folder / "notes", scaling_notes(problems))


def test_results_are_read_back(tmp_path: Path, grader: Grader) -> None:
    """The records that the strategies start from are good ones."""
    for record in GREEDY:
        append_jsonl(greedy_part(tmp_path, 0, 3), record)
    assert read_greedy(tmp_path) == GREEDY
    write_json(tmp_path / "sampled.json", SAMPLED)
    (item,) = read_problems([tmp_path / "sampled.json"], {}, grader)
    assert isinstance(item, Problem)
    assert item.values.shape[1] == len(RESPONSES)
    assert read_settings(tmp_path / "sampled.json") == SAMPLED


@given(rows=st.lists(st.tuples(st.text(max_size=9).map("x{}".format), st.floats()), min_size=1, max_size=4))
def test_tables_are_read_back(folder: Path, rows: list[tuple[str, float]]) -> None:
    """With the csv module; texts begin with a letter, as a spreadsheet takes what begins otherwise for a formula."""
    path = folder / "table.csv"
    write_csv(path, [{"name": name, "value": value} for name, value in rows])
    with path.open(newline="", encoding="utf-8") as file:
        again = [(row["name"], float(row["value"] or "nan")) for row in csv.DictReader(file)]
    assert repr(again) == repr(rows)
