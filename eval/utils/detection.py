"""Stored greedy responses of one seed as arrays: a verdict, a token count and every score per response."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesian_transformer.graded import read_graded
from bayesian_transformer.grading import Grader, Verdict
from bayesian_transformer.metrics import Array
from bayesian_transformer.results import SETTINGS, SETTINGS_FILE

from .levels import level_name

MADE_WITH = ("seed", "num_samples", "bayes_sigma")


@dataclass(frozen=True)
class SeedRun:
    """The responses of one seed in the order of their question ids; arrays are [n]."""

    seed: int
    ids: list[str]
    verdicts: list[Verdict]
    tokens: NDArray[np.int64]
    truncated: NDArray[np.bool_]  # stopped at the token limit
    made_with: dict[str, list[Any]]  # the values of MADE_WITH that occur in the records, the other SETTINGS if stored
    dataset_problems: int | None  # in the data set when the responses were generated; None if that is not recorded
    levels: list[str | None]  # the level of each problem in the data set; None if that is not recorded
    scores: dict[str, Array]  # by score name; larger means more confident, NaN where there is no value

    @property
    def right(self) -> NDArray[np.bool_]:
        """The positive class. An undecided answer is not known to be right, so it counts as wrong."""
        return np.array([verdict is Verdict.RIGHT for verdict in self.verdicts], dtype=bool)

    @property
    def undecided(self) -> list[str]:
        """Question ids of the answers that the grader could not decide."""
        return [name for name, verdict in zip(self.ids, self.verdicts, strict=True) if verdict is Verdict.UNDECIDED]


def load_run(seed: int, folder: Path, grader: Grader, window: int) -> SeedRun:
    """Read, grade and score the results in `folder`. ValueError names the folder, the response and the key.

    FileNotFoundError if the folder holds no results file.
    """
    graded = read_graded(folder, grader, window)
    size = graded.settings.get("dataset_problems")
    if size is not None and type(size) is not int:
        raise ValueError(f"{folder / SETTINGS_FILE}: 'dataset_problems' is not a whole number; remove the key")
    rows = graded.records
    return SeedRun(
        seed=seed,
        ids=graded.problems,
        verdicts=graded.verdicts,
        tokens=np.array([len(row["token_ids"]) for row in rows], dtype=np.int64),
        truncated=np.array([row.get("finish_reason") == "length" for row in rows], dtype=bool),
        made_with={key: [graded.settings[key]] for key in SETTINGS if key in graded.settings}
        | {key: list(dict.fromkeys(row.get(key) for row in rows)) for key in MADE_WITH},
        dataset_problems=size,
        levels=[level_name(row.get("level")) for row in rows],
        scores=graded.scores,
    )
