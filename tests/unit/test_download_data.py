"""The problem sets: fetched through the real loader from a local mirror or from folders, checked, written whole."""

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.helpers.hub_mirror import hub_mirror

SCRIPT = Path(__file__).resolve().parents[2] / "datasets" / "download_data.py"
CLOSED = "http://127.0.0.1:9"  # nothing listens on the discard port


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("download_data", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["download_data"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def math500_rows(count: int = 500) -> list[dict[str, Any]]:
    return [
        {
            "problem": f"What is {i} + 1?",
            "answer": f"{i + 1}",
            "level": 1 + i % 5,
            "unique_id": f"test/algebra/{i}.json",
        }
        for i in range(count)
    ]


def put(folder: Path, rows: list[dict[str, Any]], split: str = "test", config: str | None = None) -> Path:
    """A data set folder as it lies on the hub."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{config}-{split}.jsonl" if config else f"{split}.jsonl"
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    if config:
        listing = f"configs:\n- config_name: {config}\n  data_files:\n  - split: {split}\n    path: {name}\n"
        (folder / "README.md").write_text(f"---\n{listing}---\n", encoding="utf-8")
    return folder


def run(endpoint: str, tmp_path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, str(SCRIPT), "--output-dir", str(tmp_path / "out"), *options]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def written(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def local(script: ModuleType, name: str, **changes: Any) -> Any:
    """The problem set of that name with its sources (or counts) replaced."""
    return replace(next(s for s in script.PROBLEM_SETS if s.name == name), **changes)


def test_a_mirror_delivers_published_sets_and_originals(tmp_path: Path) -> None:
    """One published set, one only in its original place, one nowhere; then a second run that asks for nothing."""
    put(tmp_path / "hub/Tyrion279/math500", math500_rows(), "train")
    gsm8k = [
        {"question": f"q{i}", "answer": f"{i} + 1000 = <<{i}+1000={i + 1000}>>\n#### {i + 1000:,}"} for i in range(1319)
    ]
    put(tmp_path / "hub/openai/gsm8k", gsm8k, config="main")
    with hub_mirror(tmp_path / "hub") as (endpoint, requests):
        first = run(endpoint, tmp_path, "--only", "math500", "--only", "gsm8k_test", "--only", "deepscaler")
        asked = len(requests)
        again = run(endpoint, tmp_path, "--only", "math500", "--only", "gsm8k_test")

    assert first.returncode == 1
    failure = [line for line in first.stderr.splitlines() if "FAILED" in line]
    assert len(failure) == 1
    assert "Tyrion279/deepscaler" in failure[0]
    assert "agentica-org/DeepScaleR-Preview-Dataset" in failure[0]
    assert "Traceback" not in first.stderr

    assert written(tmp_path / "out/math500.jsonl") == [row | {"source": "Tyrion279/math500"} for row in math500_rows()]
    row = written(tmp_path / "out/gsm8k_test.jsonl")[1318]
    assert row["unique_id"] == "gsm8k/test/1318"
    assert (row["problem"], row["answer"], row["source"]) == ("q1318", "2318", "openai/gsm8k")
    assert row["solution"].endswith("#### 2,318")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["gsm8k_test.jsonl", "math500.jsonl"]

    assert (again.returncode, len(requests)) == (0, asked)
    assert again.stdout.count("present") == 2


def test_without_a_hub_leg_counting_is_generated_and_the_rest_fails_fast(tmp_path: Path) -> None:
    result = run(CLOSED, tmp_path)
    assert result.returncode == 1
    assert result.stderr.count(f"Cannot reach {CLOSED}") == 1
    assert result.stderr.count("Retrying") == 0
    assert "no data for math500, gsm8k_test, deepscaler" in result.stderr
    rows = written(tmp_path / "out/leg-counting.jsonl")
    assert [row["metadata"]["source_index"] for row in rows] == list(range(100))
    legs = {"sea slug": 0, "deer": 4, "giraffe": 4, "elephant": 4}
    first = rows[0]
    assert int(first["answer"]) == sum(legs[animal] * n for animal, n in first["metadata"]["animals"].items())
    assert first["source"].startswith("generated with reasoning-gym")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["leg-counting.jsonl"]


def test_a_hub_that_hangs_up_stops_one_set_only(tmp_path: Path) -> None:
    put(tmp_path / "hub/Tyrion279/math500", math500_rows())
    with hub_mirror(tmp_path / "hub", unfinished=True) as (endpoint, requests):
        result = run(endpoint, tmp_path, "--only", "math500", "--only", "leg-counting")
    assert requests
    assert "Traceback" not in result.stderr
    assert result.returncode == 1
    assert "no data for math500;" in result.stderr
    assert "Tyrion279/math500: Server disconnected" in result.stderr
    assert written(tmp_path / "out/leg-counting.jsonl")[0]["source"].startswith("generated with reasoning-gym")


def test_an_offline_setting_is_obeyed(tmp_path: Path) -> None:
    with hub_mirror(tmp_path / "hub") as (endpoint, requests):
        environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, str(SCRIPT), "--output-dir", str(tmp_path), "--only", "math500"]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        assert (result.returncode, requests) == (1, [])


def test_an_unknown_set_is_refused(tmp_path: Path) -> None:
    result = run(CLOSED, tmp_path, "--only", "math5000")
    assert result.returncode == 2
    assert "math5000" in result.stderr


class TestFromFolders:
    """The same loader on local folders."""

    @pytest.fixture(autouse=True)
    def _cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from huggingface_hub import constants

        import datasets

        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")

    @pytest.mark.parametrize(
        ("rows", "reason"),
        [
            (math500_rows(499), "499"),
            ([*math500_rows(499), math500_rows()[0]], "row 500: id 'test/algebra/0.json' is missing or repeated"),
            ([*math500_rows(499), {**math500_rows()[499], "answer": "  "}], "row 500: 'answer'"),
            ([{k: v for k, v in row.items() if k != "problem"} for row in math500_rows()], "row 1: 'problem'"),
        ],
    )
    def test_a_bad_copy_is_passed_over(
        self, script: ModuleType, tmp_path: Path, rows: list[dict[str, Any]], reason: str
    ) -> None:
        bad = script.HubSource(str(put(tmp_path / "bad", rows)))
        good = script.HubSource(str(put(tmp_path / "good", math500_rows())), split="test")
        with pytest.raises(ValueError, match="bad") as caught:
            script.obtain(local(script, "math500", sources=(bad,)), tmp_path / "out")
        assert reason in str(caught.value)
        assert not (tmp_path / "out").exists()
        line = script.obtain(local(script, "math500", sources=(bad, good)), tmp_path / "out")
        assert f"500 rows from {good.location}" in line
        assert len(written(tmp_path / "out/math500.jsonl")) == 500

    def test_a_defective_file_is_replaced_and_kept(self, script: ModuleType, tmp_path: Path) -> None:
        source = script.HubSource(str(put(tmp_path / "hub", math500_rows())))
        path = tmp_path / "math500.jsonl"
        torn = "".join(json.dumps(row) + "\n" for row in math500_rows())[:-40]
        path.write_text(torn, encoding="utf-8")
        line = script.obtain(local(script, "math500", sources=(source,)), tmp_path)
        assert "math500.jsonl:500: not valid JSON" in line
        assert len(written(path)) == 500
        assert (tmp_path / "math500.jsonl.bak").read_text(encoding="utf-8") == torn

    def test_a_defective_file_stays_when_nothing_can_replace_it(self, script: ModuleType, tmp_path: Path) -> None:
        path = tmp_path / "math500.jsonl"
        path.write_text("[1]\n", encoding="utf-8")
        problem_set = local(script, "math500", sources=(script.HubSource(str(tmp_path / "nowhere")),))
        with pytest.raises(ValueError, match="nowhere"):
            script.obtain(problem_set, tmp_path)
        assert path.read_text(encoding="utf-8") == "[1]\n"

    def test_the_deepscaler_subset_is_reproducible_and_labelled(self, script: ModuleType, tmp_path: Path) -> None:
        rows = [{"problem": f"p{i}", "answer": "" if i % 10 == 0 else str(i), "solution": f"s{i}"} for i in range(80)]
        source = script.HubSource(str(put(tmp_path / "hub", rows, "train")), split="train", subset=30)
        problem_set = local(script, "deepscaler", counts=range(30, 31), sources=(source,))
        script.obtain(problem_set, tmp_path / "a")
        script.obtain(problem_set, tmp_path / "b")
        subset = written(tmp_path / "a/deepscaler.jsonl")
        assert subset == written(tmp_path / "b/deepscaler.jsonl")
        origin = [row["source_row"] for row in subset]
        assert origin == sorted(set(origin))
        assert len(origin) == 30
        assert all(row["problem"] == f"p{row['source_row']}" and row["source_row"] % 10 for row in subset)
        assert all(row["unique_id"] == f"deepscaler/{row['source_row']}" for row in subset)
        assert all("not the published subset" in row["source"] for row in subset)

    def test_metadata_may_be_json_text_or_hold_filler(self, script: ModuleType, tmp_path: Path) -> None:
        def animal(i: int) -> str:
            return "cow" if i % 2 else "duck"

        records = [{"animals": {animal(i): i + 1}, "source_index": 200 + i} for i in range(100)]
        as_text = [{"question": "q", "answer": str(i), "metadata": json.dumps(m)} for i, m in enumerate(records)]
        as_record = [{"question": "q", "answer": str(i), "metadata": m} for i, m in enumerate(records)]
        both: tuple[list[dict[str, Any]], ...] = (as_text, as_record)
        for number, rows in enumerate(both):
            source = script.HubSource(str(put(tmp_path / f"hub{number}", rows)))
            script.obtain(local(script, "leg-counting", sources=(source,)), tmp_path / f"out{number}")
            got = [row["metadata"] for row in written(tmp_path / f"out{number}/leg-counting.jsonl")]
            assert got == records

    def test_the_right_split_is_found_or_the_sizes_are_named(self, script: ModuleType, tmp_path: Path) -> None:
        folder = put(tmp_path / "hub", math500_rows(7), "train")
        put(folder, math500_rows(500), "test")
        rows = script.HubSource(str(folder)).rows(range(500, 501))
        assert len(rows) == 500
        with pytest.raises(ValueError, match=r"expected one split with 3 to 6 rows, but train has 7, test has 500"):
            script.HubSource(str(folder)).rows(range(3, 7))


def test_gsm8k_answers_lose_commas_but_keep_signs_and_points(script: ModuleType) -> None:
    for raw, answer in {"#### -1,234,567": "-1234567", "x #### 2.5": "2.5", "a #### b #### 7": "7"}.items():
        assert script.problem_row({"question": "q", "answer": raw}, "id")["answer"] == answer
    assert script.problem_row({"problem": "p", "answer": "(1,234)"}, "id")["answer"] == "(1,234)"
