"""What eval_detect_multi_seed.py says of results that are missing, broken, undecided or not comparable."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from bayesian_transformer.files import read_jsonl, write_json
from tests.helpers.detection_runs import report_folder, rewrite, run, table
from tests.helpers.eval_results import write_greedy


def test_a_missing_seed_is_said_in_every_place_and_in_the_exit_status(tmp_path: Path) -> None:
    write_greedy(tmp_path, 5, problems=30)
    result = run(tmp_path, "--seeds_range", 4, 5)
    assert result.exit_code == 1
    assert "seed 4: no results in" in result.stderr
    folder = report_folder(tmp_path)
    assert json.loads((folder / "metadata.json").read_text())["missing_seeds"] == [4]
    for name in ("evaluation_report.txt", "report.html"):
        assert "seed 4: no results in" in (folder / name).read_text()
    lines = {line["metric"]: line for line in table(folder / "summary_statistics.csv")}
    assert lines["auc_tu"]["std"] == ""  # one seed has no deviation


def test_one_label_is_nan_with_its_reason(tmp_path: Path) -> None:
    write_greedy(tmp_path, 1, problems=25, chance=0.0)
    result = run(tmp_path, "--seeds", 1)
    assert result.exit_code == 0, result.output
    assert "all 25 answers are wrong: AUROC, AUPRC and PRR need both labels and are NaN" in result.stderr
    (row,) = table(report_folder(tmp_path) / "detailed_results.csv")
    assert (row["auc_tu"], row["auprc_tu"], row["top50_tu"]) == ("", "", "0.0")
    assert "NaN" in result.stdout


def test_missing_values_and_constant_scores_are_named_and_the_rest_is_evaluated(tmp_path: Path) -> None:
    path = write_greedy(tmp_path, 1, problems=40)

    def change(index: int, record: dict[str, Any]) -> None:
        record["epistemic"] = [0.0] * len(record["epistemic"])
        if index < 3:
            record["self_certainty"][0] = None

    rewrite(path, change)
    result = run(tmp_path, "--seeds", 1)
    assert result.exit_code == 0, result.output
    names = "self_certainty_sum, self_certainty_mean"
    left_out = f"no finite value of {names} for 3 of 40 responses, which these scores leave out: sums_0, sums_1"
    assert left_out in result.stderr
    assert "all responses have the same eu_sum, eu_mean, eu_tail, so it ranks nothing (AUROC 0.5)" in result.stderr
    folder = report_folder(tmp_path)
    metadata = json.loads((folder / "metadata.json").read_text())
    assert metadata["runs"][0]["missing_values"]["self_certainty_mean"] == ["sums_0", "sums_1", "sums_2"]
    (row,) = table(folder / "detailed_results.csv")
    assert float(row["auc_eu"]) == float(row["auc_eu_sum"]) == float(row["auc_eu_mean"]) == 0.5
    records = read_jsonl(path)[3:]
    right = [f"boxed{{{record['answer']}}}" in record["text"] for record in records]
    assert float(row["auc_self_certainty_mean"]) == pytest.approx(
        roc_auc_score(right, [np.mean(r["self_certainty"]) for r in records])
    )


def test_steps_and_answers_that_are_not_known_are_said(tmp_path: Path) -> None:
    """Of 30 records 25 say where the tokens stand; 3 have no answer in the text, and 4 a value that is not finite."""
    path = write_greedy(tmp_path, 1, problems=30)

    def change(index: int, record: dict[str, Any]) -> None:
        if 2 <= index < 5:
            record["text"] = "Nobody can tell."
        tokens, end = len(record["token_ids"]), len(record["text"])
        starts = [position * end // tokens for position in range(tokens + 1)]
        record["token_offsets"] = [[*pair] for pair in pairwise(starts)] if index < 25 else None
        if 10 <= index < 14:
            record["logprob"][0] = None

    rewrite(path, change)
    stderr = run(tmp_path, "--seeds", 1).stderr
    assert "5 of 30 responses have no scores of steps: their records do not say where the tokens stand" in stderr
    assert (
        "3 of 30 responses have no answer in the text that could be found, so the scores of the answer leave them out"
    ) in stderr


def test_undecided_answers_are_counted_and_count_as_wrong(tmp_path: Path) -> None:
    path = write_greedy(tmp_path, 1, problems=30)
    answers = ["x" * 3000, "9^{9^{9^{9^9}}}"]

    def change(index: int, record: dict[str, Any]) -> None:
        if index < len(answers):
            record["text"] = rf"\boxed{{{answers[index]}}}"

    rewrite(path, change)
    result = run(tmp_path, "--seeds", 1)
    assert result.exit_code == 0, result.output
    (metadata,) = json.loads((report_folder(tmp_path) / "metadata.json").read_text())["runs"]
    assert "sums_0" in metadata["undecided"]
    assert (
        f"{len(metadata['undecided'])} of 30 answers could not be graded (undecided) and count as wrong"
        in result.stderr
    )
    rows = {row["question_id"]: row for row in table(report_folder(tmp_path) / "response_scores.csv")}
    assert rows["sums_0"]["verdict"] == "undecided"
    (line,) = table(report_folder(tmp_path) / "detailed_results.csv")
    assert float(line["correct_samples"]) == sum(row["verdict"] == "right" for row in rows.values())


def test_seeds_with_different_problems_are_said(tmp_path: Path) -> None:
    write_greedy(tmp_path, 1, problems=30)
    write_greedy(tmp_path, 2, problems=28)
    result = run(tmp_path, "--seeds", 1, 2)
    assert "seed 2: lacks 2 of 30 problems: sums_28, sums_29" in result.stderr


def test_a_broken_record_is_named(tmp_path: Path) -> None:
    path = write_greedy(tmp_path, 1, problems=20)
    rewrite(path, lambda i, record: record.update(text=None) if i == 4 else None)
    result = run(tmp_path, "--seeds", 1)
    assert result.exit_code == 1
    assert "response sums_4: 'text' is not a text" in result.stderr


def test_problems_of_the_data_set_without_a_response_are_said(tmp_path: Path) -> None:
    folder = write_greedy(tmp_path, 1, problems=30).parent
    write_json(folder / "settings.json", {"dataset_problems": 33})
    result = run(tmp_path, "--seeds", 1)
    assert "seed 1: only 30 of the 33 problems of the data set have a response" in result.stderr
    write_json(folder / "settings.json", {"dataset_problems": 30})
    assert "of the data set" not in run(tmp_path, "--seeds", 1).stderr


def test_responses_of_other_settings_or_seeds_are_said(tmp_path: Path) -> None:
    write_greedy(tmp_path, 1, problems=30)
    rewrite(write_greedy(tmp_path, 2, problems=30), lambda i, record: record.update(num_samples=3, seed=1))
    result = run(tmp_path, "--seeds", 1, 2)
    assert "not comparable: the responses were made with different num_samples: 5, 3" in result.stderr
    assert "seed 2: its folder holds responses made with seed 1" in result.stderr
    assert json.loads((report_folder(tmp_path) / "metadata.json").read_text())["num_samples"] == [5, 3]


def test_seeds_of_other_prompts_or_weights_are_said(tmp_path: Path) -> None:
    for seed, prompt in ((1, "aa"), (2, "bb")):
        settings = {"seed": seed, "prompt_digest": prompt, "weights_digest": "w", "engine_args": {"dtype": "float32"}}
        write_json(write_greedy(tmp_path, seed, problems=30).with_name("settings.json"), settings)
    result = run(tmp_path, "--seeds", 1, 2)
    assert "not comparable: the responses were made with different prompt_digest: aa, bb" in result.stderr
    assert result.stderr.count("not comparable") == 1


def test_a_handful_of_one_label_is_said(tmp_path: Path) -> None:
    rewrite(write_greedy(tmp_path, 1, problems=30), lambda i, r: r.update(answer="-5") if i > 3 else None)
    assert "answers are right: too few for rankings and intervals to mean much" in run(tmp_path, "--seeds", 1).stderr


def test_the_same_note_of_several_seeds_is_one(tmp_path: Path) -> None:
    for seed in (1, 2):
        write_greedy(tmp_path, seed, problems=25, chance=0.0)
    stderr = run(tmp_path, "--seeds", 1, 2).stderr
    assert "seeds 1, 2: all 25 answers are wrong" in stderr
    assert stderr.count("all 25 answers are wrong") == 1
