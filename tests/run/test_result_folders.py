"""Which folder a run writes to, whether it is given whole or as a root, and under which names results are found."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bayesian_transformer.results import (
    SETTINGS_FILE,
    folder_to_write,
    folders_to_read,
    greedy_dir,
    greedy_part,
    read_greedy,
    scaling_dir,
)
from eval import eval_detect_multi_seed, eval_scaling_test_multi_gpu
from tests.helpers.eval_results import DATASET, MODEL, write_greedy, write_scaling
from tests.helpers.run_scripts import FakeEngine, greedy, only_line, scaling

LONG = "TFB-Llama3.2-1B-Instruct"
WHOLE = "llama1b_results_vllm_pg/{dataset}/seed{seed}/{name}"
GREEDY_FOLDER = WHOLE.format(dataset="sums", seed=96, name="greedy_unc")
SCALING_FOLDER = "inference_scaling/" + WHOLE.format(dataset="sums", seed=96, name="p4/single_greedy_unc")
BOTH = pytest.mark.parametrize(("script", "end"), [(greedy, GREEDY_FOLDER), (scaling, SCALING_FOLDER)])
Script = Callable[..., Result]
Fake = Callable[..., FakeEngine]


def files(root: Path) -> set[str]:
    """Paths below `root`, but for locks."""
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and path.name[0] != "."}


@pytest.mark.parametrize("name", ["greedy_unc", "temp0_unc", "p4"])
@pytest.mark.parametrize("before", ["", "results/", "./results/", "../results/", "/far/away/"])
@pytest.mark.parametrize("after", ["", "/", "/.", "/x/.."])
def test_an_output_dir_that_ends_like_a_folder_of_results_is_that_folder(before: str, after: str, name: str) -> None:
    given = before + WHOLE.format(dataset="math500", seed=96, name=name) + after
    expected = Path(os.path.normpath(Path.cwd() / given))
    assert folder_to_write(Path(given), LONG, "math500", 96) == expected


def test_a_folder_of_results_that_one_stands_in_is_that_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / GREEDY_FOLDER
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    assert folder_to_write(Path(), LONG, "sums", 96) == folder
    assert folder_to_write(Path("../other"), LONG, "sums", 96) == folder.with_name("other")
    assert folder_to_write(Path("results"), LONG, "sums", 96) == greedy_dir(Path("results"), LONG, "sums", 96)


@pytest.mark.parametrize(
    "given",
    [
        "results",
        "llama1b_results_vllm_pg",
        "llama1b_results_vllm_pg/math500/seed96",
        "llama1b_results_vllm_pg/math500/seed96/greedy_unc/deeper/still",
        "llama1b_results/math500/seed96/greedy_unc",
        "_results_vllm_pg/math500/seed96/greedy_unc",
        "llama1b_results_vllm_pg/math500/seed_96/greedy_unc",
        "llama1b_results_vllm_pg/math500/deep/seed96/greedy_unc",
    ],
)
def test_any_other_output_dir_is_a_root(given: str) -> None:
    root = Path(given)
    assert folder_to_write(root, "M", "math500", 96) == greedy_dir(root, "M", "math500", 96)
    assert folder_to_write(root, "M", "math500", 96, 8) == scaling_dir(root, "M", "math500", 96, 8)


@pytest.mark.parametrize("given", ["gsm8k", "gsm8k_test"])
def test_long_and_short_names_of_a_data_set_are_one(given: str) -> None:
    folder = Path("/r") / WHOLE.format(dataset=given, seed=7, name="p8/single_greedy_unc")
    assert folder_to_write(folder, LONG, "gsm8k_test", 7, 8) == folder


@BOTH
def test_a_run_into_a_folder_given_whole_resumes_and_keeps_to_its_settings(
    script: Script, end: str, model: Path, dataset: Path, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same files as below a root, and nothing else; found again however the folder is written."""
    monkeypatch.chdir(dataset.parent)
    fake()
    assert script(model, dataset, "--dataset-end", "2", "--output-dir", f"./out/{end}/").exit_code == 0
    assert script(model, dataset, "--dataset-end", "2", "--output-dir", "root").exit_code == 0
    below_root = {name.replace("TFB-tiny_", "llama1b_") for name in files(dataset.parent / "root")}
    assert files(dataset.parent / "out") == below_root
    assert {str(Path(name).parent) for name in below_root if not name.endswith(SETTINGS_FILE)} == {end}

    whole = str(dataset.parent / "out" / end)
    assert "num_samples 3, this run has 2" in only_line(
        script(model, dataset, "--output-dir", whole, "--num-samples", "2")
    )
    engine = fake()
    assert script(model, dataset, "--output-dir", whole).exit_code == 0
    assert sorted(engine.params) == [f"test_sum_{i}" for i in range(2, 6)]


@BOTH
@pytest.mark.parametrize(
    ("old", "new", "found", "wanted"),
    [
        ("seed96", "seed89", "seed 89", "seed 96"),
        ("/sums/", "/gsm8k/", "data set gsm8k_test", "data set sums"),
    ],
)
def test_a_folder_of_another_run_is_refused_in_one_line(
    script: Script, end: str, old: str, new: str, found: str, wanted: str, model: Path, dataset: Path
) -> None:
    output = str(dataset.parent / "out" / end.replace(old, new))
    error = only_line(script(model, dataset, "--output-dir", output))
    assert f"--output-dir {output}: is a folder for {found}, this run is for {wanted}; give the folder of" in error
    assert not (dataset.parent / "out").exists()


@pytest.mark.parametrize(
    ("script", "end", "found", "wanted"),
    [
        (scaling, SCALING_FOLDER.replace("p4", "p512"), "512 responses per problem", "4 responses per problem"),
        (scaling, GREEDY_FOLDER, "greedy answers", "4 responses per problem"),
        (greedy, SCALING_FOLDER, "4 responses per problem", "greedy answers"),
    ],
)
def test_a_folder_for_another_number_of_responses_is_refused(
    script: Script, end: str, found: str, wanted: str, model: Path, dataset: Path
) -> None:
    error = only_line(script(model, dataset, "--output-dir", str(dataset.parent / "out" / end)))
    assert f"is a folder for {found}, this run is for {wanted}" in error


def test_folders_beside_each_other_share_the_settings_above_them(model: Path, dataset: Path, fake: Fake) -> None:
    fake()
    first = dataset.parent / "out" / SCALING_FOLDER
    assert scaling(model, dataset, "--output-dir", str(first)).exit_code == 0
    second = str(first.with_name("other"))
    assert "made with num_samples 3" in only_line(scaling(model, dataset, "--output-dir", second, "--num-samples", "2"))
    assert scaling(model, dataset, "--output-dir", second).exit_code == 0


def rename(root: Path, model: str, dataset: str = DATASET) -> None:
    """Give what is stored for MODEL and DATASET below `root` other names."""
    folder = root / f"{MODEL}_results_vllm_pg"
    (folder / DATASET).rename(folder / dataset)
    folder.rename(root / f"{model}_results_vllm_pg")


def detection(root: Path, model: str, dataset: str, *seeds: int, subdir: str = "greedy_unc") -> Result:
    arguments = ["--dataset", dataset, "--model", model, "--results_subdir", subdir, "--seeds", *map(str, seeds)]
    arguments += ["--results-dir", str(root), "--bootstrap", "20", "--workers", "1"]
    return CliRunner().invoke(eval_detect_multi_seed.main, arguments)


def vote(root: Path, model: str, dataset: str) -> Result:
    arguments = ["--dataset", dataset, "--model", model, "--n-particles", "4", "--workers", "1"]
    return CliRunner().invoke(eval_scaling_test_multi_gpu.main, [*arguments, "--results-dir", str(root)])


@pytest.mark.parametrize("asked", ["llama1b", LONG, f"models/{LONG}"])
@pytest.mark.parametrize("stored", ["llama1b", LONG])
@pytest.mark.parametrize(("asked_set", "stored_set"), [("gsm8k", "gsm8k_test"), ("leg-counting", "leg_counting")])
def test_results_are_found_under_the_long_and_the_short_names(
    asked: str, stored: str, asked_set: str, stored_set: str, tmp_path: Path
) -> None:
    write_greedy(tmp_path, 96, problems=20)
    write_scaling(tmp_path, 96, 3, 4)
    rename(tmp_path, stored, stored_set)
    rename(tmp_path / "inference_scaling", stored, stored_set)
    for result in (detection(tmp_path, asked, asked_set, 96), vote(tmp_path, asked, asked_set)):
        assert result.exit_code == 0, result.output
    long_set = {"gsm8k": "gsm8k_test"}.get(asked_set, asked_set)
    names = sorted(path.name for path in (tmp_path / "eval").iterdir())
    assert len([name for name in names if name.startswith(f"{LONG}_{long_set}_")]) == len(names) == 4


@pytest.mark.parametrize("seeds", [(96, 96), (96, 89)])
@pytest.mark.parametrize("second", [("llama1b", DATASET), (LONG, "leg_counting")])
def test_results_under_two_names_are_an_error_that_names_them(
    second: tuple[str, str], seeds: tuple[int, int], tmp_path: Path
) -> None:
    """Also if each of them has other seeds: they may be two experiments."""
    dataset = "leg-counting" if second[0] == LONG else DATASET
    places = [(LONG, dataset, seeds[0]), (*second, seeds[1])]
    for model, name, seed in places:
        part = greedy_part(greedy_dir(tmp_path, model, name, seed), 0, 20)
        part.parent.mkdir(parents=True)
        write_greedy(tmp_path, seed, problems=20).rename(part)
    result = detection(tmp_path, "llama1b", dataset, *set(seeds))
    error = only_line(result)
    for model, name, seed in places:
        assert str(greedy_dir(tmp_path, model, name, seed)) in error
    assert not (tmp_path / "eval").exists()
    if seeds[0] != seeds[1]:
        assert detection(tmp_path, "llama1b", dataset, seeds[0]).exit_code == 0


def test_sampled_responses_under_two_names_are_an_error_that_names_them(tmp_path: Path) -> None:
    for model in ("llama1b", LONG):
        folder = scaling_dir(tmp_path, model, DATASET, 96, 4)
        folder.parent.mkdir(parents=True)
        write_scaling(tmp_path, 96, 3, 4).rename(folder)
    error = only_line(vote(tmp_path, LONG, DATASET))
    assert all(str(scaling_dir(tmp_path, model, DATASET, 96, 4)) in error for model in ("llama1b", LONG))


def test_a_link_from_one_name_to_the_other_is_no_second_place(tmp_path: Path) -> None:
    write_greedy(tmp_path, 96, problems=20)
    rename(tmp_path, LONG)
    (tmp_path / "llama1b_results_vllm_pg").symlink_to(f"{LONG}_results_vllm_pg")
    assert detection(tmp_path, "llama1b", DATASET, 96).exit_code == 0


def test_without_results_the_names_are_those_that_exist(tmp_path: Path) -> None:
    """So that an error names the place where a seed, a folder or a number of responses is missing."""
    standard = folders_to_read(tmp_path, LONG, DATASET, [96])
    assert standard == {96: greedy_dir(tmp_path, LONG, DATASET, 96)}
    scaling_dir(tmp_path, "llama1b", DATASET, 96, 8).mkdir(parents=True)
    assert f"{scaling_dir(tmp_path, 'llama1b', DATASET, 96, 4)}: no results here" in only_line(
        vote(tmp_path, LONG, DATASET)
    )
    assert "(found: p8)" in only_line(vote(tmp_path, LONG, DATASET))
    greedy_dir(tmp_path, "llama1b", DATASET, 89).mkdir(parents=True)
    assert f"in {greedy_dir(tmp_path, 'llama1b', DATASET, 96)};" in only_line(detection(tmp_path, LONG, DATASET, 96))


def test_another_subdirectory_is_evaluated_when_it_is_named(model: Path, dataset: Path, fake: Fake) -> None:
    fake()
    root = dataset.parent / "out"
    whole = root / WHOLE.format(dataset="sums", seed=96, name="temp0_unc")
    assert greedy(model, dataset, "--output-dir", str(whole)).exit_code == 0
    assert len(read_greedy(whole)) == 6
    assert detection(root, "llama1b", "sums", 96, subdir="temp0_unc").exit_code == 0
    assert "no batch_results_*.jsonl" in only_line(detection(root, "llama1b", "sums", 96))
