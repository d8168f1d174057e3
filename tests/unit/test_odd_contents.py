"""What files may hold that once broke who reads or writes them; the fuzz tests in tests/soak/ found most of it."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bayesian_transformer.files import DEEPEST, append_jsonl, read_document, read_jsonl, shortened, write_json
from bayesian_transformer.grading import Grader
from bayesian_transformer.heat_map.page import Response, write_report
from bayesian_transformer.results import check_same, read_greedy
from bayesian_transformer.score import whole_path
from bayesian_transformer.scores import record_arrays
from benchmarks.utils.baseline import read_baseline
from eval.utils.csv_tables import write_csv
from eval.utils.detection import load_run
from eval.utils.responses import read_problems
from run.utils.run_options import RunOptions
from tests.helpers.eval_results import write_greedy, write_scaling

HALF = "half of a pair: \ud83d"


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader(workers=1) as grader:
        yield grader


def test_values_nested_beyond_all_reason_are_refused_by_name(tmp_path: Path) -> None:
    for depth in (DEEPEST, 400, 900, 10**5):
        path = tmp_path / f"{depth}.json"
        path.write_text('{"a": ' + "[" * depth + "]" * depth + "}")
        for read in (lambda path: read_document(path, "mend it"), read_jsonl):
            with pytest.raises(ValueError, match=rf"{depth}\.json.*(nested more than {DEEPEST} deep|recursion)"):
                read(path)
    path.write_text('{"a": ' + "[" * (DEEPEST - 1) + "]" * (DEEPEST - 1) + ', "b": [[], [], {}]}')
    write_json(tmp_path / "again.json", read_document(path, "mend it"))
    assert read_document(tmp_path / "again.json", "") == read_jsonl(path)[0]


def test_many_brackets_are_no_depth(tmp_path: Path) -> None:
    write_json(tmp_path / "wide.json", {"a": [{"b": [i]} for i in range(1000)]})
    assert len(read_document(tmp_path / "wide.json", "")["a"]) == 1000


def test_half_a_surrogate_pair_is_kept_in_json_and_shown_elsewhere(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {HALF: HALF})
    assert read_document(tmp_path / "a.json", "") == {HALF: HALF}
    append_jsonl(tmp_path / "a.jsonl", {"a": HALF})
    assert read_jsonl(tmp_path / "a.jsonl") == [{"a": HALF}]
    write_csv(tmp_path / "a.csv", [{"id": HALF}])
    assert "pair: \\ud83d" in (tmp_path / "a.csv").read_text()
    write_report(tmp_path / "a.html", [Response("a", [1], [HALF], {"total": [1.0]})])
    assert "pair: \\ud83d" in (tmp_path / "a.html").read_text()


def test_line_ends_in_a_cell_stay_in_it(tmp_path: Path) -> None:
    names = ["a\rb", "c\nd", "e\r\nf", 'g"h', "i,j", "k"]
    write_csv(tmp_path / "a.csv", [{"name": name, "value": 1.5} for name in names])
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        assert [row["name"] for row in csv.DictReader(file)] == names
    assert (tmp_path / "a.csv").read_bytes().endswith(b'i,j",1.5\nk,1.5\n')


def test_errors_show_the_ends_of_a_long_value() -> None:
    with pytest.raises(ValueError, match=r"made with prompt 'begin-x+\.\.\.x+-end', this run has") as error:
        check_same("f", {"prompt": "begin-" + "x" * 9999 + "-end"}, {"prompt": ["y" * 999] * 99})
    assert len(str(error.value)) < 1200
    assert shortened({"dtype": "float32", "hf_overrides": {"num_samples": 3}}) == (
        "{'dtype': 'float32', 'hf_overrides': {'num_samples': 3}}"
    )


def test_a_model_whose_name_no_folder_can_have_is_a_name() -> None:
    assert whole_path("é" * 4000) == "é" * 4000


def test_numbers_beyond_a_float_are_named(tmp_path: Path, grader: Grader) -> None:
    with pytest.raises(ValueError, match="'total' is not a list of numbers"):
        record_arrays({"total": [10**400]}, 1)
    (path,) = write_scaling(tmp_path, 96, problems=1, n=2).glob("*.json")
    record = json.loads(path.read_text())
    record["outputs"][1]["uncertainties"]["tu"] = 10**400
    path.write_text(json.dumps(record))
    (error,) = read_problems([path], {}, grader)
    assert str(error).startswith(f"{path}: a score of a response is not a number")


def test_settings_of_the_wrong_kind_are_named(tmp_path: Path, grader: Grader) -> None:
    part = write_greedy(tmp_path, 96, problems=1)
    write_json(part.parent / "settings.json", {"dataset_problems": "3"})
    with pytest.raises(ValueError, match=r"settings\.json: 'dataset_problems' is not a whole number; remove the key"):
        load_run(96, part.parent, grader, window=4)
    write_json(part.parent / "settings.json", {"dataset_problems": 3})
    assert load_run(96, part.parent, grader, window=4).dataset_problems == 3
    (record,) = read_greedy(part.parent)
    part.write_text(json.dumps(record | {"num_samples": [3]}))
    with pytest.raises(ValueError, match=r"record 1 \(sums_0\): 'num_samples' is a list; remove the record"):
        read_greedy(part.parent)


@pytest.mark.parametrize(
    "content", [{"settings": None, "ratios": {}}, {"settings": {}, "ratios": []}, {"settings": {}, "ratios": {"a": 1}}]
)
def test_baselines_of_another_shape_are_refused(tmp_path: Path, content: dict[str, Any]) -> None:
    write_json(tmp_path / "baseline.json", content)
    with pytest.raises(ValueError, match=r"baseline\.json: not a baseline"):
        read_baseline(tmp_path / "baseline.json")


def test_the_mark_that_an_editor_puts_first_is_no_part_of_a_system_prompt(tmp_path: Path) -> None:
    path = tmp_path / "system.txt"
    path.write_bytes(b"\xef\xbb\xbfBe brief.\r\n")
    options = RunOptions(path, 0, None, "model", tmp_path, 0, 1, None, None, 1, path, {})
    assert options.system_prompt() == "Be brief."
