"""Stored sampled responses of one problem as arrays: an answer class, a grade and every score per response.

Reads the published schema {"prompt", "outputs": [{"text", "uncertainties": {...}, "logprobs": {...}}]} and our extra
keys: "answer" of the file, "scores", "token_count" and per-token arrays of a response.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesian_transformer.aggregations import Response
from bayesian_transformer.files import read_document
from bayesian_transformer.grading import Grader, Verdict
from bayesian_transformer.results import SETTINGS
from bayesian_transformer.scores import SAMPLED_SCORES, Score, oriented

from .metrics import Array

NO_ANSWER = -1
_FILES_AT_ONCE = 8  # graded together, which keeps the grading processes busy and few texts in memory


@dataclass(frozen=True)
class _Stored:
    """What a file holds."""

    question_id: str
    texts: list[str | None]
    answer: str  # gold
    values: Array
    made_with: dict[str, Any]


@dataclass(frozen=True)
class Problem:
    """The n stored responses of a problem."""

    question_id: str
    answers: NDArray[np.int64]  # [n] class of the canonical answer, NO_ANSWER without one
    right: NDArray[np.bool_]  # [n] grade of each response; undecided ones count as wrong
    class_right: NDArray[np.bool_]  # [classes] whether most responses of the class are right
    values: Array  # [len(SAMPLED_SCORES), n] larger means more confident; NaN where there is no value
    undecided: int
    mixed_classes: int  # answer classes with right and wrong responses, such as 12 and 12% for the gold answer 0.12
    made_with: Mapping[str, Any] = field(default_factory=dict)  # those of SETTINGS that the file says


def read_problems(paths: Sequence[Path], gold: Mapping[str, str], grader: Grader) -> Iterator[Problem | ValueError]:
    """Read and grade the files; in their order a Problem, or the ValueError that names the file and what is wrong.

    Args:
        paths: files {question_id}.json.
        gold: answers by question id, for files without "answer".
    """
    for start in range(0, len(paths), _FILES_AT_ONCE):
        yield from _grade(paths[start : start + _FILES_AT_ONCE], gold, grader)


def _grade(paths: Iterable[Path], gold: Mapping[str, str], grader: Grader) -> Iterator[Problem | ValueError]:
    loaded: list[_Stored | ValueError] = []
    for path in paths:
        try:
            loaded.append(_read(path, gold))
        except ValueError as error:
            loaded.append(error)
    good = [item for item in loaded if isinstance(item, _Stored)]
    verdicts = iter(grader.grade([(text, item.answer) for item in good for text in item.texts]))
    canonical = iter(grader.canonical([text for item in good for text in item.texts]))
    for item in loaded:
        if isinstance(item, _Stored):
            yield _problem(item, [next(canonical) for _ in item.texts], [next(verdicts) for _ in item.texts])
        else:
            yield item


def _problem(stored: _Stored, canonical: Sequence[str | None], verdicts: Sequence[Verdict]) -> Problem:
    classes = {answer: index for index, answer in enumerate(dict.fromkeys(a for a in canonical if a is not None))}
    answers = np.array([NO_ANSWER if answer is None else classes[answer] for answer in canonical], dtype=np.int64)
    right = np.array([verdict is Verdict.RIGHT for verdict in verdicts], dtype=bool)
    answered = answers != NO_ANSWER
    members = np.bincount(answers[answered], minlength=len(classes))
    hits = np.bincount(answers[answered & right], minlength=len(classes))
    return Problem(
        question_id=stored.question_id,
        answers=answers,
        right=right,
        class_right=2 * hits > members,
        values=stored.values,
        undecided=sum(verdict is Verdict.UNDECIDED for verdict in verdicts),
        mixed_classes=int(((hits > 0) & (hits < members)).sum()),
        made_with=stored.made_with,
    )


def _read(path: Path, gold: Mapping[str, str]) -> _Stored:
    record = read_document(path, "generate it again")
    outputs = record.get("outputs")
    if not isinstance(outputs, list) or not outputs or not all(isinstance(output, dict) for output in outputs):
        raise ValueError(f"{path}: 'outputs' is not a list of at least one response; generate it again")
    answer = next((text for text in (record.get("answer"), gold.get(path.stem)) if text not in (None, "")), None)
    if answer is None:
        raise ValueError(f"{path}: no gold answer in the file or for its name in the data set; give --dataset-path")
    texts = [output.get("text") for output in outputs]
    for index, text in enumerate(texts):
        if text is not None and not isinstance(text, str):
            raise ValueError(f"{path}: outputs[{index}].text is not a text; generate the file again")
    try:
        values = np.array([[_value(output, score) for output in outputs] for score in SAMPLED_SCORES])
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{path}: a score of a response is not a number ({error}); generate it again") from error
    made_with = {key: record[key] for key in SETTINGS if key in record}
    return _Stored(path.stem, texts, str(answer), np.where(np.isfinite(values), values, np.nan), made_with)


def _value(output: Mapping[str, Any], score: Score) -> float:
    """One score of one response, NaN if it is not stored (JSON null stands for what is not finite).

    Files from before the names of scores.py, the published ones among them, have it under another name only.
    """
    value = _at(output, ("scores", score.name))
    if value is None:
        value = _at(output, score.aliases.record)
    if value is not None:
        return score.sign * float(value)
    array = None if score.quantity is None else output.get(score.quantity.name)
    if score.quantity is None or not array:
        return np.nan
    values = np.asarray(array, dtype=np.float64)
    return score.value(oriented(score.quantity, values), Response({score.quantity.name: values}), len(array))


def _at(output: Mapping[str, Any], keys: Sequence[str]) -> Any:
    """What lies under the keys, one inside the other; None if one is absent."""
    value: Any = output
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value
