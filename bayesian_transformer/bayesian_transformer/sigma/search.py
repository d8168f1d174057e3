"""All texts at all sigmas: measured, summed up and, where there are gold answers, graded."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from tqdm import tqdm

from ..grading import Grader, Verdict
from .choosing import Choice, next_sigma, recommend
from .labelled import Labelled, detection
from .summary import Row, Setting, TextSums, summarise, text_weights
from .texts import Text


@dataclass
class Search:
    """Texts, and what was measured of them. A text that cannot be measured at some sigma is left out at all of them."""

    measure: Callable[[Text, Sequence[float]], TextSums]  # ValueError if a text cannot be measured
    fail: Callable[[Text, ValueError], None]  # is told of each text that is left out
    sample_counts: Sequence[int]  # in order
    tolerance: float  # largest share of flipped tokens
    texts: list[Text]
    sums: list[TextSums] = field(default_factory=list)  # of `texts`, in order
    sigmas: list[float] = field(default_factory=list)  # that were measured, in order

    @property
    def problems(self) -> int:
        """How many different problems the texts are of."""
        return len({text.problem for text in self.texts})

    def add(self, sigmas: Sequence[float]) -> None:
        """Measure all texts at more sigmas. ValueError if not one of them can be."""
        known: Sequence[TextSums | None] = self.sums or [None] * len(self.texts)
        kept = []
        for text, before in zip(tqdm(self.texts, unit="text"), known, strict=True):
            try:
                found = self.measure(text, sigmas)
            except ValueError as error:
                self.fail(text, error)
                continue
            kept.append((text, replace(found, at={**(before.at if before else {}), **found.at})))
        if not kept:
            raise ValueError("not one text could be measured")
        self.texts, self.sums = [text for text, _ in kept], [sums for _, sums in kept]
        self.sigmas = sorted({*self.sigmas, *sigmas})

    def bisect(self, steps: int) -> None:
        """Try sigmas between the last that keeps to the tolerance and the first that does not, `steps` times each."""
        for _ in range(steps):
            wanted = {sigma for rows in self.rows() if (sigma := next_sigma(rows, self.tolerance)) is not None}
            if not wanted:
                return
            self.add(sorted(wanted))

    def rows(self) -> list[list[Row]]:
        """The table: for each number of weight samples its rows, by sigma."""
        weights = text_weights([text.problem for text in self.texts])
        return [
            [summarise(self.sums, Setting(sigma, count), weights) for sigma in self.sigmas]
            for count in self.sample_counts
        ]

    def choices(self) -> list[Choice]:
        """What to recommend, for each number of weight samples."""
        return [recommend(rows, self.tolerance) for rows in self.rows()]

    def detection(self, workers: int) -> Labelled | None:
        """Detection on the texts with a gold answer, graded by `workers` processes; None if there is no such text.

        ValueError if the extra [grading] is missing.
        """
        labelled = [pair for pair in zip(self.texts, self.sums, strict=True) if pair[0].answer is not None]
        if not labelled:
            return None
        texts = [text for text, _ in labelled]
        with Grader(workers=workers) as grader:
            verdicts = grader.grade([(text.response, text.answer or "") for text in texts])
        return detection(
            [sums for _, sums in labelled],
            np.array([verdict is Verdict.RIGHT for verdict in verdicts]),
            [text.problem for text in texts],
            [Setting(sigma, count) for sigma in self.sigmas for count in self.sample_counts],
            verdicts.count(Verdict.UNDECIDED),
        )
