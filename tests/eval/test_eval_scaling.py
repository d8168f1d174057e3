"""Votes and eval_scaling_test_multi_gpu.py compared with plain loops over the same subsets."""

import csv
import itertools
import json
import math
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bayesian_transformer.files import append_jsonl, write_json
from bayesian_transformer.scores import SAMPLED_SCORES, Score
from eval.eval_scaling_test_multi_gpu import main, share_text
from eval.utils.responses import NO_ANSWER, Problem
from eval.utils.scaling import sizes
from eval.utils.voting import UNFILTERED, pass_at, problem_accuracy, subsets
from tests.helpers.eval_results import DATASET, MODEL, problem, write_scaling

SCRIPT = Path(__file__).resolve().parents[2] / "eval" / "eval_scaling_test_multi_gpu.py"


def run(root: Path, *args: Any) -> Result:
    common = ["--dataset", DATASET, "--model", MODEL, "--results-dir", str(root), "--workers", "1"]
    return CliRunner().invoke(main, [*common, *map(str, args)])


def summary(root: Path, name: str) -> dict[tuple[str, str, int], dict[str, str]]:
    with (root / "eval" / f"{MODEL}_{DATASET}_{name}_scaling_summary.csv").open(newline="") as file:
        return {(row["method"], row["score"], int(row["n"])): row for row in csv.DictReader(file)}


@st.composite
def problems(draw_: st.DrawFn) -> Problem:
    """Up to 12 responses, some without an answer or a value, with many ties."""
    count = draw_(st.integers(1, 12))
    answers = draw_(st.lists(st.integers(NO_ANSWER, 3), min_size=count, max_size=count))
    seen = {answer: index for index, answer in enumerate(dict.fromkeys(a for a in answers if a != NO_ANSWER))}
    classes = np.array([seen.get(answer, NO_ANSWER) for answer in answers])
    class_right = np.array(draw_(st.lists(st.booleans(), min_size=len(seen), max_size=len(seen))), dtype=bool)
    right = np.array([answer != NO_ANSWER and bool(class_right[answer]) for answer in classes])
    cell = st.one_of(st.integers(-3, 3).map(lambda v: v / 2), st.just(np.nan))
    values = np.array([draw_(st.lists(cell, min_size=count, max_size=count)) for _ in SAMPLED_SCORES], dtype=np.float64)
    return Problem(draw_(st.text(min_size=1, max_size=5)), classes, right, class_right, values, 0, 0)


def winner_accuracy(votes: dict[int, float], class_right: NDArray[np.bool_]) -> float:
    """Accuracy of the answer with most votes, tied ones with equal probability."""
    if not votes:
        return 0.0
    most = max(votes.values())
    tied = [answer for answer, vote in votes.items() if math.isclose(vote, most, rel_tol=1e-9)]
    return sum(bool(class_right[answer]) for answer in tied) / len(tied)


def plain_accuracy(item: Problem, index: list[int], score: Score, p_val: float) -> tuple[float, float, float]:
    """(majority, weighted, best of N) for one subset and score, with dictionaries and loops."""
    number = {i: -math.inf if math.isnan(v) else v for i, v in enumerate(item.values[SAMPLED_SCORES.index(score)])}
    ordered = sorted(index, key=lambda i: -number[i])  # stable: ties in the order of the subset
    kept = ordered[: max(1, math.floor(p_val * len(index) + 1e-9))]
    voters = [i for i in kept if item.answers[i] != NO_ANSWER]
    majority: dict[int, float] = defaultdict(float)
    weighted: dict[int, float] = defaultdict(float)
    largest = max((number[i] for i in voters), default=0)
    for i in voters:
        majority[item.answers[i]] += 1
        weighted[item.answers[i]] += math.exp(number[i] - largest) if largest > -math.inf else 1
    best = [i for i in index if number[i] == max(number[j] for j in index)]
    return (
        winner_accuracy(majority, item.class_right),
        winner_accuracy(weighted, item.class_right),
        sum(bool(item.right[i]) for i in best) / len(best),
    )


@settings(max_examples=150, deadline=None)
@given(problems(), st.integers(1, 14), st.sampled_from([0.05, 0.1, 0.5, 0.9, 1.0]))
def test_votes_equal_plain_loops(item: Problem, size: int, p_val: float) -> None:
    result = problem_accuracy(item, 96, size, 3, p_val)
    stored = len(item.answers)
    drawn = subsets(item.question_id, 96, stored, min(size, stored), 3)
    for repeat, index in enumerate(drawn.tolist()):
        for score in SAMPLED_SCORES:
            expected = plain_accuracy(item, index, score, p_val)
            for method, value in zip(("majority", "weighted", "best_of_n"), expected, strict=True):
                assert result[method, score.name][repeat] == pytest.approx(value), (method, score.name)
                assert value <= result["pass", UNFILTERED][repeat] + 1e-12
        assert result["pass", UNFILTERED][repeat] == float(any(item.right[i] for i in index))
        assert result["single", UNFILTERED][repeat] == pytest.approx(np.mean(item.right[index]))


def test_weights_stay_defined_for_scores_of_any_size() -> None:
    values = np.tile(np.array([-4000.0, -1.0, -4001.0]), (len(SAMPLED_SCORES), 1))
    item = Problem(
        "q", np.array([0, NO_ANSWER, 1]), np.array([True, False, False]), np.array([True, False]), values, 0, 0
    )
    assert problem_accuracy(item, 0, 3, 1, 1.0)["weighted", "ll_sum"][0] == 1.0


@given(st.integers(1, 8), st.data())
def test_pass_at_equals_counting_all_subsets(stored: int, data: st.DataObject) -> None:
    right = data.draw(st.integers(0, stored))
    size = data.draw(st.integers(1, stored))
    every = list(itertools.combinations(range(stored), size))
    expected = sum(min(subset) < right for subset in every) / len(every)
    assert pass_at(stored, right, size) == pytest.approx(expected)


def test_subsets_depend_on_their_arguments_alone_and_are_without_replacement() -> None:
    first = subsets("math_7", 96, 40, 16, 5)
    assert (first == subsets("math_7", 96, 40, 16, 5)).all()
    assert (first[:2] == subsets("math_7", 96, 40, 16, 2)).all()
    assert all(len(set(row)) == 16 for row in first.tolist())
    for other in (subsets("math_8", 96, 40, 16, 5), subsets("math_7", 89, 40, 16, 5)):
        assert (first != other).any()
    # a fixed value: what another machine or a later version must choose too
    assert subsets("math_7", 96, 8, 4, 1).tolist() == PINNED


PINNED = [[7, 0, 1, 2]]


def test_subsets_are_uniform() -> None:
    counts = np.bincount(np.concatenate([subsets(f"q{i}", 1, 8, 2, 10) for i in range(400)]).ravel(), minlength=8)
    assert np.abs(counts - 1000).max() < 5 * math.sqrt(1000)


def test_sizes_are_powers_of_two_and_the_full_set() -> None:
    assert sizes(512) == [16, 32, 64, 128, 256, 512]
    assert sizes(100) == [16, 32, 64, 100]
    assert sizes(17) == [16, 17]
    assert sizes(16) == [1, 2, 4, 8, 16]
    assert sizes(3) == [1, 2, 3]
    assert sizes(1) == [1]


def test_summary_equals_loops_over_the_files(tmp_path: Path) -> None:
    folder = write_scaling(tmp_path, 96, problems=12, n=32)
    result = run(tmp_path, "--n-particles", 32, "--p_val", 0.5)
    assert result.exit_code == 0, result.output
    rows = summary(tmp_path, "seed96_p0.5_all")
    assert {key[2] for key in rows} == {16, 32}
    names = {"nau": ("uncertainties", -1), "ll": ("logprobs", 1), "dc": ("scores", 1)}
    for size, repeats in ((16, 10), (32, 1)):
        accuracies = defaultdict(list)
        for path in sorted(folder.glob("*.json")):
            record = json.loads(path.read_text())
            texts = [output["text"].split("{")[1].split("}")[0] for output in record["outputs"]]
            for index in subsets(path.stem, 96, 32, size, repeats).tolist():
                for score, (section, sign) in names.items():
                    value = [sign * output[section][score] for output in record["outputs"]]
                    kept = sorted(index, key=lambda i: -value[i])[: size // 2]
                    majority: dict[str, int] = defaultdict(int)
                    weighted: dict[str, float] = defaultdict(float)
                    for i in kept:
                        majority[texts[i]] += 1
                        weighted[texts[i]] += math.exp(value[i] - max(value[j] for j in kept))
                    tied = [text for text, votes in majority.items() if votes == max(majority.values())]
                    accuracies["majority", score].append(tied.count(record["answer"]) / len(tied))
                    accuracies["weighted", score].append(max(weighted, key=weighted.__getitem__) == record["answer"])
                    accuracies["best_of_n", score].append(texts[max(index, key=value.__getitem__)] == record["answer"])
                accuracies["pass", "none"].append(any(texts[i] == record["answer"] for i in index))
        for (method, score), values in accuracies.items():
            row = rows[method, score, size]
            table = np.array(values, dtype=float).reshape(12, repeats)
            assert float(row["accuracy_mean"]) == pytest.approx(table.mean()), (method, score)
            assert int(row["repeats"]) == repeats
            if repeats > 1:
                assert float(row["accuracy_std"]) == pytest.approx(table.mean(axis=0).std(ddof=1))
            else:
                assert row["accuracy_std"] == ""


def published(root: Path, problems_: int, n: int) -> Path:
    """Files as the published code writes them: no answer, only the six uncertainties and two log-likelihoods."""
    folder = write_scaling(root, 96, problems_, n)
    for path in folder.glob("*.json"):
        record = json.loads(path.read_text())
        keep = ("text", "uncertainties", "logprobs")
        outputs = [{key: output[key] for key in keep} for output in record["outputs"]]
        path.write_text(json.dumps({"prompt": record["prompt"], "outputs": outputs}))
    return folder


def test_published_files_are_read_with_the_answers_of_the_data_set(tmp_path: Path) -> None:
    published(tmp_path, 5, 16)
    dataset = tmp_path / "sums.jsonl"
    for index in range(6):
        append_jsonl(dataset, problem(index))
    result = run(tmp_path, "--n-particles", 16, "--dataset-path", dataset)
    assert result.exit_code == 0, result.output
    absent = "self_certainty_mean, confidence_mean, entropy_mean, bir_mean, eu_tail, ll_tail, length"
    assert f"not stored in the results, so not evaluated: {absent}" in result.stderr
    assert "1 of 6 problems have no usable results: sums_5" in result.stderr
    rows = summary(tmp_path, "seed96_p0.9_all")
    assert {key[1] for key in rows} == {"none", "nau", "neu", "ntu", "au", "eu", "tu", "nll", "ll"}
    metadata = json.loads((tmp_path / "eval" / f"{MODEL}_{DATASET}_seed96_p0.9_all_scaling_metadata.json").read_text())
    assert metadata["without_results"] == ["sums_5"]


def test_published_files_without_the_data_set_say_what_to_give(tmp_path: Path) -> None:
    published(tmp_path, 2, 4)
    result = run(tmp_path, "--n-particles", 4)
    assert result.exit_code == 1
    assert "no gold answer in the file or for its name in the data set; give --dataset-path" in result.stderr


def test_broken_files_are_named_and_make_the_exit_status_non_zero(tmp_path: Path) -> None:
    folder = write_scaling(tmp_path, 96, 5, 4)
    (folder / "sums_0.json").write_text('{"prompt": "torn')
    (folder / "sums_1.json").write_text('{"outputs": []}')
    record = json.loads((folder / "sums_2.json").read_text())
    record["outputs"][0]["uncertainties"]["nau"] = "high"
    write_json(folder / "sums_2.json", record)
    result = run(tmp_path, "--n-particles", 4)
    assert result.exit_code == 1
    for name, reason in (("sums_0", "not valid JSON"), ("sums_1", "'outputs' is not"), ("sums_2", "not a number")):
        assert any(name in line and reason in line for line in result.stderr.splitlines())
    assert "3 of 5 files could not be used" in result.stderr
    assert summary(tmp_path, "seed96_p0.9_all")["majority", "none", 4]["problems"] == "2"
    metadata = json.loads((tmp_path / "eval" / f"{MODEL}_{DATASET}_seed96_p0.9_all_scaling_metadata.json").read_text())
    assert len(metadata["failures"]) == 3


def test_missing_values_short_problems_and_silent_responses_are_said(tmp_path: Path) -> None:
    folder = write_scaling(tmp_path, 96, 4, 8)
    record = json.loads((folder / "sums_0.json").read_text())
    record["outputs"] = record["outputs"][:6]
    record["outputs"][0]["uncertainties"]["nau"] = None
    record["outputs"][1]["text"] = ""
    write_json(folder / "sums_0.json", record)
    result = run(tmp_path, "--n-particles", 8)
    assert result.exit_code == 0, result.output
    assert "1 of 30 responses have no value of au_mean and rank last by it" in result.stderr
    assert "1 of 30 responses give no answer" in result.stderr
    assert "1 problems have fewer than 8 responses: sums_0" in result.stderr
    assert summary(tmp_path, "seed96_p0.9_all")["majority", "none", 8]["short_problems"] == "1"


def test_undecided_answers_are_counted(tmp_path: Path) -> None:
    folder = write_scaling(tmp_path, 96, 3, 4)
    record = json.loads((folder / "sums_0.json").read_text())
    record["outputs"][0]["text"] = r"\boxed{" + "x" * 3000 + "}"
    write_json(folder / "sums_0.json", record)
    result = run(tmp_path, "--n-particles", 4)
    assert "1 of 12 responses could not be graded (undecided) and count as wrong, in problems sums_0" in result.stderr


def test_an_empty_folder_says_what_is_there(tmp_path: Path) -> None:
    write_scaling(tmp_path, 96, 1, 4)
    result = run(tmp_path, "--n-particles", 8)
    assert result.exit_code == 1
    assert "no results here" in result.stderr
    assert "found: p4" in result.stderr


def test_mode_limits_the_methods_and_names_the_file(tmp_path: Path) -> None:
    write_scaling(tmp_path, 96, 3, 4)
    assert run(tmp_path, "--n-particles", 4, "--mode", "pass", "--p_val", 0.1).exit_code == 0
    assert {key[0] for key in summary(tmp_path, "seed96_p0.1_pass")} == {"pass", "pass_expected"}


def test_shares_of_one_decimal_have_the_published_name_and_others_their_own() -> None:
    assert [share_text(p) for p in (0.9, 0.1, 1.0, 0.05, 0.95)] == ["0.9", "0.1", "1.0", "0.05", "0.95"]


def test_two_processes_with_other_hash_seeds_write_the_same_files(tmp_path: Path) -> None:
    write_scaling(tmp_path, 96, 4, 32)
    contents = []
    for hash_seed in ("1", "2"):
        output = tmp_path / hash_seed
        command = [sys.executable, str(SCRIPT), "--dataset", DATASET, "--model", MODEL, "--n-particles", "32"]
        subprocess.run(
            [*command, "--results-dir", str(tmp_path), "--output-dir", str(output)],
            env=os.environ | {"PYTHONHASHSEED": hash_seed}, check=True, capture_output=True,
        )  # fmt: skip
        contents.append({path.name: path.read_bytes() for path in output.iterdir()})
    assert contents[0] == contents[1]
    assert len(contents[0]) == 3
