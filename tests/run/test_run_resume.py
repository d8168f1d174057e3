"""What the run scripts take for finished, and whose results they refuse to join."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from bayesian_transformer.checkpoint import weights_digest
from bayesian_transformer.files import write_json
from bayesian_transformer.results import SETTINGS, check_same, read_greedy
from run.utils.locks import one_setting, sole_writer
from tests.helpers.python_process import ROOT
from tests.helpers.run_scripts import (
    PROBLEMS,
    FakeEngine,
    by_id,
    greedy,
    greedy_folder,
    only_line,
    save_model,
    scaling,
    scaling_folder,
    write_rows,
)

Script = Callable[..., Result]
Fake = Callable[..., FakeEngine]
# A process that has a folder, with these settings, until it is ended.
HOLDER = (
    "import json, sys; from pathlib import Path; from run.utils.locks import one_setting\n"
    "with one_setting(Path(sys.argv[1]), json.loads(sys.argv[2]), [], {}): print(flush=True); input()"
)
BOTH = pytest.mark.parametrize("script", [greedy, scaling])


def stored(dataset: Path) -> dict[Path, str]:
    return {path: path.read_text() for path in dataset.parent.joinpath("results").rglob("[!.]*.json*")}


def lines(dataset: Path) -> dict[str, list[str]]:
    """The ids in each greedy part, sorted."""
    return {
        part.name: sorted(json.loads(line)["unique_id"] for line in part.read_text().splitlines())
        for part in greedy_folder(dataset).glob("batch*")
    }


@BOTH
@pytest.mark.parametrize("part", [["--dataset-start", "2"], []])
@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--num-samples", "2"], "num_samples 3, this run has 2"),
        (["--max-tokens", "9"], "max_tokens 2048, this run has 9"),
        (["--bayes-projections", "k_proj,q_proj"], "this run has ['q_proj', 'k_proj']"),
        (["--system-prompt-file", "SYSTEM"], "made with prompt_digest '"),
    ],
)
def test_other_settings_are_refused_for_other_problems_too(
    script: Script, part: list[str], options: list[str], named: str, model: Path, dataset: Path, fake: Fake
) -> None:
    (dataset.parent / "system.txt").write_text("Be brief.")
    options = [str(dataset.parent / "system.txt") if word == "SYSTEM" else word for word in options]
    fake()
    assert script(model, dataset, "--dataset-end", "2").exit_code == 0
    before = stored(dataset)
    error = only_line(script(model, dataset, *part, *options))
    assert "settings.json: made with" in error
    assert named in error
    assert stored(dataset) == before
    assert script(model, dataset, *part).exit_code == 0


def test_another_temperature_is_refused_for_other_problems_too(model: Path, dataset: Path, fake: Fake) -> None:
    fake()
    assert scaling(model, dataset, "--dataset-end", "2").exit_code == 0
    changed = scaling(model, dataset, "--dataset-start", "2", "--temperature", "1.3")
    assert "temperature 0.8, this run has 1.3" in only_line(changed)


@BOTH
def test_weights_that_changed_under_the_same_name_are_refused(
    script: Script, model: Path, dataset: Path, fake: Fake
) -> None:
    fake()
    assert script(model, dataset, "--dataset-end", "2").exit_code == 0
    save_model(model, weight=0.5)
    assert "made with weights_digest '" in only_line(script(model, dataset))
    save_model(model)
    assert script(model, dataset).exit_code == 0


@BOTH
def test_results_that_do_not_say_how_they_were_made_are_refused(
    script: Script, model: Path, dataset: Path, fake: Fake
) -> None:
    fake()
    assert script(model, dataset, "--dataset-end", "2").exit_code == 0
    (settings,) = dataset.parent.joinpath("results").rglob("settings.json")
    content = json.loads(settings.read_text())
    assert content.keys() >= set(SETTINGS) - {"bayes_projections"}  # which is the default
    write_json(settings, {key: value for key, value in content.items() if key != "weights_digest"})
    assert "settings.json: does not say its weights_digest" in only_line(script(model, dataset))
    settings.unlink()
    assert "settings.json: does not say its schema_version" in only_line(script(model, dataset))


@BOTH
def test_projections_are_stored_where_they_are_not_the_default(
    script: Script, model: Path, dataset: Path, fake: Fake
) -> None:
    """Results from before there was a choice are those of the default, and resume."""
    fake()
    default, other = ["--bayes-projections", "v_proj,q_proj"], ["--bayes-projections", "k_proj"]
    assert script(model, dataset, "--dataset-end", "2").exit_code == 0
    assert not any("bayes_projections" in text for text in stored(dataset).values())
    assert script(model, dataset, *default).exit_code == 0
    for path in stored(dataset):
        path.unlink()
    fake()
    assert script(model, dataset, *other, "--dataset-end", "2").exit_code == 0
    (settings,) = dataset.parent.joinpath("results").rglob("settings.json")
    assert json.loads(settings.read_text())["bayes_projections"] == ["k_proj"]
    said = "made with bayes_projections ['k_proj'], this run has ['q_proj', 'v_proj']"
    for options in ([], default):
        assert said in only_line(script(model, dataset, *options))
    assert script(model, dataset, *other).exit_code == 0


@BOTH
def test_a_run_that_answered_nothing_binds_nobody(script: Script, model: Path, dataset: Path, fake: Fake) -> None:
    fake(die_after=0)
    assert script(model, dataset).exit_code != 0
    fake()
    assert script(model, dataset, "--num-samples", "2").exit_code == 0


@BOTH
def test_what_a_kill_left_half_written_is_removed_when_nobody_else_writes(
    script: Script, model: Path, dataset: Path, fake: Fake
) -> None:
    fake()
    assert script(model, dataset, "--dataset-end", "2").exit_code == 0
    folder = {greedy: greedy_folder, scaling: scaling_folder}[script](dataset)
    (settings,) = dataset.parent.joinpath("results").rglob("settings.json")
    left = [settings.with_name(".settings.json.a1_b2c3d.tmp"), folder / ".test_sum_3.json.abcdefgh.tmp"]
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(settings.parent), settings.read_text()], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, cwd=ROOT,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        process.stdout.readline()
        for path in left:
            path.write_text('{"half')
        assert script(model, dataset).exit_code == 0
        assert all(path.exists() for path in left)  # they may be the other's
        process.kill()
    assert script(model, dataset).exit_code == 0
    assert not any(path.exists() for path in left)


def test_finished_problems_are_skipped_however_the_set_is_cut(model: Path, dataset: Path, fake: Fake) -> None:
    fake()
    for start, end in ((0, 2), (2, 4)):
        assert greedy(model, dataset, "--dataset-start", str(start), "--dataset-end", str(end)).exit_code == 0
    part = greedy_folder(dataset) / "batch_results_2_4.jsonl"
    kept = part.read_text().splitlines(keepends=True)[0]
    part.write_text(kept)
    engine = fake()
    for start, end in ((0, 3), (3, 6)):
        result = greedy(model, dataset, "--dataset-start", str(start), "--dataset-end", str(end))
        assert "3 problems have results in" in result.output
    assert sorted(engine.params) == ["test_sum_3", "test_sum_4", "test_sum_5"]
    assert lines(dataset) == {
        "batch_results_0_2.jsonl": ["test/sum/0.json", "test/sum/1.json"],
        "batch_results_2_4.jsonl": ["test/sum/2.json"],
        "batch_results_3_6.jsonl": [f"test/sum/{i}.json" for i in (3, 4, 5)],
    }
    assert set(by_id(read_greedy(greedy_folder(dataset)))) == {f"test_sum_{i}" for i in range(6)}


@pytest.mark.parametrize("cut", [1, 3, 60])
def test_a_part_that_is_being_written_is_read_up_to_its_torn_line(
    cut: int, model: Path, dataset: Path, fake: Fake
) -> None:
    write_rows(dataset, [*PROBLEMS[:5], PROBLEMS[5] | {"answer": "zehn é"}])
    fake()
    assert greedy(model, dataset, "--dataset-start", "4").exit_code == 0
    part = greedy_folder(dataset) / "batch_results_4_6.jsonl"
    text = part.read_bytes()
    torn = text[: text.index("é".encode()) + 2 - cut]  # a cut of 1 leaves half of the character
    part.write_bytes(torn)
    engine = fake()
    assert greedy(model, dataset).exit_code == 0
    assert "test_sum_4" not in engine.params
    assert "test_sum_5" in engine.params
    assert part.read_bytes() == torn  # it is another's file
    assert len(read_greedy(greedy_folder(dataset))) == 6


def test_prompt_and_answer_of_every_part_are_compared(model: Path, dataset: Path, fake: Fake) -> None:
    fake()
    assert greedy(model, dataset, "--dataset-end", "2").exit_code == 0
    write_rows(dataset, [PROBLEMS[0], PROBLEMS[1] | {"answer": "3"}, *PROBLEMS[2:]])
    assert "batch_results_0_2.jsonl: test_sum_1: made with answer '2'" in only_line(greedy(model, dataset))


@pytest.mark.parametrize(("outputs", "held"), [(None, 0), (7, 0), ({"a": 1}, 0), ([{}, {}], 2)])
def test_a_file_with_another_number_of_responses_is_named(
    outputs: object, held: int, model: Path, dataset: Path, fake: Fake
) -> None:
    fake()
    assert scaling(model, dataset).exit_code == 0
    path = scaling_folder(dataset) / "test_sum_1.json"
    write_json(path, json.loads(path.read_text()) | {"outputs": outputs})
    assert f"test_sum_1.json: holds {held} responses, not 4; move it away" in only_line(scaling(model, dataset))


def test_the_settings_lie_outside_the_folder_whose_files_are_evaluated(model: Path, dataset: Path, fake: Fake) -> None:
    fake()
    assert scaling(model, dataset, "--dataset-end", "1").exit_code == 0
    assert [path.name for path in scaling_folder(dataset).iterdir()] == ["test_sum_0.json"]
    assert (scaling_folder(dataset).parent / "settings.json").exists()


def test_settings_are_kept_while_another_process_runs_with_them(tmp_path: Path) -> None:
    """Also before it has written its first result."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path), '{"a": 1}'], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        cwd=ROOT,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        process.stdout.readline()
        with one_setting(tmp_path, {"a": 1}, [], {"note": 5}):
            pass
        with pytest.raises(ValueError, match="a 1, this run has 2"), one_setting(tmp_path, {"a": 2}, [], {}):
            pass
        process.kill()
    with one_setting(tmp_path, {"a": 2}, [], {"note": 6}):
        assert json.loads((tmp_path / "settings.json").read_text()) == {"a": 2, "note": 6}


def test_check_same_names_the_first_difference() -> None:
    check_same("f", {"a": 1, "b": 2}, {"a": 1})
    with pytest.raises(ValueError, match="f: made with b 2, this run has 3"):
        check_same("f", {"a": 1, "b": 2}, {"a": 1, "b": 3})
    with pytest.raises(ValueError, match="f: does not say its c, this run has None"):
        check_same("f", {"a": 1}, {"c": None})


def test_sole_writer_releases(tmp_path: Path) -> None:
    for _ in range(2):
        with sole_writer(tmp_path / "new" / "f.jsonl"):
            assert not (tmp_path / "new" / "f.jsonl").exists()


def test_the_digest_follows_the_weights_and_not_the_files(
    tiny_llama_path: Path, tiny_llama_sharded_path: Path, tiny_qwen2_path: Path, tmp_path: Path
) -> None:
    digest = weights_digest(tiny_llama_path)
    assert digest == weights_digest(tiny_llama_sharded_path) != weights_digest(tiny_qwen2_path)
    shutil.copytree(tiny_llama_path, tmp_path / "copy")
    assert weights_digest(tmp_path / "copy") == digest
    assert weights_digest(save_model(tmp_path / "a")) != weights_digest(save_model(tmp_path / "b", weight=1e-3))
