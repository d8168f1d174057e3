"""`tokur calibrate` on stored real answers: 76 problems, greedy, with two seeds of the noise."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from sklearn.metrics import roc_auc_score

from bayesian_transformer import calibrate
from bayesian_transformer.calibration import DECLARED, Calibrator, cross_fit
from bayesian_transformer.grading import Grader
from bayesian_transformer.problems import question_id
from tests.helpers.stored_generations import DATASET, MODEL, ROOT, answer, greedy_records

FOLDERS = {seed: ROOT / f"{MODEL}_results_vllm_pg" / DATASET / f"seed{seed}" / "greedy_unc" for seed in (96, 89)}
PART = "batch_results_0_76.jsonl"


def tokur_calibrate(*arguments: object) -> Result:
    return CliRunner().invoke(calibrate.main, [*map(str, arguments)])


def failure(*arguments: object) -> str:
    """What a call that must fail says, in one line."""
    result = tokur_calibrate(*arguments)
    assert result.exit_code == 1, result.output
    (line,) = result.output.splitlines()
    return line.removeprefix("Error: ")


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    path = tmp_path_factory.mktemp("learned") / "calibrator.json"
    result = tokur_calibrate(*FOLDERS.values(), "--output", path, "--alpha", 0.3)
    assert result.exit_code == 0, result.output
    return path, result.output


def changed(folder: Path, **values: Any) -> Path:
    """A folder with the results of one seed, in which every record has other values."""
    return rewritten(folder, [row | values for row in lines_of(FOLDERS[96] / PART)])


def rewritten(folder: Path, rows: list[dict[str, Any]]) -> Path:
    """A folder with these records."""
    folder.mkdir(exist_ok=True)
    (folder / PART).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_what_is_learned_is_what_is_said(learned: tuple[Path, str]) -> None:
    path, said = learned
    records = [*greedy_records(96), *greedy_records(89)]
    right = [answer(record["text"]) == record["answer"] for record in records]  # read without our grader
    names = [record["unique_id"].replace("/", "_") for record in records]
    assert f"152 answers to 76 problems: {sum(right)} right, {152 - sum(right)} wrong\n" in said
    assert f"{path}: logistic on {', '.join(DECLARED)}\n" in said
    with Grader(workers=1) as grader:
        graded = calibrate.graded_results([*FOLDERS.values()], grader)
    assert sorted(zip(graded.problems, graded.right.tolist(), strict=True)) == sorted(zip(names, right, strict=True))
    crossed = cross_fit(graded.table, graded.right, graded.problems)
    auroc = 100 * roc_auc_score(graded.right, crossed.p_correct)
    assert f"AUROC {auroc:.1f}, Brier score {crossed.brier:.4f}, of the base rate {crossed.base_brier:.4f}" in said
    calibrator = Calibrator.load(path)
    assert calibrator.source == {"model": MODEL, "num_samples": 5, "bayes_sigma": 0.1}
    # Both seeds have the same answers: 47 problems with a right one and 29 with a wrong one.
    assert calibrator.notes == (
        "only 29 problems have a wrong answer: with fewer than 50 right and 50 wrong ones P(correct) may be no better "
        "than the base rate",
    )
    assert f"note: {calibrator.notes[0]}\n" in said
    assert calibrator.acceptance is not None
    assert f"threshold: {calibrator.acceptance}\n" in said
    assert calibrator.acceptance.responses == 76  # one answer of each problem
    inside = crossed.p_correct[:76] >= (calibrator.acceptance.threshold or 0)
    assert calibrator.acceptance.accepted == inside.sum() > 20
    assert calibrator.acceptance.wrong == (inside & ~graded.right[:76]).sum()


def test_new_results_get_their_probability(learned: tuple[Path, str], tmp_path: Path) -> None:
    path, _ = learned
    calibrator = Calibrator.load(path)
    result = tokur_calibrate("--apply", path, FOLDERS[89] / PART, "--output", tmp_path / "p.jsonl")
    assert result.exit_code == 0, result.output
    rows, before = lines_of(tmp_path / "p.jsonl"), lines_of(FOLDERS[89] / PART)
    assert [{key: row[key] for key in old} for row, old in zip(rows, before, strict=True)] == before
    assert all(row.keys() - old.keys() == {"p_correct", "accepted"} for row, old in zip(rows, before, strict=True))
    for row in rows:
        table = {
            "ll_mean": np.mean(row["logprob"]),
            "ll_tail": np.mean(row["logprob"][-8:]),
            "self_certainty_mean": np.mean(row["self_certainty"]),
            "confidence_mean": np.mean(row["confidence"]),
            "length": -len(row["token_ids"]),
            "eu_mean": -np.mean(row["epistemic"]),
            "bir_mean": -np.mean(row["implicit_reward"]),
        }
        (p,) = calibrator.predict({name: [value] for name, value in table.items()})
        assert row["p_correct"] == pytest.approx(p, rel=1e-9)
        assert calibrator.acceptance is not None
        assert row["accepted"] == (row["p_correct"] >= (calibrator.acceptance.threshold or 2))
    accepted = sum(row["accepted"] for row in rows)
    assert result.output == f"{tmp_path / 'p.jsonl'}: 76 answers with p_correct, {accepted} accepted\n"
    assert 20 < accepted < 70


def test_a_record_without_a_value_says_why(learned: tuple[Path, str], tmp_path: Path) -> None:
    row = lines_of(FOLDERS[96] / PART)[0]
    row["logprob"][0] = None
    (tmp_path / PART).write_text(json.dumps(row) + "\n")
    assert tokur_calibrate("--apply", learned[0], tmp_path / PART, "--output", tmp_path / "p.jsonl").exit_code == 0
    (row,) = lines_of(tmp_path / "p.jsonl")
    found = [row[key] for key in ("p_correct", "p_correct_reason", "accepted")]
    assert found == [None, "no value of ll_mean, ll_tail", False]


def test_a_threshold_that_was_not_reached_accepts_nothing(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    result = tokur_calibrate(FOLDERS[96], "--output", path, "--alpha", 0.01)
    assert result.exit_code == 0, result.output
    assert "threshold: not reachable with these data: the strictest threshold accepts 0 of 76 answers" in result.output
    result = tokur_calibrate("--apply", path, FOLDERS[96] / PART, "--output", tmp_path / "p.jsonl")
    assert result.output.endswith("76 answers with p_correct, 0 accepted\n")
    assert {row["accepted"] for row in lines_of(tmp_path / "p.jsonl")} == {False}


@pytest.mark.parametrize("method", ["isotonic", "temperature"])
def test_other_methods_take_one_score(tmp_path: Path, method: str) -> None:
    path = tmp_path / "c.json"
    says = failure(FOLDERS[96], "--output", path, "--method", method)
    assert says.startswith(f"{method} calibrates one score; got ll_mean, ll_tail")
    result = tokur_calibrate(FOLDERS[96], "--output", path, "--method", method, "--feature", "ll_mean")
    assert result.exit_code == 0, result.output
    assert Calibrator.load(path).method == method


def test_what_a_calibrator_does_not_fit_is_one_line(learned: tuple[Path, str], tmp_path: Path) -> None:
    other = changed(tmp_path / "other", model="TFB-other", num_samples=10)
    arguments = ("--apply", learned[0], other / PART, "--output", tmp_path / "p.jsonl")
    assert failure(*arguments) == (
        f"{other / PART}: the calibrator was fitted on model '{MODEL}', not 'TFB-other'; num_samples 5, not 10: fit "
        "another one, or add --anyway"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["other"]  # and no half a file
    assert tokur_calibrate(*arguments, "--anyway").exit_code == 0
    assert len(lines_of(tmp_path / "p.jsonl")) == 76


def test_a_data_set_is_told_from_the_settings_of_a_folder(tmp_path: Path) -> None:
    folder = changed(tmp_path / "results")
    (folder / "settings.json").write_text(json.dumps({"dataset": "arithmetic", "engine_args": {}}))
    assert tokur_calibrate(folder, "--output", tmp_path / "c.json").exit_code == 0
    assert Calibrator.load(tmp_path / "c.json").source["dataset"] == "arithmetic"
    (folder / "settings.json").write_text(json.dumps({"dataset": "math500"}))
    says = failure("--apply", tmp_path / "c.json", folder / PART, "--output", tmp_path / "p.jsonl")
    assert "fitted on dataset 'arithmetic', not 'math500'" in says


def test_folders_made_in_different_ways_are_refused(tmp_path: Path) -> None:
    other = changed(tmp_path / "other", bayes_sigma=0.2)
    assert failure(FOLDERS[96], other, "--output", tmp_path / "c.json") == (
        f"{other}: made with bayes_sigma 0.2, {FOLDERS[96]} with 0.1; calibrate one model, data set and setting at a "
        "time"
    )


def test_records_of_one_folder_made_in_different_ways_are_refused(tmp_path: Path) -> None:
    rows = lines_of(FOLDERS[96] / PART)
    rows[40]["num_samples"] = 9
    folder = rewritten(tmp_path / "mixed", rows)
    problem, first = question_id(rows[40]), min(map(question_id, rows))
    assert failure(folder, "--output", tmp_path / "c.json") == (
        f"{folder}: response {problem}: made with num_samples 9, {first} with 5; calibrate one model and setting at a "
        "time"
    )


def test_a_folder_given_twice_is_refused(tmp_path: Path) -> None:
    again = FOLDERS[96] / ".." / FOLDERS[96].name
    assert failure(FOLDERS[96], again, "--output", tmp_path / "c.json") == (
        f"{FOLDERS[96]}, {again}: a folder is given twice; give each once"
    )


def test_the_folder_above_the_results_is_told_from_one_without_any(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text("{}")
    assert failure(tmp_path, "--output", tmp_path / "out" / "c.json") == (
        f"{tmp_path}: holds settings.json and no responses; give the folder of results in it"
    )


def test_a_score_without_any_value_is_named(tmp_path: Path) -> None:
    rows = [row | {"epistemic": [None] * len(row["token_ids"])} for row in lines_of(FOLDERS[96] / PART)]
    says = failure(rewritten(tmp_path / "results", rows), "--output", tmp_path / "c.json")
    assert says == "no response has a value of eu_mean; calibrate with other scores"


def test_values_too_large_to_compute_with_are_named(tmp_path: Path) -> None:
    rows = lines_of(FOLDERS[96] / PART)
    for row in rows:
        row["logprob"] = [1e300 * value for value in row["logprob"]]
    says = failure(rewritten(tmp_path / "huge", rows), "--output", tmp_path / "c.json")
    assert re.fullmatch(r"ll_mean has values as large as \d.*e\+\d+, too large to compute with", says)


@pytest.mark.parametrize("option", ["--alpha", "--delta"])
@pytest.mark.parametrize("value", [0, 1, "nan", "inf"])
def test_shares_are_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str, value: object
) -> None:
    monkeypatch.setattr(calibrate, "Grader", None)
    result = tokur_calibrate(FOLDERS[96], "--output", tmp_path / "c.json", option, value)
    assert result.exit_code == 2
    assert f"Invalid value for '{option}'" in result.output


def test_a_bad_greedy_record_is_named_with_its_file(learned: tuple[Path, str], tmp_path: Path) -> None:
    folder = changed(tmp_path / "results", token_offsets="x")
    says = failure("--apply", learned[0], folder / PART, "--output", tmp_path / "p.jsonl")
    assert says.startswith(f"{folder / PART}: response arithmetic_")


def test_lines_of_tokur_score_get_a_probability(learned: tuple[Path, str], tmp_path: Path) -> None:
    """They name the folder of the model, and have a response instead of text and offsets."""
    rows = lines_of(FOLDERS[96] / PART)
    for row in rows:
        del row["text"], row["answer"]
        row |= {"response": "5", "model": f"/models/{MODEL}"}
    path = rewritten(tmp_path / "scored", rows) / PART
    result = tokur_calibrate("--apply", learned[0], path, "--output", tmp_path / "p.jsonl")
    assert result.exit_code == 0, result.output
    assert all(0 < row["p_correct"] < 1 for row in lines_of(tmp_path / "p.jsonl"))


def test_a_calibrator_of_another_version_is_noted(learned: tuple[Path, str], tmp_path: Path) -> None:
    stored = json.loads(learned[0].read_text())
    stored["versions"]["bayesian_transformer"] = "0.0.1"
    (tmp_path / "c.json").write_text(json.dumps(stored))
    for path, notes in ((tmp_path / "c.json", 1), (learned[0], 0)):
        result = tokur_calibrate("--apply", path, FOLDERS[96] / PART, "--output", tmp_path / "p.jsonl")
        assert result.exit_code == 0, result.output
        assert result.stderr.count("fitted with version 0.0.1, this is ") == result.stderr.count("\n") == notes


def test_a_useless_score_is_said_to_be_one(tmp_path: Path) -> None:
    """Log-likelihoods that come from the number of the line."""
    rows = lines_of(FOLDERS[96] / PART)
    for index, row in enumerate(rows):
        row["logprob"] = [-1 - (index * 7919 % 76) / 76] * len(row["token_ids"])
    folder = rewritten(tmp_path / "results", rows)
    result = tokur_calibrate(folder, "--output", tmp_path / "c.json", "--feature", "ll_mean")
    assert result.exit_code == 0, result.output
    assert "note: cross-fitted, it is no better than the base rate: do not decide by it" in result.output


def test_wrong_inputs_are_one_line(learned: tuple[Path, str], tmp_path: Path) -> None:
    part, output = FOLDERS[96] / PART, tmp_path / "c.json"
    assert failure(part, "--output", output).startswith(f"{part}: not a folder; give the folder of the results")
    assert failure(tmp_path, "--output", output).startswith(f"{tmp_path}: no batch_results_")
    assert failure("--apply", learned[0], FOLDERS[96], "--output", output).startswith("--apply takes one results file")
    assert failure("--apply", part, part, "--output", output).startswith(f"{part}: not valid JSON")
    assert failure(FOLDERS[96], "--output", output, "--feature", "nll").startswith("no score is called 'nll'")
    (tmp_path / "empty.jsonl").touch()
    says = failure("--apply", learned[0], tmp_path / "empty.jsonl", "--output", output)
    assert says == f"{tmp_path / 'empty.jsonl'}: holds no finished response"
    textless = changed(tmp_path / "textless", text=None)
    assert re.search(r"response arithmetic_\d+: 'text' is not a text", failure(textless, "--output", output))
    result = tokur_calibrate("--apply", learned[0], part, "--output", learned[0])
    assert result.exit_code == 2
    assert "--output is one of the inputs" in result.output
    assert not output.exists()


def test_the_help_tells_a_newcomer_what_to_type() -> None:
    said = tokur_calibrate("--help").output
    assert "tokur calibrate results/MODEL_results_vllm_pg/DATASET/seed96/greedy_unc --output calibrator.json" in said
    assert "tokur calibrate --apply calibrator.json NEW/batch_results_0_100.jsonl --output with_p.jsonl" in said


@pytest.mark.parametrize("alpha", [0.2, 0.1])
def test_the_page_shows_what_it_prints(tmp_path: Path, alpha: float) -> None:
    page = (ROOT.parents[2] / "docs" / "calibration.md").read_text(encoding="utf-8")
    said = tokur_calibrate(FOLDERS[96], "--output", tmp_path / "c.json", "--alpha", alpha).output.splitlines()
    assert [line for line in said[:-1] if line not in page.splitlines()] == []
