"""The shell scripts for real: greedy answers, detection and scaling with the embedded model on the CPU."""

import csv
import json
from pathlib import Path

import pytest

from tests.helpers.bash_scripts import EVAL, PARA, SCALING, SINGLE, Experiments


@pytest.fixture
def experiments(data_sets: Path, smollm2_tfb_path: Path) -> Experiments:
    return Experiments(data_sets, smollm2_tfb_path)


@pytest.mark.engine
def test_uneven_parts_of_which_one_fails(experiments: Experiments, data_sets: Path, smollm2_tfb_path: Path) -> None:
    """Two processes for 4 and 5 problems, one of which is too long for the model: all others are answered."""
    rows = [json.loads(line) for line in (data_sets / "ten.jsonl").read_text().splitlines() if line]
    rows[4]["problem"] = "What is " + "1 + " * 300 + "1?"
    (data_sets / "long.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    _, errors = experiments.run(SINGLE, "--dataset", "long", "--start", "1", NUM_GPUS="2", status=1)
    assert "problems 1 to 4: FAILED with status 1" in errors
    assert "1 problems have no result: 4" in errors

    name = smollm2_tfb_path.name
    folder = experiments.results / f"{name}_results_vllm_pg/long/seed96/greedy_unc"
    found = {path.name: len(path.read_text().splitlines()) for path in folder.glob("batch_results_*.jsonl")}
    assert found == {"batch_results_1_5.jsonl": 3, "batch_results_5_10.jsonl": 5}
    _, notes = experiments.run(EVAL, "long", str(smollm2_tfb_path), "96")
    assert "seed 96: only 8 of the 10 problems of the data set have a response" in notes


@pytest.mark.engine
def test_the_experiments_from_start_to_end(experiments: Experiments, smollm2_tfb_path: Path) -> None:
    """Greedy answers, detection, sampled responses and scaling, on a few small problems."""
    name = smollm2_tfb_path.name
    experiments.run(PARA, "--datasets", "ten", "--seeds", "96")
    folder = experiments.results / f"{name}_results_vllm_pg/ten/seed96/greedy_unc"
    records = [json.loads(line) for line in (folder / "batch_results_0_10.jsonl").read_text().splitlines()]
    assert {record["unique_id"] for record in records} == {str(i) for i in range(10)}
    table, _ = experiments.run(EVAL, "ten", str(smollm2_tfb_path), "96")
    assert "AUROC" in table
    table, notes = experiments.run(
        SCALING, "--generate", "--dataset", "ten", "--seed", "96", "--n-particles", "16", DATASET_END="4"
    )
    assert "pass_expected" in table
    assert "6 of 10 problems have no usable results: 4, 5, 6, 7, 8, 9" in notes
    stem = experiments.results / f"eval/{name}_ten_seed96_p0.1_all_scaling"
    assert Path(f"{stem}_plot.png").exists()
    with Path(f"{stem}_summary.csv").open(newline="") as file:
        assert {row["n"] for row in csv.DictReader(file)} == {"1", "2", "4", "8", "16"}
