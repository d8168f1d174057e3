"""Stored results of a folder, scored and graded: what detection and calibration start from."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .aggregations import DEFAULT_WINDOW, NO_PARTS, Array, Parts
from .grading import Grader, Verdict
from .problems import question_id
from .results import RESPONSES, SETTINGS_FILE, check_same, completed, read_greedy, read_settings
from .sampled import read_sampled
from .scores import SCORES, record_arrays, response_scores
from .spans import parts_of


@dataclass(frozen=True)
class GradedFolder:
    """The responses of a folder, in the order of their question ids; arrays are [n]."""

    problems: list[str]  # question id of each response
    records: list[dict[str, Any]]  # of each response, as stored
    verdicts: list[Verdict]
    scores: dict[str, Array]  # every one of scores.py; larger means more confident, NaN where there is no value
    settings: dict[str, Any]  # what the run has stored with them; empty if it has not


def read_graded(folder: Path, grader: Grader, window: int = DEFAULT_WINDOW) -> GradedFolder:
    """Read, grade and score the results in `folder`; `window` is the number of tokens of a DeepConf group.

    ValueError names the folder, the response and the key that is wrong. FileNotFoundError if there is no results file.
    """
    records = sorted(read_greedy(folder), key=question_id)
    if not records:
        raise ValueError(f"{folder}: holds no finished response; let greedy_unc_single_batch_refine.py finish one")
    rows = []
    for record in records:
        for key in ("text", "answer"):
            if not isinstance(record.get(key), str):
                raise ValueError(f"{folder}: response {question_id(record)}: '{key}' is not a text; generate it again")
        try:
            rows.append(record_scores(record, window))
        except ValueError as error:
            raise ValueError(f"{folder}: {error}") from error
    return GradedFolder(
        problems=[question_id(record) for record in records],
        records=records,
        verdicts=grader.grade([(record["text"], record["answer"]) for record in records]),
        scores={score.name: np.array([row[score.name] for row in rows]) for score in SCORES},
        settings=stored_settings(folder),
    )


def read_graded_samples(folder: Path, grader: Grader) -> GradedFolder:
    """The same for sampled responses, several per problem, with the scores that are stored with them.

    ValueError also if two files were made with other settings.
    """
    files = [read_sampled(path, {}) for path in sorted(folder.glob(RESPONSES))]
    if not files:
        raise FileNotFoundError(f"{folder}: no {RESPONSES} here; run greedy_responses_unc.py first")
    for each in files:
        check_same(str(each.path), each.made_with, files[0].made_with)
    values = np.concatenate([each.values(SCORES) for each in files], axis=1)
    return GradedFolder(
        problems=[each.question_id for each in files for _ in each.outputs],
        records=[output for each in files for output in each.outputs],
        verdicts=grader.grade([(text, each.answer) for each in files for text in each.texts]),
        scores={score.name: row for score, row in zip(SCORES, values, strict=True)},
        settings=files[0].made_with,
    )


def stored_settings(folder: Path) -> dict[str, Any]:
    """What the run that wrote a folder of results has stored there; empty if nothing."""
    path = folder / SETTINGS_FILE
    return completed(read_settings(path)) if path.exists() else {}


def record_scores(record: Mapping[str, Any], window: int = DEFAULT_WINDOW) -> dict[str, float]:
    """Every score of a greedy record by name; ValueError names the response and the array that is wrong."""
    tokens = len(record["token_ids"])
    try:
        return response_scores(record_arrays(record, tokens), tokens, window, record_parts(record, tokens))
    except ValueError as error:
        raise ValueError(f"response {question_id(record)}: {error}") from error


def record_parts(record: Mapping[str, Any], tokens: int) -> Parts:
    """Answer and steps of a greedy record, by its `token_offsets`. Records of earlier versions have none."""
    offsets, text = record.get("token_offsets"), record.get("text")
    if offsets is None or not isinstance(text, str):
        return NO_PARTS
    are_ranges = isinstance(offsets, list) and all(_is_range(pair, len(text)) for pair in offsets)
    if not are_ranges or len(offsets) != tokens:
        raise ValueError(
            f"'token_offsets' must be a range [start, end] of the text for each of the {tokens} tokens, or null"
        )
    return parts_of(text, [(start, end) for start, end in offsets])


def _is_range(pair: Any, end: int) -> bool:
    are_places = isinstance(pair, list) and len(pair) == 2 and all(type(place) is int for place in pair)
    return are_places and 0 <= pair[0] <= pair[1] <= end
