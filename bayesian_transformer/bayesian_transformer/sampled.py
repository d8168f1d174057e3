"""Stored sampled responses of one problem: the published schema, and the extra keys of our scripts.

    {"prompt", "outputs": [{"text", "uncertainties": {...}, "logprobs": {...}}]}

Ours are "answer" of the file, and "scores", "token_count" and per-token arrays of a response.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .aggregations import Array, Response
from .files import read_document, shortened
from .results import SETTINGS, completed
from .scores import Score, oriented


@dataclass(frozen=True)
class Sampled:
    """What a file holds."""

    path: Path
    answer: str  # gold
    outputs: list[dict[str, Any]]  # the responses, as stored
    made_with: dict[str, Any]  # those of SETTINGS that the file says

    @property
    def question_id(self) -> str:
        """The file is named after it."""
        return self.path.stem

    @property
    def texts(self) -> list[str | None]:
        """What the responses say."""
        return [output.get("text") for output in self.outputs]

    def values(self, scores: Sequence[Score]) -> Array:
        """The scores [len(scores), n] of the responses; larger is more confident, NaN where there is no value.

        ValueError, naming the file, if one of them is not a number.
        """
        return scores_of(self.path, self.outputs, scores)


def read_sampled(path: Path, gold: Mapping[str, str]) -> Sampled:
    """Read a file {question_id}.json. `gold` has answers by question id, for files without "answer".

    ValueError, in one line, names the file and the key that is wrong.
    """
    record, outputs = read_outputs(path)
    answer = next((text for text in (record.get("answer"), gold.get(path.stem)) if text not in (None, "")), None)
    if answer is None:
        raise ValueError(f"{path}: no gold answer in the file or for its name in the data set; give --dataset-path")
    for index, output in enumerate(outputs):
        if output.get("text") is not None and not isinstance(output["text"], str):
            raise ValueError(f"{path}: outputs[{index}].text is not a text; generate the file again")
    made_with = {key: record[key] for key in SETTINGS if key in record}
    return Sampled(path, str(answer), outputs, completed(made_with))


def read_outputs(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A file of sampled responses as it is, and the responses in it. ValueError, in one line, if it has none."""
    record = read_document(path, "generate it again")
    outputs = record.get("outputs")
    if not isinstance(outputs, list) or not outputs or not all(isinstance(output, dict) for output in outputs):
        raise ValueError(f"{path}: 'outputs' is not a list of at least one response; generate it again")
    return record, outputs


def scores_of(path: Path, outputs: Sequence[Mapping[str, Any]], scores: Sequence[Score]) -> Array:
    """The scores [len(scores), n] of the responses in the file `path`; larger is more confident, NaN without a value.

    ValueError, naming the file, if one of them is not a number.
    """
    try:
        values = np.array([[sampled_score(output, score) for output in outputs] for score in scores])
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{path}: a score of a response is not a number ({error}); generate it again") from error
    return np.where(np.isfinite(values), values, np.nan)


def sampled_score(output: Mapping[str, Any], score: Score) -> float:
    """One score of one stored response, larger is more confident; NaN if it is not stored (null: it is not finite).

    Files from before the names of scores.py, the published ones among them, have it under another name only.
    ValueError if something else than a number is stored, OverflowError if it is too large for one.
    """
    value = _at(output, ("scores", score.name))
    if value is None:
        value = _at(output, score.aliases.record) if score.aliases.record else None
    if value is not None:
        return score.sign * float(_numbers([value], score.name)[0])
    array = None if score.quantity is None else output.get(score.quantity.name)
    if score.quantity is None or not array:
        return math.nan
    values = _numbers(array, score.quantity.name)
    return score.value(oriented(score.quantity, values), Response({score.quantity.name: values}), len(array))


def _numbers(values: Any, name: str) -> Array:
    """A stored list of numbers as an array, null as NaN; true, false and digits in quotes are no numbers."""
    if not isinstance(values, list) or not {type(value) for value in values} <= {int, float, type(None)}:
        raise ValueError(f"{name}: {shortened(values)}")
    return np.array(values, dtype=np.float64)


def _at(output: Mapping[str, Any], keys: Sequence[str]) -> Any:
    """What lies under the keys, one inside the other; None if one is absent."""
    value: Any = output
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value
