"""The scores of sampled responses as they are read back from their files: new ones, older ones, per-token ones."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bayesian_transformer.files import write_json
from bayesian_transformer.grading import Grader
from bayesian_transformer.metrics import Array
from bayesian_transformer.scores import SAMPLED_SCORES, SCORE_BY_NAME, record_arrays, response_scores
from eval.utils.responses import Problem, read_problems
from tests.helpers.eval_results import write_scaling

NAMES = [score.name for score in SAMPLED_SCORES]
NEW_KEYS = {"self_certainty_mean", "confidence_mean", "entropy_mean", "bir_mean"}
OLD_KEYS = ("ce", "dc", "entropy", "bir")


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader(workers=1) as grader:
        yield grader


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of one problem with four responses and their per-token arrays."""
    (path,) = write_scaling(tmp_path, 96, problems=1, n=4, per_token=True).glob("*.json")
    return path


def change(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Apply `edit` to every response of the file."""
    record = json.loads(path.read_text())
    for output in record["outputs"]:
        edit(output)
    write_json(path, record)


def read(path: Path, grader: Grader) -> Array:
    """The scores of the file [score, response]."""
    (item,) = read_problems([path], {}, grader)
    assert isinstance(item, Problem)
    return item.values


def from_tokens(path: Path) -> Array:
    """The scores that the per-token arrays of the file give [score, response]."""
    outputs = json.loads(path.read_text())["outputs"]
    scores = [response_scores(record_arrays(o, o["token_count"]), o["token_count"]) for o in outputs]
    return np.array([[score[name] for score in scores] for name in NAMES])


def drop_new_keys(output: dict[str, Any]) -> None:
    output["scores"] = {key: output["scores"][key] for key in OLD_KEYS}


def test_the_record_holds_every_score_under_the_names_that_it_is_read_by(path: Path, grader: Grader) -> None:
    expected = from_tokens(path)
    change(path, lambda output: [output.pop(name) for name in ("total", "epistemic", "logprob", "confidence")])
    assert read(path, grader) == pytest.approx(expected, rel=1e-12)
    assert np.isfinite(expected).all()


def test_a_file_from_before_the_new_names_has_the_same_scores(path: Path, grader: Grader) -> None:
    before = read(path, grader)
    change(path, drop_new_keys)
    assert (read(path, grader) == before).all()


def test_the_new_name_is_read_first(path: Path, grader: Grader) -> None:
    before = read(path, grader)
    change(path, lambda output: output["scores"].update(ce=7.0, dc=7.0, entropy=7.0, bir=7.0))
    assert (read(path, grader) == before).all()
    change(path, drop_new_keys)
    changed = read(path, grader)
    for row, name in enumerate(NAMES):
        assert (changed[row] == (SCORE_BY_NAME[name].sign * 7.0 if name in NEW_KEYS else before[row])).all()


def test_scores_come_from_per_token_values_if_that_is_all_there_is(path: Path, grader: Grader) -> None:
    before = read(path, grader)
    change(path, lambda output: [output.pop(key) for key in ("scores", "uncertainties", "logprobs")])
    after = read(path, grader)
    assert after == pytest.approx(before, rel=1e-12)
    assert np.isfinite(after).all()


def test_a_score_that_is_not_stored_at_all_has_no_value(path: Path, grader: Grader) -> None:
    change(path, lambda output: [output.pop(key) for key in ("scores", "self_certainty", "entropy")])
    missing = {name for name, values in zip(NAMES, read(path, grader), strict=True) if np.isnan(values).all()}
    assert missing == {"self_certainty_mean", "entropy_mean"}
