"""What eval_scaling_test_multi_gpu.py says of results that do not belong together and of data sets with bad rows."""

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from bayesian_transformer.files import append_jsonl, write_json
from eval.eval_scaling_test_multi_gpu import main
from tests.helpers.eval_results import DATASET, MODEL, problem, write_scaling


def run(root: Path, *args: Any) -> Result:
    common = [
        "--dataset",
        DATASET,
        "--model",
        MODEL,
        "--results-dir",
        str(root),
        "--n-particles",
        "4",
        "--workers",
        "1",
    ]
    return CliRunner().invoke(main, [*common, *map(str, args)])


def metadata(root: Path) -> dict[str, Any]:
    return json.loads((root / "eval" / f"{MODEL}_{DATASET}_seed96_p0.9_all_scaling_metadata.json").read_text())


def test_results_of_different_settings_are_said(tmp_path: Path) -> None:
    folder = write_scaling(tmp_path, 96, 3, 4)
    for number, changes in enumerate(
        ({"temperature": 0.8}, {"temperature": 0.8}, {"temperature": 1.3, "num_samples": 2})
    ):
        path = folder / f"sums_{number}.json"
        write_json(path, json.loads(path.read_text()) | changes | {"engine_args": {"dtype": "float32"}})
    result = run(tmp_path)
    assert result.exit_code == 0, result.output
    assert "not comparable: the responses were made with different temperature: 0.8, 1.3" in result.stderr
    assert "not comparable: the responses were made with different num_samples: 5, 2" in result.stderr
    assert result.stderr.count("not comparable") == 2
    found = metadata(tmp_path)
    assert found["made_with"]["num_samples"] == [5, 2]
    assert found["made_with"]["engine_args"] == [{"dtype": "float32"}]
    assert any("different temperature" in note for note in found["notes"])


def test_rows_without_an_answer_or_an_id_are_named_and_the_rest_is_evaluated(tmp_path: Path) -> None:
    write_scaling(tmp_path, 96, 3, 4)
    dataset = tmp_path / "sums.jsonl"
    for row in (
        problem(0),
        {"unique_id": "sums/8", "problem": "?"},
        problem(1),
        {"problem": "?", "answer": "1"},
        problem(2),
    ):
        append_jsonl(dataset, row)
    result = run(tmp_path, "--dataset-path", dataset)
    assert result.exit_code == 0, result.output
    assert f"2 rows of {dataset} give no gold answer: sums_8: answer is missing" in result.stderr
    assert "problem 3: neither unique_id nor metadata.source_index is given" in result.stderr
    found = metadata(tmp_path)
    assert [row.partition(":")[0] for row in found["unusable_rows"]] == ["sums_8", "problem 3"]
    assert found["problems"] == 3
