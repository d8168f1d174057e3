"""Stored sampled responses of one problem as arrays: an answer class, a grade and every score per response."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesian_transformer.grading import Grader, Verdict
from bayesian_transformer.metrics import Array
from bayesian_transformer.sampled import Sampled, read_sampled
from bayesian_transformer.scores import SAMPLED_SCORES

NO_ANSWER = -1
_FILES_AT_ONCE = 8  # graded together, which keeps the grading processes busy and few texts in memory


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
    loaded: list[tuple[Sampled, Array] | ValueError] = []
    for path in paths:
        try:
            sampled = read_sampled(path, gold)
            loaded.append((sampled, sampled.values(SAMPLED_SCORES)))
        except ValueError as error:
            loaded.append(error)
    good = [item[0] for item in loaded if isinstance(item, tuple)]
    verdicts = iter(grader.grade([(text, item.answer) for item in good for text in item.texts]))
    canonical = iter(grader.canonical([text for item in good for text in item.texts]))
    for item in loaded:
        if isinstance(item, tuple):
            count = len(item[0].outputs)
            yield _problem(*item, [next(canonical) for _ in range(count)], [next(verdicts) for _ in range(count)])
        else:
            yield item


def _problem(stored: Sampled, values: Array, canonical: Sequence[str | None], verdicts: Sequence[Verdict]) -> Problem:
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
        values=values,
        undecided=sum(verdict is Verdict.UNDECIDED for verdict in verdicts),
        mixed_classes=int(((hits > 0) & (hits < members)).sum()),
        made_with=stored.made_with,
    )
