"""The two run scripts: what they ask, write, refuse and resume."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from bayesian_transformer.results import read_greedy
from run.utils.config import load_model
from run.utils.engine import request_seed
from tests.helpers.run_scripts import (
    PROBLEMS,
    FakeEngine,
    by_id,
    greedy,
    greedy_folder,
    only_line,
    scaling,
    scaling_folder,
    write_rows,
)


def test_request_seed_depends_on_run_seed_and_id_only() -> None:
    assert request_seed(96, "a") == request_seed(96, "a") != request_seed(96, "b")
    assert request_seed(96, "a") != request_seed(89, "a")
    assert request_seed(96, "gsm8k_test_0") == 4597505774882041857  # from coreutils b2sum; stored results depend on it
    assert all(0 <= request_seed(s, "x") < 2**62 for s in range(200))


def test_greedy_asks_each_problem_once_and_writes_it(
    model: Path, dataset: Path, fake: Callable[..., FakeEngine]
) -> None:
    engine = fake()
    result = greedy(model, dataset, "--batch-size", "1", "--max-tokens", "7")
    assert result.exit_code == 0, result.output
    assert [path.name for path in greedy_folder(dataset).glob("batch*")] == ["batch_results_0_6.jsonl"]
    records = by_id(read_greedy(greedy_folder(dataset)))
    assert set(records) == {f"test_sum_{i}" for i in range(6)}
    for name, params in engine.params.items():
        assert (params.n, params.temperature, params.max_tokens) == (1, 0.0, 7)
        assert params.seed == request_seed(96, name)
        assert params.stop_token_ids == [1, 3]
        assert records[name]["total"][0] == pytest.approx(params.seed % 97 / 97, rel=1e-8)
    assert records["test_sum_3"]["formatted_prompt"] == load_model(str(model)).prompt("What is 3 + 3?")
    assert (records["test_sum_3"]["num_samples"], records["test_sum_3"]["model"]) == (3, "TFB-tiny")
    assert engine.most_in_flight == 2  # one decoding, one waiting


def test_greedy_range_is_part_of_the_file_name(model: Path, dataset: Path, fake: Callable[..., FakeEngine]) -> None:
    fake()
    assert greedy(model, dataset, "--dataset-start", "2", "--dataset-end", "4").exit_code == 0
    assert greedy(model, dataset, "--dataset-start", "4").exit_code == 0
    names = sorted(path.name for path in greedy_folder(dataset).glob("batch*"))
    assert names == ["batch_results_2_4.jsonl", "batch_results_4_6.jsonl"]
    assert sorted(by_id(read_greedy(greedy_folder(dataset)))) == [f"test_sum_{i}" for i in range(2, 6)]


def test_greedy_resumes_a_broken_run_without_loss_or_doubles(
    model: Path, dataset: Path, fake: Callable[..., FakeEngine]
) -> None:
    fake(die_after=3)
    assert greedy(model, dataset, "--batch-size", "1").exit_code != 0
    path = greedy_folder(dataset) / "batch_results_0_6.jsonl"
    kept = path.read_text().splitlines()
    assert 1 <= len(kept) <= 3
    with path.open("ab") as file:
        file.write(kept[0][:50].encode() + "é".encode()[:1])  # what a kill in the middle of a write leaves
    engine = fake()
    assert greedy(model, dataset, "--batch-size", "4").exit_code == 0
    assert len(engine.params) == 6 - len(kept)
    lines = path.read_text().splitlines()
    assert lines[: len(kept)] == kept
    assert len(lines) == 6
    path.unlink()
    fake()
    assert greedy(model, dataset).exit_code == 0
    assert by_id([json.loads(line) for line in lines]) == by_id(read_greedy(greedy_folder(dataset)))


def test_a_finished_run_starts_no_engine(
    model: Path, dataset: Path, fake: Callable[..., FakeEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake()
    assert greedy(model, dataset).exit_code == scaling(model, dataset).exit_code == 0
    monkeypatch.setattr("run.utils.run.start_engine", lambda *args: pytest.fail("started"))
    assert "6 problems have results in" in greedy(model, dataset).output
    assert "6 problems have results in" in scaling(model, dataset).output


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--num-samples", "2"], "num_samples 3, this run has 2"),
        (["--bayes-sigma", "0.5"], "bayes_sigma 0.1, this run has 0.5"),
        (["--max-tokens", "9"], "max_tokens 2048, this run has 9"),
        (["--engine-args", '{"dtype": "float32"}'], "engine_args"),
        (["--engine-args", '{"hf_overrides": {"num_samples": 2}}'], "num_samples"),
    ],
)
@pytest.mark.parametrize("script", [greedy, scaling])
def test_results_of_other_settings_are_not_mixed(
    script: Callable[..., Result],
    options: list[str],
    named: str,
    model: Path,
    dataset: Path,
    fake: Callable[..., FakeEngine],
) -> None:
    fake()
    assert script(model, dataset, "--dataset-end", "2").exit_code == 0
    before = sorted((path, path.read_text()) for path in dataset.parent.rglob("[!.]*.json*"))
    assert named in only_line(script(model, dataset, *options))
    assert before == sorted((path, path.read_text()) for path in dataset.parent.rglob("[!.]*.json*"))
    assert script(model, dataset, "--batch-size", "3", "--engine-args", '{"enforce_eager": true}').exit_code == 0


@pytest.mark.parametrize("script", [greedy, scaling])
def test_results_of_other_prompts_are_not_mixed(
    script: Callable[..., Result], model: Path, dataset: Path, fake: Callable[..., FakeEngine], tmp_path: Path
) -> None:
    fake()
    assert script(model, dataset).exit_code == 0
    (tmp_path / "system.txt").write_text("Be brief.\n")
    assert "prompt" in only_line(script(model, dataset, "--system-prompt-file", str(tmp_path / "system.txt")))
    for change in ({"problem": "changed?"}, {"answer": "changed"}):
        write_rows(dataset, [PROBLEMS[0] | change, *PROBLEMS[1:]])
        assert "test_sum_0" in only_line(script(model, dataset))


def test_a_second_writer_is_refused(model: Path, dataset: Path, fake: Callable[..., FakeEngine]) -> None:
    fake()
    lock = greedy_folder(dataset) / ".batch_results_0_6.jsonl.lock"
    lock.parent.mkdir(parents=True)
    holder = "import fcntl, sys\nf = open(sys.argv[1], 'w')\nfcntl.lockf(f, fcntl.LOCK_EX)\nprint(flush=True)\ninput()"
    with subprocess.Popen(
        [sys.executable, "-c", holder, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert "another process is writing it" in only_line(greedy(model, dataset))
        process.kill()
    assert greedy(model, dataset).exit_code == 0


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--dataset-start", "6"], "--dataset-start 6 --dataset-end 6 is not a range of its 6 problems"),
        (["--dataset-end", "7"], "--dataset-end 7 is not a range of its 6 problems"),
        (["--dataset-start", "3", "--dataset-end", "3"], "is not a range"),
        (["--engine-args", "{dtype: float32}"], "not valid JSON"),
        (["--engine-args", "[1]"], "must be a JSON object"),
        (["--engine-args", '{"seed": 1}'], "must not hold 'seed'; use --seed"),
        (["--engine-args", '{"hf_overrides": [1]}'], "hf_overrides must be a JSON object"),
        (["--bayes-sigma", "nan"], "bayes_sigma must be a finite number"),
        (["--num-samples", "0"], "--num-samples"),
        (["--model-path", "/nowhere"], "/nowhere: cannot read its config"),
        (["--dataset-path", "/nowhere.jsonl"], "/nowhere.jsonl"),
    ],
)
def test_unusable_options_are_refused_in_one_line(model: Path, dataset: Path, options: list[str], named: str) -> None:
    assert named in only_line(greedy(model, dataset, *options))


def test_scaling_writes_one_file_per_problem_in_the_published_schema(
    model: Path, dataset: Path, fake: Callable[..., FakeEngine]
) -> None:
    engine = fake()
    result = scaling(model, dataset, "--batch-size", "4")
    assert result.exit_code == 0, result.output
    folder = scaling_folder(dataset)
    assert sorted(path.name for path in folder.iterdir()) == [f"test_sum_{i}.json" for i in range(6)]
    record = json.loads((folder / "test_sum_5.json").read_text())
    assert record["prompt"] == load_model(str(model)).prompt("What is 5 + 5?")
    assert len(record["outputs"]) == 4
    for output in record["outputs"]:
        assert set(output["uncertainties"]) == {"nau", "ntu", "neu", "au", "tu", "eu"}
        assert set(output["logprobs"]) == {"nll", "ll"}
        assert output["uncertainties"]["tu"] == pytest.approx(output["uncertainties"]["ntu"] * output["token_count"])
    assert (record["answer"], record["unique_id"], record["temperature"]) == ("10", "test/sum/5.json", 0.8)
    assert {(params.n, params.temperature) for params in engine.params.values()} == {(4, 0.8)}
    assert engine.most_in_flight == 2


def test_scaling_resumes_from_the_files(model: Path, dataset: Path, fake: Callable[..., FakeEngine]) -> None:
    fake()
    assert scaling(model, dataset).exit_code == 0
    files = sorted(scaling_folder(dataset).iterdir())
    before = [path.read_text() for path in files]
    files[1].unlink()
    files[4].unlink()
    engine = fake()
    assert scaling(model, dataset).exit_code == 0
    assert sorted(engine.params) == ["test_sum_1", "test_sum_4"]
    assert before == [path.read_text() for path in files]
    files[0].write_text('{"prompt": ')
    assert "test_sum_0.json: not valid JSON" in only_line(scaling(model, dataset))
