"""eval_detect_multi_seed.py from results on disk to report, against an independent computation from the same files."""

import html.parser
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from sklearn.metrics import auc, precision_recall_curve, roc_auc_score

from eval.utils.eval_options import repeat_option
from tests.helpers.detection_runs import report_folder, rewrite, run, table
from tests.helpers.eval_results import DATASET, MODEL, write_greedy

SCRIPT = Path(__file__).resolve().parents[2] / "eval" / "eval_detect_multi_seed.py"
FILES = {
    "metadata.json", "detailed_results.csv", "summary_statistics.csv", "response_scores.csv", "evaluation_report.txt",
    "report.html", "p_correct_statistics.csv", "decision.png", "auroc.png", "roc.png", "risk_coverage.png",
    "score_length.png",
}  # fmt: skip

Evaluated = tuple[dict[int, Path], Path, Result]  # files by seed, report folder, output


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
            "tu_sum": [-sum(record["total"]) for record in records],
            "au_sum": [-sum(record["aleatoric"]) for record in records],
            "eu_sum": [-sum(record["epistemic"]) for record in records],
            "ll_mean": [np.mean(record["logprob"]) for record in records],
            "bir_mean": [-np.mean(record["implicit_reward"]) for record in records],
            "self_certainty_mean": [np.mean(record["self_certainty"]) for record in records],
            "length": [-len(record["token_ids"]) for record in records],
        }
        published = {"tu": "tu_sum", "au": "au_sum", "eu": "eu_sum", "ll": "ll_mean"}
        scores |= {alias: scores[name] for alias, name in published.items()}
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
        if line["metric"].endswith(("_answer", "_worst_step")):  # these records do not say where they are
            assert line["mean"] == rows[0][line["metric"]] == ""
            continue
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
    assert len(page.links) == 5
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


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "give either --seeds or --seeds_range"),
        (["--seeds", 1, "--seeds_range", 1, 2], "give either --seeds or --seeds_range"),
        (["--seeds_range", 3, 1], "first seed must not be larger"),
        (["--seeds", 7], "no batch_results_*.jsonl in"),
        (["--seeds", 1, "x"], "'x' is not a valid integer"),
        (["--seeds", "1", "--alpha", "nan"], "Invalid value for '--alpha'"),
        (["--seeds", "1", "--delta", "nan"], "Invalid value for '--delta'"),
    ],
)
def test_bad_options_are_one_line(tmp_path: Path, args: list[Any], message: str) -> None:
    result = run(tmp_path, *args)
    assert result.exit_code != 0
    assert message in result.stderr
    assert "Traceback" not in result.output


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
