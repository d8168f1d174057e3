"""Problems in, results out: question ids, the layout of the results folder, and the records in it.

    {root}/{model}_results_vllm_pg/{dataset}/seed{seed}/greedy_unc/batch_results_{start}_{end}.jsonl
    {root}/inference_scaling/{model}_results_vllm_pg/{dataset}/seed{seed}/p{n}/single_greedy_unc/{question_id}.json

All uncertainties are in nats. A value that is not finite is stored as null.
"""

import fcntl
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bayesian_transformer.files import read_jsonl
from bayesian_transformer.uncertainty import FIELDS

SCHEMA_VERSION = 1

# Attribute of vLLM's per-token Uncertainty for each per-token array.
_ATTRIBUTES = {name: name for name in FIELDS} | {
    "total": "total_uncertainty",
    "aleatoric": "aleatoric_uncertainty",
    "epistemic": "epistemic_uncertainty",
    "implicit_reward": "bayes_implicit_reward",
}


def unique_id(problem: Mapping[str, Any]) -> str:
    """`unique_id` of a problem or record, else its `metadata.source_index` (0 counts); ValueError if both lack."""
    metadata = problem.get("metadata")
    candidates = (problem.get("unique_id"), metadata.get("source_index") if isinstance(metadata, Mapping) else None)
    for value in candidates:
        if value is not None and value != "":
            return str(value)
    raise ValueError("neither unique_id nor metadata.source_index is given; add one")


def question_id(problem: Mapping[str, Any]) -> str:
    """The unique id as a file name: "/" becomes "_" and ".json" goes."""
    return unique_id(problem).replace("/", "_").replace(".json", "")


def problem_text(problem: Mapping[str, Any]) -> str:
    """The question, from `problem` or `question`; ValueError if there is none."""
    for key in ("problem", "question"):
        text = problem.get(key)
        if isinstance(text, str) and text.strip():
            return text
    raise ValueError("neither problem nor question holds a text; add one")


def answer_text(problem: Mapping[str, Any]) -> str:
    """The gold answer as text; ValueError if there is none."""
    answer = problem.get("answer")
    if answer is None or answer == "":
        raise ValueError("answer is missing; add it")
    return str(answer)


def load_problems(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON Lines data set.

    A question id may repeat with the same question and answer, but not with others: its result could not be told from
    the other's. ValueError then names both lines. Rows without an id are left to whoever runs them.
    """
    problems = read_jsonl(path)
    if not problems:
        raise ValueError(f"{path}: holds no problems")
    seen: dict[str, int] = {}
    for index, problem in enumerate(problems):
        try:
            first = seen.setdefault(question_id(problem), index)
        except ValueError:
            continue
        if _content(problems[first]) != _content(problem):
            raise ValueError(
                f"{path}: problems {first} and {index} (the first is 0) share the id {question_id(problem)!r} but "
                "differ; give them different ids"
            )
    return problems


def count_problems(problems: Sequence[Mapping[str, Any]]) -> int:
    """How many different problems there are: rows that share an id are one, a row without an id is one of its own."""
    ids: set[str | int] = set()
    for index, problem in enumerate(problems):
        try:
            ids.add(question_id(problem))
        except ValueError:
            ids.add(index)
    return len(ids)


def _content(problem: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(problem.get(key) for key in ("problem", "question", "answer"))


def greedy_dir(root: Path, model: str, dataset: str, seed: int) -> Path:
    """Folder of the greedy results of one model, data set and seed."""
    return root / f"{model}_results_vllm_pg" / dataset / f"seed{seed}" / "greedy_unc"


def greedy_path(root: Path, model: str, dataset: str, seed: int, start: int, end: int) -> Path:
    """File of the greedy results for problems [start, end)."""
    return greedy_dir(root, model, dataset, seed) / f"batch_results_{start}_{end}.jsonl"


def scaling_dir(root: Path, model: str, dataset: str, seed: int, n: int) -> Path:
    """Folder of the files with n responses per problem."""
    base = root / "inference_scaling" / f"{model}_results_vllm_pg" / dataset
    return base / f"seed{seed}" / f"p{n}" / "single_greedy_unc"


def read_greedy(folder: Path) -> list[dict[str, Any]]:
    """All greedy records of a folder, the first of each question id; a torn last line is left out.

    FileNotFoundError if the folder has no results, ValueError for a record that is not of this schema.
    """
    paths = sorted(folder.glob("batch_results_*.jsonl"))
    if not paths:
        raise FileNotFoundError(f"{folder}: no batch_results_*.jsonl here; run greedy_unc_single_batch_refine.py first")
    records: dict[str, dict[str, Any]] = {}
    for path in paths:
        for record in read_greedy_file(path):
            records.setdefault(question_id(record), record)
    return list(records.values())


def read_greedy_file(path: Path) -> list[dict[str, Any]]:
    """The records of one greedy results file, checked for schema and for arrays as long as the response."""
    records = read_jsonl(path, torn_end=True)
    for number, record in enumerate(records, start=1):
        if record.get("schema_version") != SCHEMA_VERSION:
            raise ValueError(
                f"{path}: record {number} has schema_version {record.get('schema_version')!r}, "
                f"this program reads {SCHEMA_VERSION}; move the file away"
            )
        lengths = {name: len(record.get(name) or ()) for name in ("token_ids", *FIELDS)}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"{path}: record {number} ({question_id(record)}) has arrays of unequal length {lengths}")
    return records


def token_arrays(completion: Any) -> dict[str, list[float]]:
    """The eight per-token quantities of a vLLM completion as lists, in generation order.

    Values have 9 significant digits, which is all of a float32 and half of what a float64 prints.
    ValueError if the completion carries no uncertainties or not one for every token.
    """
    uncertainties = getattr(completion, "uncertainties", None)
    token_ids = completion.token_ids
    if uncertainties is None:
        raise ValueError("vLLM returned no uncertainties; is bayesian_transformer installed where vLLM runs?")
    if len(uncertainties) != len(token_ids):
        raise ValueError(f"vLLM returned {len(uncertainties)} uncertainties for {len(token_ids)} tokens")
    tokens = [entry[token_id] for entry, token_id in zip(uncertainties, token_ids, strict=True)]
    return {name: [float(f"{getattr(t, attribute):.9g}") for t in tokens] for name, attribute in _ATTRIBUTES.items()}


def greedy_record(
    problem: Mapping[str, Any], prompt: str, completion: Any, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """One line of a greedy results file."""
    return {
        "unique_id": unique_id(problem),
        "problem": problem_text(problem),
        "answer": answer_text(problem),
        "formatted_prompt": prompt,
        "level": problem.get("level"),
        "text": completion.text,
        "token_ids": list(completion.token_ids),
        "finish_reason": completion.finish_reason,
        **{key: settings[key] for key in ("seed", "num_samples", "bayes_sigma", "model", "schema_version")},
        **token_arrays(completion),
    }


def response_record(completion: Any, per_token: bool = False) -> dict[str, Any]:
    """One response in the published schema, plus its length, end, further scores and, if asked, per-token arrays.

    tu, au, eu, ll are sums over the tokens, ntu, nau, neu means; nll is the mean log-probability, not negated, as in
    the published files. `scores` holds means. Means over no token at all are null.
    """
    arrays = token_arrays(completion)
    record = {
        "text": completion.text,
        "uncertainties": {
            "nau": _mean(arrays["aleatoric"]),
            "ntu": _mean(arrays["total"]),
            "neu": _mean(arrays["epistemic"]),
            "au": sum(arrays["aleatoric"]),
            "tu": sum(arrays["total"]),
            "eu": sum(arrays["epistemic"]),
        },
        "logprobs": {"nll": _mean(arrays["logprob"]), "ll": sum(arrays["logprob"])},
        "scores": {
            "ce": _mean(arrays["self_certainty"]),
            "dc": _mean(arrays["confidence"]),
            "entropy": _mean(arrays["entropy"]),
            "bir": _mean(arrays["implicit_reward"]),
        },
        "token_count": len(completion.token_ids),
        "finish_reason": completion.finish_reason,
    }
    return record | {"token_ids": list(completion.token_ids), **arrays} if per_token else record


def scaling_record(
    problem: Mapping[str, Any], prompt: str, responses: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """The content of a problem's scaling file: the published schema plus where it came from."""
    return {
        "prompt": prompt,
        "outputs": list(responses),
        "unique_id": unique_id(problem),
        "problem": problem_text(problem),
        "answer": answer_text(problem),
        "level": problem.get("level"),
        **settings,
    }


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def read_settings(path: Path) -> dict[str, Any]:
    """A JSON object from `path`; ValueError, naming the file, if it holds anything else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not valid JSON ({error}); move it away") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path}: expected a JSON object; move it away")
    return value


@contextmanager
def sole_writer(path: Path) -> Iterator[None]:
    """Hold a lock beside `path`, which dies with the process; ValueError if another process holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("w") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not inherited by the engine that the process forks
        except BlockingIOError as error:
            raise ValueError(f"{path}: another process is writing it; wait for it or end it") from error
        yield


def check_same(where: str, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """ValueError, naming the first key that differs, unless `found` has all of `wanted`."""
    for key, value in wanted.items():
        if found.get(key) != value:
            raise ValueError(
                f"{where}: made with {key} {found.get(key)!r}, this run has {value!r}; "
                "use the same settings, another --output-dir, or move the old results away"
            )
