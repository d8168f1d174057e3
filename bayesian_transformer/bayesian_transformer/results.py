"""The results of the run scripts: their folders, their records, and what makes two runs the same.

    {root}/{model}_results_vllm_pg/{dataset}/seed{seed}/greedy_unc/batch_results_{start}_{end}.jsonl
    {root}/inference_scaling/{model}_results_vllm_pg/{dataset}/seed{seed}/p{n}/single_greedy_unc/{question_id}.json

Runs write under the long names of models and data sets, unless they are given a folder; see `folder_to_write`.
All uncertainties are in nats. A value that is not finite is stored as null.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from .files import iter_jsonl, read_document, shortened
from .noise_config import PROJECTIONS
from .problems import question_id
from .quantities import FIELDS

# Short names of the published models, folders under $MODEL_BASE_DIR.
MODELS = {
    "llama1b": "TFB-Llama3.2-1B-Instruct",
    "llama8b": "TFB-Meta-Llama-3.1-8B-Instruct",
    "qwen3b": "TFB-Qwen2.5-3B-Instruct",
}
# Short names of the data sets that are stored under another file stem.
DATASETS = {"gsm8k": "gsm8k_test", "leg_counting": "leg-counting"}

SCALING_RESPONSES = 512  # per problem, in the published experiments
SCHEMA_VERSION = 1
SETTINGS_FILE = "settings.json"
PARTS = "batch_results_*.jsonl"  # the files of greedy results in a folder
RESPONSES = "*.json"  # the files of n responses per problem in a folder
GREEDY_SUBDIR = "greedy_unc"
# The end of a path that is a folder of results already: data set, seed, n if it is for several responses, any name.
_WHOLE_FOLDER = re.compile(r"[^/]_results_vllm_pg/([^/]+)/seed([0-9]+)(?:/p([0-9]+))?/[^/]+\Z")

# What makes two runs the same: everything that decides their numbers. `Run.settings` in run/utils/run.py fills it in.
# `check_same` below compares it, for a whole folder (`one_setting` in run/utils/locks.py) and for each stored record
# when a run resumes: `resume` in both scripts of run/ takes the records that fit for done, and asks for the rest.
SETTINGS = (
    "schema_version", "model", "weights_digest", "dataset", "prompt_digest", "seed", "num_samples", "bayes_sigma",
    "bayes_noise", "rank", "use_tfb_for_generation", "temperature", "max_tokens", "engine_args",
    "bayes_projections",  # stored where it is not the default, see `completed`
)  # fmt: skip
OF_GREEDY_RECORD = ("seed", "num_samples", "bayes_sigma", "model", "schema_version")


def model_name(name_or_path: str) -> str:
    """The name of a model in result paths: the last part of its path; a short name becomes what it stands for.

    The same whether a person gives the short name or a path that ends in it.
    """
    name = Path(name_or_path).absolute().name
    return MODELS.get(name, name)


def dataset_name(name_or_path: str) -> str:
    """The name of a data set in result paths: the stem of its file; a short name becomes what it stands for."""
    stem = Path(name_or_path).name.removesuffix(".jsonl")
    return DATASETS.get(stem, stem)


def greedy_dir(root: Path, model: str, dataset: str, seed: int, subdir: str = GREEDY_SUBDIR) -> Path:
    """Folder of the greedy results of one model, data set and seed."""
    return root / f"{model}_results_vllm_pg" / dataset / f"seed{seed}" / subdir


def greedy_part(folder: Path, start: int, end: int) -> Path:
    """File of the greedy results for problems [start, end) in a folder."""
    return folder / PARTS.replace("*", f"{start}_{end}")


def scaling_dir(root: Path, model: str, dataset: str, seed: int, n: int) -> Path:
    """Folder of the files with n responses per problem."""
    return greedy_dir(root / "inference_scaling", model, dataset, seed, f"p{n}") / "single_greedy_unc"


def folder_to_write(output_dir: Path, model: str, dataset: str, seed: int, n: int | None = None) -> Path:
    """Folder that a run writes to; `n` is the number of responses per problem, None for greedy answers.

    It is `output_dir` itself, as an absolute path, if that already ends in *_results_vllm_pg/{dataset}/seed{seed}/ and
    any name, with p{n}/ before the name unless n is None. Otherwise it is the standard folder below `output_dir`.
    ValueError if that end is of another data set, seed or n than the run; the model may have any name in it.
    """
    whole = Path(os.path.normpath(output_dir.absolute()))  # "." too ends in what it stands for
    match = _WHOLE_FOLDER.search(whole.as_posix())
    if match is None:
        return _standard_dir(output_dir, model, dataset, seed, n, GREEDY_SUBDIR)
    of_folder = _described(dataset_name(match[1]), int(match[2]), int(match[3]) if match[3] else None)
    for found, wanted in zip(of_folder, _described(dataset, seed, n), strict=True):
        if found != wanted:
            raise ValueError(
                f"--output-dir {output_dir}: is a folder for {found}, this run is for {wanted}; "
                "give the folder of this run, or the root of all results"
            )
    return whole


def folders_to_read(
    root: Path, model: str, dataset: str, seeds: Iterable[int], n: int | None = None, subdir: str = GREEDY_SUBDIR
) -> dict[int, Path]:
    """Folder of each seed, under the long or short names of model and data set: those that have results.

    `n` is the number of responses per problem, None for greedy answers in `subdir`. Without any results, those names
    are taken of which most folders exist. ValueError if there are results under several names, of whatever seeds:
    nobody could tell which of them are meant to be one experiment.
    """
    names = [(m, d) for m in _spellings(model, MODELS) for d in _spellings(dataset, DATASETS)]
    choices = [{seed: _standard_dir(root, *name, seed, n, subdir) for seed in sorted(set(seeds))} for name in names]
    pattern = PARTS if n is None else RESPONSES
    filled = [{path.resolve(): path for path in each.values() if any(path.glob(pattern))} for each in choices]
    if not any(filled):
        return max(choices, key=lambda each: sum(up.is_dir() for path in each.values() for up in path.parents))
    choice, first = next((each, real) for each, real in zip(choices, filled, strict=True) if real)
    for real in filled:
        for other in real.keys() - first.keys():  # a link from one name to the other is not a second place
            raise ValueError(
                f"there are results under two names, {next(iter(first.values()))} and {real[other]}; "
                "move one of them away, or all of them under one name"
            )
    return choice


def _standard_dir(root: Path, model: str, dataset: str, seed: int, n: int | None, subdir: str) -> Path:
    return greedy_dir(root, model, dataset, seed, subdir) if n is None else scaling_dir(root, model, dataset, seed, n)


def _described(dataset: str, seed: int, n: int | None) -> tuple[str, str, str]:
    """What a folder of results is for, in the words of an error."""
    return f"data set {dataset}", f"seed {seed}", "greedy answers" if n is None else f"{n} responses per problem"


def _spellings(name: str, short_names: Mapping[str, str]) -> list[str]:
    """A long name, then the short ones that stand for it."""
    return [name, *(short for short, long in short_names.items() if long == name)]


def read_greedy(folder: Path) -> list[dict[str, Any]]:
    """All greedy records of a folder, the first of each question id; a torn last line is left out.

    FileNotFoundError if the folder has no results, ValueError for a record that is not of this schema and for two of
    one question id that answer another prompt, were made with other settings or name another gold answer.
    """
    paths = sorted(folder.glob(PARTS))
    if not paths:
        raise FileNotFoundError(f"{folder}: no {PARTS} here; run greedy_unc_single_batch_refine.py first")
    records: dict[str, dict[str, Any]] = {}
    origins: dict[str, Path] = {}
    for path in paths:
        for record in greedy_records(path):
            name = question_id(record)
            first, origin = records.setdefault(name, record), origins.setdefault(name, path)
            for key in ("formatted_prompt", "answer", *OF_GREEDY_RECORD):
                if record.get(key) != first.get(key):
                    raise ValueError(f"{path}: {name} has another {key} than in {origin.name}; move one of them away")
    return list(records.values())


def greedy_records(path: Path) -> Iterator[dict[str, Any]]:
    """The records of one greedy results file, checked for their schema and for arrays as long as the response."""
    for number, record in enumerate(iter_jsonl(path, torn_end=True), start=1):
        _check_greedy_record(f"{path}: record {number}", record)
        yield record


def _check_greedy_record(where: str, record: Mapping[str, Any]) -> None:
    version = record.get("schema_version")
    if version != SCHEMA_VERSION:
        raise ValueError(
            f"{where} has schema_version {shortened(version)}, this program reads {SCHEMA_VERSION}; move the file away"
        )
    try:
        where += f" ({question_id(record)})"
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    for name in OF_GREEDY_RECORD:
        if isinstance(record.get(name), list | dict):
            raise ValueError(f"{where}: {name!r} is a {type(record[name]).__name__}; remove the record, and run again")
    lengths = {}
    for name in ("token_ids", *FIELDS):
        if not isinstance(record.get(name), list):
            raise ValueError(f"{where}: {name!r} is not a list; remove the record, and run again to make it anew")
        lengths[name] = len(record[name])
    if len(set(lengths.values())) != 1:
        raise ValueError(f"{where} has arrays of unequal length {lengths}")


def read_settings(path: Path) -> dict[str, Any]:
    """A JSON object from `path`; ValueError, naming the file, if it holds anything else."""
    return read_document(path, "move it away")


def completed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with the projections that carried the noise.

    They are stored only where they are not the default, as older results do not name them. Where nothing is said of the
    noise at all, nothing is added.
    """
    projections = {"bayes_projections": [*PROJECTIONS]} if "bayes_noise" in settings else {}
    return {**settings, **{key: value for key, value in projections.items() if key not in settings}}


def check_same(where: str, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """ValueError, naming the first key that differs or is absent, unless `found` has all of `wanted`."""
    found = completed(found)
    for key, value in completed(wanted).items():
        if key not in found or found[key] != value:
            made = f"made with {key} {shortened(found[key])}" if key in found else f"does not say its {key}"
            raise ValueError(
                f"{where}: {made}, this run has {shortened(value)}; "
                "use the same settings, another --output-dir, or move the old results away"
            )
