"""The two run scripts on a real engine: killed and resumed, and what they write."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from bayesian_transformer.results import read_greedy
from bayesian_transformer.uncertainty import FIELDS
from tests.helpers.run_scripts import by_id, write_sums
from tests.helpers.script_processes import start_script, wait_for_script


@contextmanager
def when(process: "subprocess.Popen[str]", ready: Callable[[], bool]) -> Iterator[list[psutil.Process]]:
    """What the script has started by the time that it is `ready`; nothing of it outlives the block."""
    started = [psutil.Process(process.pid)]
    try:
        deadline = time.monotonic() + 300
        while not ready():
            assert process.poll() is None, "the run ended before it could be disturbed"
            assert time.monotonic() < deadline, "the run wrote nothing"
            time.sleep(0.01)
        started += started[0].children(recursive=True)
        yield started[1:]
    finally:
        for one in started:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        process.communicate()


@pytest.mark.engine
def test_greedy_run_killed_and_resumed_equals_an_undisturbed_one(tiny_llama_tfb_path: Path, tmp_path: Path) -> None:
    """First the script is killed and takes its engine with it, then the engine of the next run is."""
    dataset = write_sums(tmp_path)
    script, options = "greedy_unc_single_batch_refine.py", ("--max-tokens", "150", "--batch-size", "1")
    folder = f"{tiny_llama_tfb_path.name}_results_vllm_pg/sums/seed96/greedy_unc"
    file = tmp_path / "killed" / folder / "batch_results_0_6.jsonl"

    def lines() -> int:
        return file.read_text().count("\n") if file.exists() else 0

    process = start_script(script, tiny_llama_tfb_path, dataset, tmp_path / "killed", *options)
    with when(process, lambda: lines() >= 1) as started:
        assert any("EngineCore" in one.name() or "EngineCore" in one.cmdline()[0] for one in started)
        os.kill(process.pid, signal.SIGKILL)
        assert psutil.wait_procs(started, timeout=60)[1] == []
    kept = lines()
    assert 1 <= kept < 5

    process = start_script(script, tiny_llama_tfb_path, dataset, tmp_path / "killed", *options)
    with when(process, lambda: lines() > kept) as started:
        (engine,) = (one for one in started if "EngineCore" in one.cmdline()[0])
        engine.kill()
        errors = wait_for_script(process, status=1)
    assert "Error: vLLM's engine died" in errors
    assert f"go on with the {6 - lines()} problems left: test_sum_" in errors

    kept = lines()
    assert 2 <= kept < 6
    wait_for_script(start_script(script, tiny_llama_tfb_path, dataset, tmp_path / "killed", *options))
    wait_for_script(start_script(script, tiny_llama_tfb_path, dataset, tmp_path / "whole", "--max-tokens", "150"))

    assert lines() == 6
    resumed, whole = (by_id(read_greedy(tmp_path / name / folder)) for name in ("killed", "whole"))
    assert set(resumed) == set(whole) == {f"test_sum_{i}" for i in range(6)}
    for name, record in whole.items():
        assert resumed[name]["token_ids"] == record["token_ids"]
        for field in FIELDS:
            assert resumed[name][field] == pytest.approx(record[field], rel=1e-3, abs=1e-5)
        assert max(record["epistemic"]) > 1e-4  # there is noise to compare


@pytest.mark.engine
def test_scaling_run_on_a_real_engine(tiny_llama_tfb_path: Path, tmp_path: Path) -> None:
    dataset = write_sums(tmp_path)
    options = ("--n-particles", "4", "--dataset-end", "2", "--max-tokens", "20", "--per-token", "--num-samples", "3")
    wait_for_script(start_script("greedy_responses_unc.py", tiny_llama_tfb_path, dataset, tmp_path, *options))
    folder = f"inference_scaling/{tiny_llama_tfb_path.name}_results_vllm_pg/sums/seed96/p4/single_greedy_unc"
    files = sorted((tmp_path / folder).iterdir())
    assert [file.name for file in files] == ["test_sum_0.json", "test_sum_1.json"]
    for file in files:
        record = json.loads(file.read_text())
        assert (record["num_samples"], record["schema_version"]) == (3, 1)
        assert len({output["text"] for output in record["outputs"]}) == 4
        for output in record["outputs"]:
            assert output["token_count"] == len(output["token_ids"]) == len(output["total"])
            assert output["logprobs"]["ll"] == pytest.approx(sum(output["logprob"]))
            assert output["uncertainties"]["neu"] == pytest.approx(sum(output["epistemic"]) / output["token_count"])
            assert output["uncertainties"]["eu"] > 1e-4
