"""AUROC within the levels of a data set, from the stored records to the tables, and the notes where there is none."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from eval.utils.levels import NO_LEVEL, level_codes, level_name
from tests.helpers.detection_runs import report_folder, rewrite, run, table
from tests.helpers.eval_results import write_greedy


@pytest.mark.parametrize(
    ("stored", "name"),
    [
        ("Level 5", "Level 5"), (5, "5"), (5.0, "5"), ("5", "5"), (0.5, "0.5"), ("", ""), (1e300, str(int(1e300))),
        (float("inf"), "inf"), (None, None), (True, None), (["a"], None), ({}, None),
    ],
)  # fmt: skip
def test_a_level_is_a_text_or_a_number(stored: object, name: str | None) -> None:
    assert level_name(stored) == name


def test_codes_tell_levels_apart_and_need_two() -> None:
    assert level_codes(["b", "a", None, "b"]).tolist() == [1, 0, NO_LEVEL, 1]
    for levels in ([], [None, None], ["a", "a"], ["a", None]):
        assert level_codes(levels).tolist() == [NO_LEVEL] * len(levels)


def test_pairs_of_one_level_are_compared(tmp_path: Path) -> None:
    def change(index: int, record: dict[str, Any]) -> None:
        record["level"] = ("one step", 2, 2.0, None)[index % 4]

    rewrite(write_greedy(tmp_path, 1), change)
    result = run(tmp_path, "--seeds", 1)
    assert result.exit_code == 0, result.output
    assert (
        "note: seed 1: 30 of 120 have no level; within level leaves them out: sums_103, sums_107, sums_11, "
        in result.stderr
    )
    (row,) = table(report_folder(tmp_path) / "detailed_results.csv")
    lines = table(report_folder(tmp_path) / "response_scores.csv")
    for name in ("length", "tu_sum", "eu_tail"):
        areas, pairs = [], []
        for level in ((0,), (1, 2)):
            chosen = [line for line in lines if int(line["question_id"].removeprefix("sums_")) % 4 in level]
            right = [line["verdict"] == "right" for line in chosen]
            areas.append(roc_auc_score(right, [float(line[name]) for line in chosen]))
            pairs.append(sum(right) * (len(right) - sum(right)))
        assert float(row[f"auc_level_{name}"]) == pytest.approx(np.average(areas, weights=pairs))
    assert "AUROC within<br>level" in (report_folder(tmp_path) / "report.html").read_text()


def test_a_score_that_only_tells_levels_apart_ranks_nothing_within_them(tmp_path: Path) -> None:
    def change(index: int, record: dict[str, Any]) -> None:
        record["level"] = "easy" if index % 2 else "hard"
        record["total"] = [1.0 if index % 2 else 2.0] * len(record["total"])
        record["answer"] = record["answer"] if index % 2 else "-1"

    rewrite(write_greedy(tmp_path, 1), change)
    assert run(tmp_path, "--seeds", 1).exit_code == 0
    (row,) = table(report_folder(tmp_path) / "detailed_results.csv")
    assert float(row["auc_tu_mean"]) > 0.8
    assert float(row["auc_level_tu_mean"]) == 0.5


@pytest.mark.parametrize(
    ("level", "note"),
    [
        (None, "no response has a level of its data set: AUROC within level is NaN"),
        ("sums", "all responses that have a level have the same one, sums: AUROC within level is NaN"),
    ],
)
def test_without_two_levels_it_is_nan_and_said(level: str | None, note: str, tmp_path: Path) -> None:
    rewrite(write_greedy(tmp_path, 1, problems=40), lambda _, record: record.update(level=level))
    result = run(tmp_path, "--seeds", 1)
    assert result.exit_code == 0, result.output
    assert note in result.stderr
    (row,) = table(report_folder(tmp_path) / "detailed_results.csv")
    assert {value for column, value in row.items() if column.startswith("auc_level_")} == {""}
    assert row["auc_strata_tu_sum"] != ""
