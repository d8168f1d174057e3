"""Many short requests to a real engine: every number is checked, and nothing of a request is left behind.

    python -m tests.soak engine --requests 2000

The engine is vLLM's, in this process, so that its state can be counted. It has few cache blocks, which preempts. The
requests have random prompts, sampling options, stops, seeds and children, and some are aborted at a random moment.
Every completion, those of aborted requests too, is compared with scoring of the same text in transformers.
"""

import gc
import json
import os
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np
import psutil
import torch
from transformers import AutoModelForCausalLM

from bayesian_transformer.doctor.comparisons.tiny_model import LENGTH, VOCABULARY, write_tiny_model
from bayesian_transformer.noise import noise_key
from bayesian_transformer.scoring import score_batch
from tests.helpers.vllm_engines import engine, table, token_prompts
from tests.helpers.word_tokenizer import word_tokenizer

NOISE = {"num_samples": 4, "bayes_sigma": 0.3}
IN_FLIGHT, BLOCKS = 24, 14  # requests at a time, and cache blocks of 32 tokens, which are too few for them
RTOL, ATOL = 1e-3, 2e-5
SCORED = 16  # responses compared at a time
EXTREME_SEEDS = (0, -1, 2**63 - 1, -(2**63), 2**31)


@contextmanager
def soaked_engine() -> Iterator[tuple[Any, Any]]:
    """A vllm.LLM on a tiny random model, and the same model in transformers."""
    with tempfile.TemporaryDirectory() as folder, _environment(VLLM_DISABLE_REQUEST_ID_RANDOMIZATION="1"):
        path = write_tiny_model(Path(folder), torch.float32)
        word_tokenizer(VOCABULARY).save_pretrained(path)
        options: dict[str, Any] = {
            "max_model_len": LENGTH,
            "max_num_seqs": 8,
            "block_size": 32,
            "num_gpu_blocks_override": BLOCKS,
        }
        with engine(path, in_process=True, hf_overrides=NOISE, disable_log_stats=False, **options) as llm:
            yield llm, AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, **NOISE).eval()


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


class Soak:
    """Requests in flight, what the worker says of their noise seeds, and the completions that wait for a check."""

    def __init__(self, llm: Any, model: Any, seed: int) -> None:
        self.engine, self.model, self.random = llm.llm_engine, model, random.Random(seed)
        self.seed, self.sent = seed, 0
        self.prompts: dict[str, list[int]] = {}
        self.parameters: dict[str, Any] = {}
        self.pieces: dict[str, dict[int, list[Any]]] = {}  # completions by request and child
        self.noise_seeds: dict[str, int] = {}  # by the request's id in the worker
        self.aborted: set[str] = set()
        self.waiting: list[tuple[list[int], list[int], int, np.ndarray, str]] = []
        self.figures: Counter[str] = Counter()

    @property
    def runner(self) -> Any:
        return self.engine.model_executor.driver_worker.worker.model_runner

    def send(self) -> None:
        name, draw = f"r{self.sent}", self.random
        self.sent += 1
        self.prompts[name] = [draw.randrange(3, VOCABULARY) for _ in range(draw.randint(1, 70))]
        self.parameters[name], self.pieces[name] = random_parameters(draw), {}
        self.engine.add_request(name, token_prompts([self.prompts[name]])[0], self.parameters[name])

    def step(self) -> None:
        """One step of the engine; now and then a request is aborted before it."""
        if self.prompts and self.random.random() < 0.03:
            name = self.random.choice(list(self.prompts))
            self.engine.abort_request([name])
            self.figures["aborted"] += 1
            self.aborted.add(name)
            self.finish(name)
        outputs = self.engine.step()
        self.noise_seeds |= {name: request.noise_seed for name, request in self.runner.requests.items()}
        for output in outputs:
            if output.request_id not in self.prompts:
                continue
            for completion in output.outputs:
                self.pieces[output.request_id].setdefault(completion.index, []).append(completion)
            if output.finished:
                self.figures["completed"] += 1
                self.finish(output.request_id)

    def finish(self, name: str) -> None:
        """Note the completions of a request for the comparison."""
        prompt, parameters = self.prompts.pop(name), self.parameters.pop(name)
        is_delta = parameters.output_kind.name == "DELTA"
        for index, pieces in self.pieces.pop(name).items():
            parts = pieces if is_delta else pieces[-1:]
            tokens = [token for piece in parts for token in piece.token_ids]
            seed = self.noise_seeds.pop(f"{index}_{name}" if parameters.n > 1 else name)
            where = f"--seed {self.seed}, request {name}, child {index}: {parameters}"
            assert parameters.seed is None or seed == noise_key(parameters.seed + index), where
            if tokens:
                self.waiting.append((prompt, tokens, seed, np.concatenate([table(piece) for piece in parts]), where))

    def compare(self, at_least: int = SCORED) -> None:
        """Score what waits and compare all eight quantities."""
        while len(self.waiting) >= at_least and self.waiting:
            batch, self.waiting = self.waiting[:SCORED], self.waiting[SCORED:]
            width = max(len(prompt) + len(tokens) for prompt, tokens, *_ in batch)
            ids = torch.zeros(len(batch), width, dtype=torch.int64)
            valid, wanted = torch.zeros_like(ids), torch.zeros_like(ids, dtype=torch.bool)
            for row, (prompt, tokens, *_) in enumerate(batch):
                end = len(prompt) + len(tokens)
                ids[row, :end], valid[row, :end] = torch.tensor(prompt + tokens), 1
                wanted[row, len(prompt) : end] = True
            scored = score_batch(self.model, ids, valid, wanted, [seed for _, _, seed, _, _ in batch])
            for row, (_, tokens, _, numbers, where) in enumerate(batch):
                expected = scored[row][wanted[row]].numpy()
                np.testing.assert_allclose(numbers, expected, rtol=RTOL, atol=ATOL, err_msg=where)
                self.figures["responses compared"] += 1
                self.figures["tokens compared"] += len(tokens)

    def drain(self) -> None:
        """Finish what is in flight, and one more request, as vLLM clears a request away in the step after its end."""
        while self.engine.has_unfinished_requests():
            self.step()
        self.send()
        while self.engine.has_unfinished_requests():
            self.step()
        self.engine.step()

    def left(self) -> dict[str, int]:
        """What is still kept of requests: in the front end, the scheduler, the worker, and as objects anywhere."""
        front, scheduler = self.engine.output_processor, self.engine.engine_core.engine_core.scheduler
        # vLLM 0.32 itself keeps the parent of several children that is aborted by its own name.
        self.figures["parents that vLLM keeps of aborted requests"] = len(front.parent_requests.keys() & self.aborted)
        for name in self.aborted:
            front.parent_requests.pop(name, None)
        gc.collect()
        kinds = Counter(type(thing).__name__ for thing in gc.get_objects())
        return {
            "front end": len(front.request_states) + len(front.parent_requests) + len(front.external_req_ids),
            "scheduler": len(scheduler.requests) + len(scheduler.running) + len(scheduler.waiting),
            "blocks": BLOCKS - 1 - scheduler.kv_cache_manager.block_pool.get_num_free_blocks(),  # one is the null block
            "worker": len(self.runner.requests) + len(self.runner.input_batch.req_id_to_index),
            "objects": sum(kinds[kind] for kind in ("Request", "RequestState", "CachedRequestState", "ParentRequest")),
            "tensors": sum(value is not None for value in (self.runner.statistics, *self._of_particles())),
        }

    def _of_particles(self) -> tuple[Any, Any]:
        particles = self.runner.get_model().particles
        return particles.hidden, particles.logits


def random_parameters(draw: random.Random) -> Any:
    """Sampling options of all kinds that change which tokens come, or how they are handed out."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    seed = draw.choice([None, *EXTREME_SEEDS, *(draw.randrange(-(2**63), 2**63) for _ in range(30))])
    options: dict[str, Any] = {
        "seed": seed,
        "temperature": draw.choice([0.0, 0.7, 1.0, 1.5]),
        "max_tokens": draw.randint(1, 24),
        "output_kind": draw.choice(list(RequestOutputKind)),
        "ignore_eos": draw.random() < 0.5,
        "detokenize": True,
    }
    words = [f"word{draw.randrange(VOCABULARY)}" for _ in range(3)]
    tokens = [draw.randrange(3, VOCABULARY) for _ in range(40)]
    extras: list[dict[str, Any]] = [
        {"top_k": draw.randint(1, 50)}, {"top_p": draw.uniform(0.1, 1.0)}, {"min_p": draw.uniform(0.0, 0.5)},
        {"repetition_penalty": draw.uniform(0.8, 1.5)}, {"presence_penalty": draw.uniform(-1, 1)},
        {"frequency_penalty": draw.uniform(-1, 1)}, {"logit_bias": {tokens[0]: 5.0, tokens[1]: -100.0}},
        {"min_tokens": options["max_tokens"] // 2}, {"stop": [str(draw.randrange(10)), *words]},
        {"stop": [words[0]], "include_stop_str_in_output": True}, {"stop_token_ids": tokens}, {"logprobs": 2},
        {"prompt_logprobs": 1}, {"allowed_token_ids": tokens}, {"bad_words": words}, {"detokenize": False},
    ]  # fmt: skip
    for extra in draw.sample(extras, draw.randint(0, 3)):
        options |= extra
    if not options["detokenize"]:
        options.pop("stop", None)
    if options["temperature"] > 0:
        options["n"] = draw.choice([1, 1, 1, 2, 3])
    if seed is not None and options.get("n", 1) > 1:
        options["seed"] = min(seed, 2**63 - 4)  # the children's count on from it
    return SamplingParams(**options)


def run(requests: int, seed: int = 0) -> dict[str, int | float]:
    """Answer and check `requests` requests; AssertionError names the request whose numbers differ."""
    with soaked_engine() as (llm, model):
        soak = Soak(llm, model, seed)
        memory: list[float] = []
        while soak.sent < requests:
            while len(soak.prompts) < IN_FLIGHT and soak.sent < requests:
                soak.send()
            soak.step()
            soak.compare()
            if soak.sent * 2 // requests > len(memory):
                gc.collect()
                memory.append(psutil.Process().memory_info().rss / 2**20)
        soak.drain()
        soak.compare(at_least=1)
        left = soak.left()
        assert not any(left.values()), f"--seed {seed}: left of requests that are over: {left}"
        preempted = next(m.value for m in llm.get_metrics() if m.name == "vllm:num_preemptions")
        figures = dict(soak.figures) | {"requests": soak.sent, "preemptions": int(preempted)}
        return figures | {"MB grown in the second half": round(memory[-1] - memory[0], 1)}


@click.command(help="Random requests to a real engine, all checked against scoring.")
@click.option("--requests", default=2000, show_default=True)
@click.option("--seed", default=0, show_default=True)
def command(requests: int, seed: int) -> None:
    start = time.monotonic()
    click.echo(json.dumps(run(requests, seed) | {"seconds": round(time.monotonic() - start)}))
