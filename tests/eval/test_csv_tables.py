"""Cells of the CSV files: no text that a spreadsheet would run, and numbers as numbers."""

import csv
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.utils.csv_tables import cell, write_csv
from tests.helpers.detection_runs import report_folder, rewrite, run, table
from tests.helpers.eval_results import write_greedy

FORMULAS = ["=1+1", "+1", "-1+cmd|' /C calc'!A0", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "  =1", "＝1+1", "＋1"]


@pytest.mark.parametrize("text", FORMULAS)
def test_a_text_that_a_spreadsheet_would_run_is_quoted(text: str) -> None:
    assert cell(text) == f"'{text}"


@given(st.text())
def test_no_text_begins_as_a_formula(text: str) -> None:
    shown = cell(text)
    assert not shown.lstrip(" ").startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    assert shown.removeprefix("'") == text.removeprefix("'")


@given(st.one_of(st.integers(), st.floats(allow_nan=False)))
def test_numbers_stay_numbers(tmp_path_factory: pytest.TempPathFactory, value: float) -> None:
    path = tmp_path_factory.getbasetemp() / "numbers.csv"
    write_csv(path, [{"value": value, "nothing": math.nan}])
    with path.open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert type(value)(row["value"]) == value
    assert row["nothing"] == ""


def test_hostile_problem_names_in_a_detection_report(tmp_path: Path) -> None:
    """From stored results to the tables, the text and the terminal."""
    path = write_greedy(tmp_path, 96)

    def rename(index: int, record: dict[str, object]) -> None:
        record["unique_id"] = f"={index}+1" if index % 2 else f"\x1b[2J\u202e{index}"
        record["text"] = f"\x1b]0;{index}\x07 \\boxed{{-{index}}}" if index % 3 == 0 else record["text"]
        if index == 2:
            record["answer"] = "\\frac{1}{"  # undecided, so that its id is in a note

    rewrite(path, rename)
    result = run(tmp_path, "--seeds", 96)
    assert result.exit_code == 0, result.output
    folder = report_folder(tmp_path)
    names = [row["question_id"] for row in table(folder / "response_scores.csv")]
    assert "'=1+1" in names
    assert not any(name.startswith(("=", "+", "-", "@")) for name in names)
    scores = [row["tu_sum"] for row in table(folder / "response_scores.csv")]
    assert all(float(value) <= 0 for value in scores)
    text = result.output + (folder / "evaluation_report.txt").read_text()
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert r"\x1b[2J\u202e2" in text
