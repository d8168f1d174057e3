"""The problems of a data set: their ids, questions and gold answers, read from JSON Lines."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .files import read_jsonl


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
