"""`tokur calibrate` on stored sampled responses: several answers to each of a few problems."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bayesian_transformer import calibrate
from bayesian_transformer.calibration import Calibrator
from tests.helpers.stored_generations import DATASET, MODEL, ROOT, answer

GREEDY = ROOT / f"{MODEL}_results_vllm_pg" / DATASET / "seed96" / "greedy_unc"


def said(*arguments: object, status: int = 0) -> str:
    result = CliRunner().invoke(calibrate.main, [*map(str, arguments)])
    assert result.exit_code == status, result.output
    return result.output


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stored responses; they were written before records said the temperature, so it is added."""
    copy = tmp_path_factory.mktemp("sampled") / "single_greedy_unc"
    copy.mkdir()
    for path in next((ROOT / "inference_scaling").glob("*/*/*/*/single_greedy_unc")).glob("*.json"):
        (copy / path.name).write_text(json.dumps(json.loads(path.read_text()) | {"temperature": 0.8}))
    return copy


@pytest.fixture(scope="module")
def learned(folder: Path) -> tuple[Path, str]:
    path = folder.parent / "calibrator.json"
    return path, said(folder, "--output", path, "--feature", "ll_mean", "--feature", "length")


def outputs_of(path: Path) -> list[dict[str, Any]]:
    outputs: list[dict[str, Any]] = json.loads(path.read_text())["outputs"]
    return outputs


def test_sampled_responses_have_several_answers_to_a_problem(folder: Path, learned: tuple[Path, str]) -> None:
    files = sorted(folder.glob("*.json"))
    outputs = [(path.stem, json.loads(path.read_text()), output) for path in files for output in outputs_of(path)]
    right = [answer(output["text"]) == record["answer"] for _, record, output in outputs]
    counts = f"{len(outputs)} answers to {len(files)} problems: {sum(right)} right, {len(outputs) - sum(right)} wrong"
    assert learned[1].startswith(counts)
    ll = [output["logprobs"]["nll"] for _, _, output in outputs]
    names = [name for name, _, _ in outputs]
    pairs = [
        (ll[i] > ll[j]) + 0.5 * (ll[i] == ll[j])
        for i in range(len(outputs))
        for j in range(len(outputs))
        if names[i] == names[j] and right[i] and not right[j]
    ]
    assert f", of the mean log-likelihood alone {100 * sum(pairs) / len(pairs):.1f}; difference " in learned[1]


def test_a_file_of_them_gets_a_probability_for_each(folder: Path, learned: tuple[Path, str], tmp_path: Path) -> None:
    path, one = min(folder.glob("*.json")), tmp_path / "one.json"
    said("--apply", learned[0], path, "--output", one)
    with_p, stored = json.loads(one.read_text()), json.loads(path.read_text())
    calibrator = Calibrator.load(learned[0])
    for new, old in zip(with_p.pop("outputs"), stored.pop("outputs"), strict=True):
        table = {"ll_mean": [old["logprobs"]["nll"]], "length": [-old["token_count"]]}
        assert new.pop("p_correct") == pytest.approx(calibrator.predict(table)[0])
        new.pop("accepted")
        assert new == old
    assert with_p == stored


def test_greedy_answers_are_other_answers(folder: Path, learned: tuple[Path, str], tmp_path: Path) -> None:
    other = tmp_path / "greedy_unc"
    shutil.copytree(GREEDY, other)
    settings = other / "settings.json"
    known = json.loads(settings.read_text()) if settings.exists() else {}
    settings.write_text(json.dumps(known | {"temperature": 0.0}))
    (part,) = other.glob("batch_results_*.jsonl")
    line = said("--apply", learned[0], part, "--output", tmp_path / "p.jsonl", status=1)
    assert "the calibrator was fitted on temperature 0.8, not 0.0: fit another one, or add --anyway" in line
    line = said(folder, other, "--output", tmp_path / "c.json", status=1)
    assert "made with temperature 0.0" in line


@pytest.mark.parametrize(
    "change",
    [
        {"logprobs": {"nll": [1]}},
        {"logprobs": {"nll": 10**400}},
        {"logprobs": {"nll": "abc"}},
        {"logprobs": {"nll": "-1"}},
        {"token_count": "7"},
        {"token_count": True},
        {"logprobs": {}, "logprob": [-1, "-1"]},
        {"logprobs": {}, "logprob": "-1"},
        {"logprobs": {}, "logprob": [True]},
    ],
)
def test_only_numbers_are_scores(
    folder: Path, learned: tuple[Path, str], tmp_path: Path, change: dict[str, Any]
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    path = min(broken.glob("*.json"))
    document = json.loads(path.read_text())
    document["outputs"][1].pop("scores", None)
    document["outputs"][1] |= change
    path.write_text(json.dumps(document))
    for arguments in ((broken, "--output", tmp_path / "c"), ("--apply", learned[0], path, "--output", tmp_path / "p")):
        line = said(*arguments, status=1)
        assert line.startswith(f"Error: {path}: a score of a response is not a number (")
        assert line.count("\n") == 1


def test_what_is_wrong_with_a_file_is_one_line(folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    path = min(broken.glob("*.json"))
    document = json.loads(path.read_text())
    for change, why in (
        ({"answer": None}, "no gold answer in the file"),
        ({"outputs": []}, "'outputs' is not a list of at least one response"),
        ({"seed": 1234567}, "made with seed"),
    ):
        path.write_text(json.dumps(document | change))
        line = said(broken, "--output", tmp_path / "c.json", status=1)
        assert line.count("\n") == 1
        assert why in line
