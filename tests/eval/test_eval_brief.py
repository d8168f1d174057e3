"""--brief: six rows of the detection table, the same numbers as in the report, on few lines of at most 100 columns."""

import json
from pathlib import Path

import pytest

from bayesian_transformer.scores import SCORE_BY_NAME
from eval.utils.brief import NOTES, ROWS, WIDTH
from tests.helpers.detection_runs import report_folder, rewrite, run, table
from tests.helpers.eval_results import write_greedy

SEEDS = (96, 89, 64)


@pytest.mark.parametrize("seeds", [SEEDS[:1], SEEDS])
def test_six_rows_with_the_numbers_of_the_report(seeds: tuple[int, ...], tmp_path: Path) -> None:
    for seed in seeds:
        write_greedy(tmp_path, seed)
    result = run(tmp_path, "--seeds", *seeds, "--brief")
    assert (result.exit_code, "note:" in result.stderr) == (0, False)
    lines = result.stdout.splitlines()
    assert max(map(len, lines[:-1])) <= WIDTH
    assert len(lines) <= 27
    assert lines[-1] == f"Report: {report_folder(tmp_path) / 'report.html'}"
    start = next(number for number, line in enumerate(lines) if set(line) == {"-"}) + 1
    assert [line.partition("  ")[0] for line in lines[start : lines.index("", start)]] == [
        SCORE_BY_NAME[name].label for name in ROWS
    ]

    decision = lines[lines.index("", start) + 1 :]
    assert decision[0].startswith("P(correct)")

    summary = {row["metric"]: row for row in table(report_folder(tmp_path) / "summary_statistics.csv")}
    width = 100 * (float(summary["auc_ll_mean"]["high"]) - float(summary["auc_ll_mean"]["low"]))
    little = f"120 problems show little: intervals are {width:.0f} points wide"
    assert (little in decision) == (width >= 10)
    for name, line in zip(ROWS, lines[start:], strict=False):
        for metric in ("auc", "auprc", "top50", "auc_strata"):
            assert f"{100 * float(summary[f'{metric}_{name}']['mean']):.2f}" in line.split(), name
        assert ("±" in line) == (len(seeds) > 1)
        low, high = (100 * float(summary[f"auc_gain_{name}"][side]) for side in ("low", "high"))
        assert line.endswith(f"[{low:.1f}, {high:.1f}]") == (name != "length")


def test_right_answers_are_counted_and_notes_are_few_and_short(tmp_path: Path) -> None:
    for seed in SEEDS:
        path = write_greedy(tmp_path, seed)
    rewrite(path, lambda _, record: record.update(seed=1, bayes_sigma=7.0, num_samples=3, text="?"))
    result = run(tmp_path, "--seeds", *SEEDS, 1, 2, 3, "--brief")
    assert result.exit_code == 1  # seeds are missing
    shown = result.stdout.splitlines()
    notes = json.loads((report_folder(tmp_path) / "metadata.json").read_text())["notes"]
    assert f"note: {len(notes) - NOTES} more in the report" in shown
    assert shown.count("") == 4
    assert len(shown) <= 30
