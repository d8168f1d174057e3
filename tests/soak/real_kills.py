"""Run scripts killed on a real vLLM engine: a part of kill_storm.py, as its rounds take half a minute each.

The model is tiny and random. The whole process is the one that users start: the script, vLLM's engine in its own
process, and the guard that ends it. Numbers may differ in the last digits, because a resumed run has other batches.
"""

import json
import os
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import psutil
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from bayesian_transformer.conversion import convert_checkpoint
from bayesian_transformer.quantities import FIELDS
from tests.helpers.prompt_models import LLAMA_TEMPLATE, byte_tokenizer
from tests.helpers.run_scripts import write_rows
from tests.helpers.script_processes import start_script, wait_for_script
from tests.soak.storm_cases import stored

MARK = "KILL_STORM"  # environment variable by which a process is known to belong to a run
PROBLEMS = 12
PATIENCE_SECONDS = 300
BEFORE, BETWEEN, AFTER = "before_the_first_record", "between_records", "after_the_last_record"
SCRIPTS = {
    "greedy_unc_single_batch_refine.py": ("--max-tokens", "120"),
    "greedy_responses_unc.py": ("--max-tokens", "80", "--n-particles", "2", "--per-token"),
}
_CONFIG = {
    "vocab_size": 512, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 2048, "initializer_range": 0.1, "bos_token_id": 0,
    "eos_token_id": 1,
}  # fmt: skip


@dataclass
class RealStorm:
    """One script with its data set, killed again and again."""

    script: str
    model: Path
    dataset: Path
    rng: Random
    figures: Counter[str]

    def start(self, output: Path) -> Any:
        log = str(self.dataset.with_name("engine.log"))
        options = (*SCRIPTS[self.script], "--batch-size", str(self.rng.choice((1, 2, 4))), "--log-file", log)
        return start_script(self.script, self.model, self.dataset, output, *options, **{MARK: str(output)})

    def kill_until_complete(self, output: Path, most: int) -> None:
        """Up to `most` kills, each of a run that goes on where the last one ended."""
        for _ in range(most):
            before = count(output)
            if before == PROBLEMS:
                return
            process = self.start(output)
            begin = time.monotonic()
            if self.rng.random() < 0.25:
                moment = begin + self.rng.uniform(0, 15)
                wait_until(process, lambda moment=moment: time.monotonic() > moment)  # type: ignore[misc]
            else:
                wanted = min(before + self.rng.randint(1, 3), PROBLEMS)
                wait_until(process, lambda wanted=wanted: count(output) >= wanted)  # type: ignore[misc]
                time.sleep(self.rng.uniform(0, 0.3))
            self.kill(process, output, before)

    def kill(self, process: Any, output: Path, before: int) -> None:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        if process.returncode != -signal.SIGKILL:
            self.figures["finished_before_the_kill"] += 1
        else:
            after = count(output)
            moment = AFTER if after == PROBLEMS else BETWEEN if after > before else BEFORE
            self.figures["kills"] += 1
            self.figures[moment] += 1
        left = outlived(str(output))
        assert not left, f"processes outlive the script: {left}"


def run_real(kills: int, seed: int = 0) -> dict[str, int | float]:
    """Kill the two scripts in turn until `kills` have hit; AssertionError if anything is lost, twice or left over."""
    figures: Counter[str] = Counter()
    begin, rng = time.monotonic(), Random(f"real {seed}")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model, dataset = save_tiny_model(folder), save_problems(folder, rng)
        storms = [RealStorm(script, model, dataset, rng, figures) for script in SCRIPTS]
        for storm in storms:
            wait_for_script(storm.start(folder / storm.script / "whole"))
        for number in range(2 * kills):
            storm = storms[number % 2]
            if figures["kills"] < kills:
                output = folder / storm.script / f"killed{number}"
                storm.kill_until_complete(output, min(kills - figures["kills"], -(-kills // 2)))
                wait_for_script(storm.start(output))
                compare(stored(output), stored(folder / storm.script / "whole"))
                figures["records"] += PROBLEMS
                left = outlived(str(output))
                assert not left, f"processes outlive the script: {left}"
    return {**dict(sorted(figures.items())), "seconds": round(time.monotonic() - begin, 1)}


def save_tiny_model(folder: Path) -> Path:
    """A random Llama with a byte tokenizer, as a TFB checkpoint in float32."""
    torch.manual_seed(0)
    base = folder / "Tiny"
    LlamaForCausalLM(LlamaConfig(**_CONFIG, dtype="float32")).save_pretrained(base)
    byte_tokenizer(LLAMA_TEMPLATE).save_pretrained(base)
    return convert_checkpoint(base, folder / "TFB-Tiny")


def save_problems(folder: Path, rng: Random) -> Path:
    texts = [f"What is {rng.randint(10, 99)} + {rng.randint(10, 99)}? {'é 日本 '[: i % 6]}" for i in range(PROBLEMS)]
    rows = [{"unique_id": f"sum/{i}.json", "problem": text, "answer": str(i)} for i, text in enumerate(texts)]
    return write_rows(folder / "sums.jsonl", rows)


def count(output: Path) -> int:
    """How many records are stored whole."""
    lines = sum(part.read_bytes().count(b"\n") for part in output.rglob("batch_results_*.jsonl"))
    return lines + sum(path.parent.name == "single_greedy_unc" for path in output.rglob("[!.]*.json"))


def wait_until(process: Any, ready: Callable[[], bool]) -> None:
    """Wait until something is so or the process has ended."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not ready() and process.poll() is None:
        assert time.monotonic() < deadline, "the run does not go on"
        time.sleep(0.01)


def outlived(mark: str) -> list[str]:
    """The processes of a run that are still there a minute after its script has ended."""
    _, alive = psutil.wait_procs(list(belonging_to(mark)), timeout=60)
    return [str(process) for process in alive]


def belonging_to(mark: str) -> list[psutil.Process]:
    """All processes with this value of MARK, also those that nobody is the parent of any more."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(MARK) == mark:
                found.append(process)
    return found


def compare(found: dict[str, bytes], wanted: dict[str, bytes]) -> None:
    """The same records: the same texts and tokens, numbers as near as two batches are."""
    assert found.keys() == wanted.keys()
    for name, content in wanted.items():
        one, other = json.loads(found[name]), json.loads(content)
        if name == "settings.json":
            assert one == other
            continue
        for record, expected in zip(responses(one), responses(other), strict=True):
            for key in ("prompt", "formatted_prompt", "answer", "text", "token_ids", "finish_reason", "token_count"):
                assert record.get(key) == expected.get(key), f"{name}: {key}"
            for field in FIELDS:
                assert record[field] == pytest.approx(expected[field], rel=1e-3, abs=1e-5), f"{name}: {field}"


def responses(record: dict[str, Any]) -> list[dict[str, Any]]:
    """A greedy record, or the responses of a problem with what they share."""
    shared = {key: value for key, value in record.items() if key != "outputs"}
    return [shared | output for output in record.get("outputs", [{}])]
