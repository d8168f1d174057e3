"""eval_detect_multi_seed.py from results on disk to report, beside an independent computation from the same files."""

import csv
import html.parser
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from sklearn.metrics import auc, precision_recall_curve, roc_auc_score

from bayesian_transformer.files import append_jsonl, read_jsonl, write_json
from eval.eval_detect_multi_seed import main
from eval.utils.options import repeat_option
from tests.eval_results import DATASET, MODEL, write_greedy

SCRIPT = Path(__file__).resolve().parents[1] / "eval" / "eval_detect_multi_seed.py"
FILES = {
    "metadata.json", "detailed_results.csv", "summary_statistics.csv", "response_scores.csv", "evaluation_report.txt",
    "report.html", "auroc.png", "roc.png", "risk_coverage.png", "score_length.png",
}  # fmt: skip

Evaluated = tuple[dict[int, Path], Path, Result]  # files by seed, report folder, output


def run(root: Path, *args: Any) -> Result:
    common = ["--dataset", DATASET, "--model", MODEL, "--results-dir", str(root), "--bootstrap", "50", "--workers", "1"]
    return CliRunner().invoke(main, [*common, *map(str, args)])


def report_folder(root: Path) -> Path:
    (folder,) = (root / "eval").iterdir()
    return folder


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def rewrite(path: Path, change: Callable[[int, dict[str, Any]], object]) -> None:
    """Apply `change(index, record)` to every stored record."""
    records = read_jsonl(path)
    path.unlink()
    for index, record in enumerate(records):
        change(index, record)
        append_jsonl(path, record)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    root = tmp_path_factory.mktemp("results")
    files = {seed: write_greedy(root, seed) for seed in (96, 89, 64)}
    result = run(root, "--seeds", 96, 89, 64)
    assert result.exit_code == 0, result.output
    return files, report_folder(root), result


def test_the_report_folder_has_every_file_and_a_timestamp(evaluated: Evaluated) -> None:
    _, folder, result = evaluated
    assert {path.name for path in folder.iterdir()} == FILES
    assert re.fullmatch(rf"{MODEL}_{DATASET}_\d{{8}}_\d{{6}}", folder.name)
    assert result.stdout.rstrip().endswith(str(folder / "report.html"))


def test_published_columns_equal_an_independent_computation_with_sklearn(evaluated: Evaluated) -> None:
    files, folder, _ = evaluated
    rows = {int(row["seed"]): row for row in table(folder / "detailed_results.csv")}
    assert sorted(rows) == [64, 89, 96]
    for seed, path in files.items():
        records = [json.loads(line) for line in path.read_text().splitlines()]
        right = np.array([f"boxed{{{record['answer']}}}" in record["text"] for record in records])
        row = {name: float(value) for name, value in rows[seed].items() if value}
        assert (row["total_samples"], row["correct_samples"]) == (len(records), right.sum())
        assert row["overall_accuracy"] == pytest.approx(right.mean())
        scores = {
            "tu": [-sum(record["total"]) for record in records],
            "au": [-sum(record["aleatoric"]) for record in records],
            "eu": [-sum(record["epistemic"]) for record in records],
            "ll": [np.mean(record["logprob"]) for record in records],
            "nbir": [-np.mean(record["implicit_reward"]) for record in records],
            "ce": [np.mean(record["self_certainty"]) for record in records],
            "length": [-len(record["token_ids"]) for record in records],
        }
        for name, score in scores.items():
            precision, recall, _ = precision_recall_curve(right, score)
            assert row[f"auc_{name}"] == pytest.approx(roc_auc_score(right, score))
            assert row[f"auprc_{name}"] == pytest.approx(auc(recall, precision))
            if name != "length":  # no ties
                order = np.argsort(-np.array(score))
                for percent in (10, 25, 50, 75):
                    top = right[order][: len(right) * percent // 100]
                    assert row[f"top{percent}_{name}"] == pytest.approx(top.mean())


def test_summary_is_mean_and_sample_deviation_over_seeds(evaluated: Evaluated) -> None:
    _, folder, _ = evaluated
    rows = table(folder / "detailed_results.csv")
    for line in table(folder / "summary_statistics.csv"):
        values = [float(row[line["metric"]]) for row in rows]
        assert float(line["mean"]) == pytest.approx(np.mean(values))
        assert float(line["std"]) == pytest.approx(np.std(values, ddof=1))
        assert int(line["seeds"]) == 3
    lines = {line["metric"]: line for line in table(folder / "summary_statistics.csv")}
    assert float(lines["auc_tu"]["low"]) < float(lines["auc_tu"]["mean"]) < float(lines["auc_tu"]["high"])


def test_response_scores_are_one_row_per_seed_and_response(evaluated: Evaluated) -> None:
    files, folder, _ = evaluated
    rows = table(folder / "response_scores.csv")
    assert len(rows) == 120 * len(files)
    assert {row["verdict"] for row in rows} == {"right", "wrong"}


class Page(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str | None] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href")]


def test_the_page_is_self_contained(evaluated: Evaluated) -> None:
    _, folder, _ = evaluated
    page = Page()
    page.feed((folder / "report.html").read_text())
    assert len(page.links) == 4
    assert all(link is not None and link.startswith("data:image/png;base64,") for link in page.links)
    assert not {"script", "link"} & set(page.tags)


def test_what_comes_from_the_user_is_escaped(tmp_path: Path) -> None:
    path = write_greedy(tmp_path, 1, problems=20)
    rewrite(
        path,
        lambda i, record: record.update(unique_id=f"<script>alert({i})</script>", total=[None] * len(record["total"])),
    )
    assert run(tmp_path, "--seeds", 1).exit_code == 0
    page = (report_folder(tmp_path) / "report.html").read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;alert(0)" in page


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
    assert (
        "no finite value of ce_sum, ce for 3 of 40 responses, which these scores leave out: sums_0, sums_1"
        in result.stderr
    )
    assert "all responses have the same eu, neu, so it ranks nothing (AUROC 0.5)" in result.stderr
    folder = report_folder(tmp_path)
    metadata = json.loads((folder / "metadata.json").read_text())
    assert metadata["runs"][0]["missing_values"]["ce"] == ["sums_0", "sums_1", "sums_2"]
    (row,) = table(folder / "detailed_results.csv")
    assert float(row["auc_eu"]) == 0.5
    records = read_jsonl(path)[3:]
    right = [f"boxed{{{record['answer']}}}" in record["text"] for record in records]
    assert float(row["auc_ce"]) == pytest.approx(roc_auc_score(right, [np.mean(r["self_certainty"]) for r in records]))


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


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "give either --seeds or --seeds_range"),
        (["--seeds", 1, "--seeds_range", 1, 2], "give either --seeds or --seeds_range"),
        (["--seeds_range", 3, 1], "first seed must not be larger"),
        (["--seeds", 7], "no batch_results_*.jsonl in"),
        (["--seeds", 1, "x"], "'x' is not a valid integer"),
    ],
)
def test_bad_options_are_one_line(tmp_path: Path, args: list[Any], message: str) -> None:
    result = run(tmp_path, *args)
    assert result.exit_code != 0
    assert message in result.stderr
    assert "Traceback" not in result.output


def test_a_broken_record_is_named(tmp_path: Path) -> None:
    path = write_greedy(tmp_path, 1, problems=20)
    rewrite(path, lambda i, record: record.update(text=None) if i == 4 else None)
    result = run(tmp_path, "--seeds", 1)
    assert result.exit_code == 1
    assert "response sums_4: 'text' is not a text" in result.stderr


def test_several_values_of_one_option() -> None:
    args = ["--seeds", "96", "89", "--model", "m", "--seeds", "64"]
    assert repeat_option(args, ["--seeds"]) == [
        "--seeds", "96", "--seeds", "89", "--model", "m", "--seeds", "64",
    ]  # fmt: skip


def test_two_processes_with_other_hash_seeds_write_the_same_files(tmp_path: Path) -> None:
    write_greedy(tmp_path, 1, problems=40)
    contents = []
    for hash_seed in ("1", "2"):
        output = tmp_path / hash_seed
        command = [sys.executable, str(SCRIPT), "--dataset", DATASET, "--model", MODEL, "--seeds", "1"]
        subprocess.run(
            [*command, "--bootstrap", "20", "--results-dir", str(tmp_path), "--output-dir", str(output)],
            env=os.environ | {"PYTHONHASHSEED": hash_seed}, check=True, capture_output=True,
        )  # fmt: skip
        (folder,) = output.iterdir()
        contents.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert contents[0] == contents[1]
    assert set(contents[0]) == FILES


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


def test_a_handful_of_one_label_is_said(tmp_path: Path) -> None:
    rewrite(write_greedy(tmp_path, 1, problems=30), lambda i, r: r.update(answer="-5") if i > 3 else None)
    assert "answers are right: too few for rankings and intervals to mean much" in run(tmp_path, "--seeds", 1).stderr


def test_the_same_note_of_several_seeds_is_one(tmp_path: Path) -> None:
    for seed in (1, 2):
        write_greedy(tmp_path, seed, problems=25, chance=0.0)
    stderr = run(tmp_path, "--seeds", 1, 2).stderr
    assert "seeds 1, 2: all 25 answers are wrong" in stderr
    assert stderr.count("all 25 answers are wrong") == 1
