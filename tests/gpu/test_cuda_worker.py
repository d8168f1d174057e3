"""What the worker does on a GPU only, driven on the CPU: padded batches, asynchronous outputs, warm-up, waking up."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("vllm")
from vllm.v1.core.sched import async_scheduler, scheduler
from vllm.v1.outputs import AsyncModelRunnerOutput, ModelRunnerOutput
from vllm.v1.worker.gpu_model_runner import GPUModelRunner

from bayesian_transformer.config import NoiseConfig
from bayesian_transformer.uncertainty import FIELDS
from bayesian_transformer.vllm_plugin import worker
from bayesian_transformer.vllm_plugin.model_mixin import TFBModelMixin
from bayesian_transformer.vllm_plugin.particles import Particles
from bayesian_transformer.vllm_plugin.stopping import uncertainty_scheduler


class Head:
    """A language model head that shows which hidden states it was given."""

    def compute_logits(self, hidden_states: torch.Tensor) -> torch.Tensor | None:
        return hidden_states.clone()


class Model(TFBModelMixin, Head):
    def __init__(self, num_samples: int, hidden: torch.Tensor) -> None:
        noise = NoiseConfig(num_samples=num_samples)
        self.particles: Any = SimpleNamespace(noise=noise, noisy_samples=num_samples - 1, hidden=hidden, logits=None)


def test_particle_rows_of_padding_get_no_logits() -> None:
    """A captured graph of 4 requests runs 3: row (s - 1) * 4 + b is weight sample s of request b."""
    num_samples, padded, requests = 3, 4, 3
    clean = torch.arange(requests, dtype=torch.float32)[:, None]
    hidden = torch.tensor([[10.0 * s + b] for s in range(1, num_samples) for b in range(padded)])
    model = Model(num_samples, hidden)
    logits = model.compute_logits(clean)
    assert logits is not None
    assert torch.equal(logits, clean)
    assert model.particles.logits[..., 0].tolist() == [[0, 1, 2], [10, 11, 12], [20, 21, 22]]
    assert model.compute_logits(clean) is not None  # prompt log-probabilities ask again
    assert model.particles.logits.shape[0] == num_samples


def test_without_particle_rows_the_head_sees_the_clean_rows() -> None:
    model = Model(1, torch.empty(0, 1))
    logits = model.compute_logits(torch.ones(2, 1))
    assert logits is not None
    assert torch.equal(logits, torch.ones(2, 1))
    assert model.particles.logits.shape == (1, 2, 1)


def test_an_asynchronous_output_waits_for_its_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-ins record the order of what is put on streams; only `get_output` may wait."""
    order: list[str] = []

    class Event:
        def __init__(self, blocking: bool) -> None:
            assert blocking

        def record(self) -> None:
            order.append("record")

        def synchronize(self) -> None:
            order.append("wait on the host")

    @contextmanager
    def on_stream(stream: Any) -> Iterator[None]:
        order.append("enter")
        yield
        order.append("leave")

    class Inner(AsyncModelRunnerOutput):
        def get_output(self) -> ModelRunnerOutput:
            return ModelRunnerOutput(req_ids=["a", "b"], req_id_to_index={"a": 0, "b": 1})

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "stream", on_stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: "main")
    copies = SimpleNamespace(wait_stream=lambda other: order.append(f"wait for {other}"))
    statistics = torch.rand(2, len(FIELDS))
    output = worker.AsyncUncertaintyOutput(Inner(), statistics, copies)
    assert order == ["enter", "wait for main", "record", "leave"]
    masks = output.get_output().sampling_masks
    assert order[-1] == "wait on the host"
    np.testing.assert_array_equal(masks.token_ids.reshape(2, -1), statistics.numpy())
    assert masks.offsets.tolist() == [0, len(FIELDS), 2 * len(FIELDS)]


@pytest.mark.parametrize("is_async", [False, True])
def test_the_scheduler_is_the_stock_one_with_the_lane_on(is_async: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((scheduler, "Scheduler"), (async_scheduler, "AsyncScheduler")):
        monkeypatch.setattr(module, name, type(name, (SimpleNamespace,), {}))
    config = SimpleNamespace(scheduler_config=SimpleNamespace(async_scheduling=is_async))
    made = uncertainty_scheduler(config, block_size=16)
    assert type(made).__bases__[1].__name__ == ("AsyncScheduler" if is_async else "Scheduler")
    assert made.block_size == 16
    assert made.vllm_config is config
    assert made.return_sampling_mask


@pytest.mark.parametrize(("is_cuda", "counts"), [(False, {40}), (True, {1, 2, 16, 40})])
def test_warm_up_meets_every_kind_of_batch(is_cuda: bool, counts: set[int], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[int] = set()

    def statistics(logits: torch.Tensor, token_ids: torch.Tensor) -> None:
        assert logits.shape[:2] == (3, len(token_ids))
        assert token_ids.dtype == torch.int32
        seen.add(len(token_ids))

    runner = worker.UncertaintyRunner.__new__(worker.UncertaintyRunner)
    particles = SimpleNamespace(noisy_samples=2, hidden=None, logits=torch.zeros(3, 40, 7))
    monkeypatch.setattr(runner, "get_model", lambda: SimpleNamespace(particles=particles), raising=False)
    monkeypatch.setattr(GPUModelRunner, "_dummy_sampler_run", lambda self, hidden: hidden)
    monkeypatch.setattr(worker, "token_uncertainty", statistics)
    monkeypatch.setattr(worker, "current_platform", SimpleNamespace(is_cuda=lambda: is_cuda))
    runner._dummy_sampler_run(torch.zeros(40, 5))
    assert seen == counts
    assert particles.hidden.shape == (80, 5)
    assert particles.logits is None


@pytest.mark.parametrize("tags", [None, ["kv_cache", "weights"], ["weights"]])
def test_buffers_are_written_again_after_sleep(tags: list[str] | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Level 2 takes the memory away and gives other contents back, at the same address."""
    asleep = worker.TFBWorker.__new__(worker.TFBWorker)
    asleep.model_runner = worker.UncertaintyRunner.__new__(worker.UncertaintyRunner)
    asleep.model_runner.staged_seeds = (1, 2)
    particles = Particles(NoiseConfig(), 3, 4, torch.device("cpu"))
    monkeypatch.setattr(worker.UncertaintyRunner, "get_model", lambda self: SimpleNamespace(particles=particles))
    monkeypatch.setattr(worker.StockWorker, "wake_up", lambda self, tags=None: None, raising=False)
    address = particles.sites.data_ptr()
    particles.sites.fill_(77)
    asleep.wake_up(["kv_cache"])
    assert asleep.model_runner.staged_seeds == (1, 2)  # the memory is not back yet
    assert (particles.sites == 77).all()
    asleep.wake_up(tags)
    assert asleep.model_runner.staged_seeds == ()
    assert particles.sites.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert particles.sites.data_ptr() == address


def test_a_runner_keeps_what_it_knows_to_itself() -> None:
    """Its state begins as the class's values, which must stay what they are for the next engine of the process."""
    for _ in range(2):
        first, second, third = (SimpleNamespace(sampling_params=SimpleNamespace(seed=None)) for _ in range(3))
        runner = worker.UncertaintyRunner.__new__(worker.UncertaintyRunner)
        runner.model_config, runner.parallel_config = SimpleNamespace(seed=40), SimpleNamespace(data_parallel_index=0)
        runner.requests, runner.input_batch = {"a": first, "b": second}, SimpleNamespace(req_ids=["b", "a"])
        assert runner._request_seeds() == (41, 40)
        del runner.requests["a"]
        runner.requests["c"], runner.input_batch.req_ids = third, ["c", "b"]
        assert runner._request_seeds() == (42, 41)
    assert worker.UncertaintyRunner.arrivals == 0


def test_replicas_give_requests_noise_of_their_own() -> None:
    """And the same noise to a request that has a seed."""
    seeds = []
    for replica in range(3):
        runner = worker.UncertaintyRunner.__new__(worker.UncertaintyRunner)
        runner.model_config = SimpleNamespace(seed=2**32 - 1)
        runner.parallel_config = SimpleNamespace(data_parallel_index=replica)
        requests = {name: SimpleNamespace(sampling_params=SimpleNamespace(seed=None)) for name in "abc"}
        requests["b"].sampling_params.seed = 7
        runner.requests, runner.input_batch = requests, SimpleNamespace(req_ids=list("abc"))
        seeds.append(runner._request_seeds())
    assert {second for _, second, _ in seeds} == {7}
    assert len({seed for first, _, third in seeds for seed in (first, third)}) == 6
