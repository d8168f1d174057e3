"""Problems without a result: each is named, the others go on, and the exit status is not 0."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from bayesian_transformer.results import read_greedy
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


@pytest.mark.parametrize("script", [greedy, scaling])
def test_failed_problems_are_named_and_the_others_go_on(
    script: Callable[..., Result], model: Path, dataset: Path, fake: Callable[..., FakeEngine]
) -> None:
    bad = [
        {"unique_id": "empty", "problem": "  ", "answer": "1"},
        {"unique_id": "unanswered", "problem": "What?"},
        {"unique_id": "half", "problem": "half a pair \ud800", "answer": "1"},
        {"unique_id": "long", "problem": "x" * 2000, "answer": "1"},
        {"problem": "no id", "answer": "1"},
    ]
    write_rows(dataset, [*bad, *PROBLEMS, PROBLEMS[0]])
    fake(prompt_limit=1500)
    result = script(model, dataset)
    assert "5 problems have no result: empty, unanswered, half, problem 4, long" in only_line(result)
    assert "long: The prompt is longer than" in result.stderr
    assert "6 problems have results in" in result.stdout
    assert "5 problems have no result" in only_line(script(model, dataset))  # again, they are still not there


def test_a_request_that_vllm_gives_up_is_a_failure(
    model: Path, dataset: Path, fake: Callable[..., FakeEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = fake()
    step = engine.step

    def aborting_step() -> list[Any]:
        outputs = step()
        for output in outputs:
            if output.request_id == "test_sum_2":
                output.outputs[0].finish_reason = "abort"
        return outputs

    monkeypatch.setattr(engine, "step", aborting_step)
    result = greedy(model, dataset)
    assert "1 problems have no result: test_sum_2" in only_line(result)
    assert "test_sum_2" not in by_id(read_greedy(greedy_folder(dataset)))


@pytest.mark.parametrize("script", [greedy, scaling])
def test_an_engine_that_dies_leaves_named_problems_and_a_run_that_goes_on(
    script: Callable[..., Result], model: Path, dataset: Path, fake: Callable[..., FakeEngine]
) -> None:
    from vllm.v1.engine.exceptions import EngineDeadError

    fake(die_after=3, death=EngineDeadError)
    error = only_line(script(model, dataset, "--batch-size", "1"))
    assert "vLLM's engine died (EngineCore encountered an issue." in error
    left = set(error.partition("problems left: ")[2].split(", "))
    engine = fake()
    assert script(model, dataset).exit_code == 0
    assert set(engine.params) == left < {f"test_sum_{i}" for i in range(6)}


def test_an_id_that_cannot_be_a_file_name_is_a_failure(
    model: Path, dataset: Path, fake: Callable[..., FakeEngine]
) -> None:
    longest = "é" * 118
    names = [longest, longest + "x", "n" * 4000, "nul\0"]
    write_rows(dataset, [PROBLEMS[0] | {"unique_id": name} for name in names])
    fake()
    result = scaling(model, dataset)
    assert f"3 problems have no result: {longest}x, nnn" in only_line(result)
    assert "1 problems have results in" in result.stdout
    assert [path.stem for path in scaling_folder(dataset).iterdir()] == [longest]


def test_a_question_that_the_chat_template_refuses_is_a_failure(
    model: Path, dataset: Path, fake: Callable[..., FakeEngine]
) -> None:
    template = model / "chat_template.jinja"
    template.write_text("{% if '3' in messages[-1].content %}{{ raise_exception('no threes') }}{% endif %}ok")
    fake()
    result = greedy(model, dataset)
    assert "1 problems have no result: test_sum_3" in only_line(result)
    assert "test_sum_3: the model's chat template refuses the messages: no threes" in result.stderr


def test_a_template_that_refuses_everything_is_said_once(model: Path, dataset: Path) -> None:
    (model / "chat_template.jinja").write_text("{{ raise_exception('System role not supported') }}")
    result = greedy(model, dataset)
    assert "chat template refuses the messages: System role not supported" in only_line(result)
    assert result.stderr.count("System role") == 1
