"""Stored sampled responses of one problem as arrays: an answer class, a grade and every score per response.

Reads the published schema {"prompt", "outputs": [{"text", "uncertainties": {...}, "logprobs": {...}}]} and our extra
keys: "answer" of the file, "scores", "token_count" and per-token arrays of a response.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from run.utils.grader import Grader, Verdict

from .metrics import Array

# name: where a response keeps it, the per-token array whose mean it is (if that is all there is), and its sign
SCORES: dict[str, tuple[tuple[str, ...], str | None, int]] = {
    "nau": (("uncertainties", "nau"), "aleatoric", -1),
    "neu": (("uncertainties", "neu"), "epistemic", -1),
    "ntu": (("uncertainties", "ntu"), "total", -1),
    "au": (("uncertainties", "au"), None, -1),
    "eu": (("uncertainties", "eu"), None, -1),
    "tu": (("uncertainties", "tu"), None, -1),
    "nll": (("logprobs", "nll"), "logprob", 1),
    "ll": (("logprobs", "ll"), None, 1),
    "ce": (("scores", "ce"), "self_certainty", 1),
    "dc": (("scores", "dc"), "confidence", 1),
    "npe": (("scores", "entropy"), "entropy", -1),
    "nbir": (("scores", "bir"), "implicit_reward", -1),
    "length": (("token_count",), None, -1),
}
NO_ANSWER = -1
_FILES_AT_ONCE = 8  # graded together, which keeps the grading processes busy and few texts in memory


@dataclass(frozen=True)
class Problem:
    """The n stored responses of a problem."""

    question_id: str
    answers: NDArray[np.int64]  # [n] class of the canonical answer, NO_ANSWER without one
    right: NDArray[np.bool_]  # [n] grade of each response; undecided ones count as wrong
    class_right: NDArray[np.bool_]  # [classes] whether most responses of the class are right
    values: Array  # [len(SCORES), n] larger means more confident; NaN where there is no value
    undecided: int
    mixed_classes: int  # answer classes with right and wrong responses, such as 12 and 12% for the gold answer 0.12


def read_problems(paths: Sequence[Path], gold: Mapping[str, str], grader: Grader) -> Iterator[Problem | ValueError]:
    """Read and grade the files; in their order a Problem, or the ValueError that names the file and what is wrong.

    Args:
        paths: files {question_id}.json.
        gold: answers by question id, for files without "answer".
    """
    for start in range(0, len(paths), _FILES_AT_ONCE):
        yield from _grade(paths[start : start + _FILES_AT_ONCE], gold, grader)


def _grade(paths: Iterable[Path], gold: Mapping[str, str], grader: Grader) -> Iterator[Problem | ValueError]:
    loaded: list[tuple[Path, list[str | None], str, Array] | ValueError] = []
    for path in paths:
        try:
            loaded.append((path, *_read(path, gold)))
        except ValueError as error:
            loaded.append(error)
    good = [item for item in loaded if not isinstance(item, ValueError)]
    verdicts = iter(grader.grade([(text, answer) for _, texts, answer, _ in good for text in texts]))
    canonical = iter(grader.canonical([text for _, texts, _, _ in good for text in texts]))
    for item in loaded:
        if isinstance(item, ValueError):
            yield item
        else:
            path, texts, _, values = item
            yield _problem(path.stem, [next(canonical) for _ in texts], [next(verdicts) for _ in texts], values)


def _problem(name: str, canonical: Sequence[str | None], verdicts: Sequence[Verdict], values: Array) -> Problem:
    classes = {answer: index for index, answer in enumerate(dict.fromkeys(a for a in canonical if a is not None))}
    answers = np.array([NO_ANSWER if answer is None else classes[answer] for answer in canonical], dtype=np.int64)
    right = np.array([verdict is Verdict.RIGHT for verdict in verdicts], dtype=bool)
    answered = answers != NO_ANSWER
    members = np.bincount(answers[answered], minlength=len(classes))
    hits = np.bincount(answers[answered & right], minlength=len(classes))
    return Problem(
        question_id=name,
        answers=answers,
        right=right,
        class_right=2 * hits > members,
        values=values,
        undecided=sum(verdict is Verdict.UNDECIDED for verdict in verdicts),
        mixed_classes=int(((hits > 0) & (hits < members)).sum()),
    )


def _read(path: Path, gold: Mapping[str, str]) -> tuple[list[str | None], str, Array]:
    """Texts, gold answer and score values of one file."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not valid JSON ({error}); generate it again") from error
    outputs = record.get("outputs") if isinstance(record, dict) else None
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
        values = np.array([[_value(output, *place) for output in outputs] for place in SCORES.values()])
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: a score of a response is not a number ({error}); generate it again") from error
    return texts, str(answer), np.where(np.isfinite(values), values, np.nan)


def _value(output: Mapping[str, Any], keys: Sequence[str], array: str | None, sign: int) -> float:
    """One score of one response, NaN if it is not stored (JSON null stands for what is not finite)."""
    value: Any = output
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    if value is None and array is not None and output.get(array):
        value = np.asarray(output[array], dtype=np.float64).mean()
    return np.nan if value is None else sign * float(value)
