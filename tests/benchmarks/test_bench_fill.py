"""The batch that the decode benchmark times, and a run whose engine dies, with stand-ins for the engines."""

import json
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from benchmarks import bench_decode
from benchmarks.utils.engine_process import Decoder
from benchmarks.utils.engines import Paired

pytest.importorskip("vllm")


class StandInEngine:
    """Schedules like vLLM: whole prompts, then one token per step, with `in_flight` steps under way at a time."""

    def __init__(self, in_flight: int, budget: int) -> None:
        self.in_flight, self.budget = in_flight, budget
        self.queue: deque[list[str]] = deque()
        self.requests: dict[str, SimpleNamespace] = {}
        self.model_config = SimpleNamespace(max_model_len=10_000)
        self.engine_core = SimpleNamespace(engine_core=SimpleNamespace(scheduler=self))

    def add_request(self, request_id: str, prompt: dict[str, list[int]], params: Any) -> None:
        length = len(prompt["prompt_token_ids"])
        self.requests[request_id] = SimpleNamespace(prompt=length, num_computed_tokens=0)

    def step(self) -> list[SimpleNamespace]:
        scheduled, left = [], self.budget
        for name, request in self.requests.items():
            tokens = 1 if request.num_computed_tokens else request.prompt
            assert tokens <= left, "a prompt would be cut into chunks"
            left -= tokens
            request.num_computed_tokens += tokens
            scheduled.append(name)
        self.queue.append(scheduled)
        if len(self.queue) < self.in_flight:
            return []
        completion = SimpleNamespace(token_ids=[0])
        return [SimpleNamespace(request_id=name, finished=False, outputs=[completion]) for name in self.queue.popleft()]


@pytest.mark.parametrize("in_flight", [1, 2])
def test_every_wave_ends_at_the_same_context(in_flight: int) -> None:
    """Async scheduling cannot be had on a CPU; with it the tokens of a step arrive one step late."""
    engine = StandInEngine(in_flight, budget=170)
    decoder = Decoder.__new__(Decoder)
    decoder.engine, decoder.budget, decoder.in_flight, decoder.tokens = engine, 170, in_flight, {}
    decoder.core_seconds = 0.0
    assert decoder.fill(sequences=9, context=50, vocab_size=512) == 3
    assert decoder.contexts() == [50] * 9
    decoder.steps(count=3, discard=2)
    assert decoder.contexts() == [55] * 9


def test_what_was_measured_is_kept_when_an_engine_dies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = {"device": "cpu", "threads": 1, "bytes_per_second": 1e9, "flops_per_second": 1e10}
    engine = SimpleNamespace(facts={}, call=lambda name, **arguments: machine)

    @contextmanager
    def engines(*arguments: Any) -> Iterator[tuple[Any, Any]]:
        yield engine, engine

    def measure(case: Any, *arguments: Any) -> dict[str, Paired]:
        if case.num_samples == 3:
            raise ValueError("the plain engine died in 'steps': reason; its log: a.log")
        return dict.fromkeys(("limit", "plain", "plain_with_front_end"), Paired([0.2], [0.1]))

    monkeypatch.setattr(bench_decode, "engine_pair", engines)
    monkeypatch.setattr(bench_decode, "measure", measure)
    sizes = ["--batch", "1", "--batch", "2", "--samples", "3", "--samples", "5", "--context", "32"]
    options = ["--model-shape", "tiny", "--memory-gb", "1000", "--json", str(tmp_path / "result.json")]
    run = CliRunner().invoke(bench_decode.main, [*options, *sizes])
    assert run.exit_code == 1
    assert "B=2 S=3 context=32: the plain engine died in 'steps': reason" in run.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    assert [(case["batch"], case["num_samples"]) for case in result["cases"]] == [(1, 5), (2, 5)]
    assert len(result["failed"]) == 2
