"""The scoring benchmark at tiny size: what it reports is complete and consistent. No time is asserted."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.bench_score import WAYS, main, summary

SIZES = ["--samples", "3", "--prompt", "4", "--tokens", "6", "--rounds", "2", "--device", "cpu"]


def test_the_json_is_the_last_line_and_the_file(tiny_llama_tfb_path: Path, tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    result = CliRunner().invoke(main, ["--model-path", str(tiny_llama_tfb_path), *SIZES, "--json", str(file)])
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout.splitlines()[-1])
    assert record == json.loads(file.read_text())
    assert [record[name] for name in ("num_samples", "prompt", "tokens", "device")] == [3, 4, 6, "cpu"]
    assert len(record["rounds"]) == 2
    assert set(record["tokens_per_second"]) == set(WAYS)
    assert min(record["tokens_per_second"].values()) > 0
    assert set(record["times_faster_than"]) == {"full_passes", "generation"}
    assert "torch" in record["versions"]


def test_medians_and_ratios_within_rounds() -> None:
    rounds = [
        {"scoring": 1.0, "full_passes": 2.0, "generation": 8.0},
        {"scoring": 10.0, "full_passes": 10.0, "generation": 100.0},  # the machine was busy
        {"scoring": 2.0, "full_passes": 3.0, "generation": 18.0},
    ]
    result = summary(rounds, tokens=20)
    assert result["tokens_per_second"] == {"scoring": 10.0, "full_passes": pytest.approx(20 / 3), "generation": 20 / 18}
    assert result["times_faster_than"]["full_passes"] == {"median": 1.5, "min": 1.0, "max": 2.0}
    assert result["times_faster_than"]["generation"] == {"median": 9.0, "min": 8.0, "max": 10.0}


def test_a_text_beyond_the_model_is_one_line(tiny_llama_tfb_path: Path) -> None:
    result = CliRunner().invoke(main, ["--model-path", str(tiny_llama_tfb_path), "--tokens", "3000"])
    assert result.exit_code == 2
    assert "more than the 2048 tokens" in result.stderr
