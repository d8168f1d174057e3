"""What the tests of the run scripts share: a data set, a fake engine, calls of the scripts, their output."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import save_file

from bayesian_transformer import Uncertainty
from bayesian_transformer.problems import question_id
from run import greedy_responses_unc, greedy_unc_single_batch_refine
from tests.helpers.prompt_models import save_model_without_weights

PROBLEMS = [
    {"unique_id": f"test/sum/{i}.json", "problem": f"What is {i} + {i}?", "answer": str(2 * i)} for i in range(6)
]


def save_model(folder: Path, weight: float = 0.0) -> Path:
    """A TFB model for the fake engine: two tensors, one of them a basis, are all of its weights."""
    save_model_without_weights(folder, "llama")
    tensors = {"model.layers.0.self_attn.q_proj.basis_vectors": torch.ones(4, 2), "lm_head.weight": torch.ones(8, 4)}
    tensors["lm_head.weight"][1, 2] = weight
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


class FakeEngine:
    """Stands in for vllm's LLM and its engine: a response of 1 to 4 tokens whose numbers follow from the seed.

    After `die_after` responses it raises `death`.
    """

    def __init__(
        self, prompt_limit: int = 10_000, die_after: int = 10_000, death: type[BaseException] = KeyboardInterrupt
    ) -> None:
        self.llm_engine = self.engine_core = self
        self.ended = False
        self.prompt_limit, self.die_after, self.death = prompt_limit, die_after, death
        self.requests: dict[str, Any] = {}
        self.params: dict[str, Any] = {}
        self.most_in_flight = 0

    def add_request(self, request_id: str, prompt: dict[str, Any], params: Any) -> None:
        if len(prompt["prompt_token_ids"]) > self.prompt_limit:
            from vllm.exceptions import VLLMValidationError  # no ValueError

            raise VLLMValidationError("The prompt is longer than the maximum model length")
        length = params.seed % 4 + 1
        rows = [[(params.seed + t) % 97 / 97] * 8 for t in range(length)]
        tokens = [{t: Uncertainty(*row)} for t, row in enumerate(rows)]
        outputs = [
            SimpleNamespace(text=f"{i}", token_ids=range(length), finish_reason="stop", uncertainties=tokens)
            for i in range(params.n)
        ]
        output = SimpleNamespace(request_id=request_id, outputs=outputs, finished=False)
        self.requests[request_id] = SimpleNamespace(left=length, output=output)
        self.params[request_id] = params
        self.most_in_flight = max(self.most_in_flight, len(self.requests))

    def step(self) -> list[Any]:
        for request in self.requests.values():
            request.left -= 1
            request.output.finished = request.left <= 0
        done = [name for name, request in self.requests.items() if request.output.finished]
        self.die_after -= len(done)
        if self.die_after < 0:
            raise self.death
        return [self.requests.pop(name).output for name in done]

    def shutdown(self) -> None:
        self.ended = True


def install_fake(monkeypatch: pytest.MonkeyPatch, **options: Any) -> FakeEngine:
    """Let the run scripts start a FakeEngine with these options."""
    engine = FakeEngine(**options)
    monkeypatch.setattr("run.utils.run.start_engine", lambda *args: engine)
    return engine


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_sums(folder: Path) -> Path:
    """The data set sums, of PROBLEMS."""
    return write_rows(folder / "sums.jsonl", PROBLEMS)


def greedy(model: Path, dataset: Path, *options: str) -> Result:
    arguments = ["--model-path", str(model), "--dataset-path", str(dataset)]
    arguments += ["--output-dir", str(dataset.parent / "results"), *options]
    return CliRunner().invoke(greedy_unc_single_batch_refine.main, arguments)


def scaling(model: Path, dataset: Path, *options: str) -> Result:
    arguments = ["--model-path", str(model), "--dataset-path", str(dataset), "--n-particles", "4"]
    arguments += ["--output-dir", str(dataset.parent / "results"), *options]
    return CliRunner().invoke(greedy_responses_unc.main, arguments)


def greedy_folder(dataset: Path) -> Path:
    return dataset.parent / "results/TFB-tiny_results_vllm_pg/sums/seed96/greedy_unc"


def scaling_folder(dataset: Path) -> Path:
    return dataset.parent / "results/inference_scaling/TFB-tiny_results_vllm_pg/sums/seed96/p4/single_greedy_unc"


def by_id(records: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {question_id(record): record for record in records}


def only_line(result: Result) -> str:
    """The error of a refused run, which must be one line and no traceback."""
    assert result.exit_code != 0
    assert isinstance(result.exception, SystemExit)
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1
    return errors[0]
