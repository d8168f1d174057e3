"""Fits a calibrator to graded responses, and says how well it does on problems that it has not seen.

Responses of one problem are alike, so cross-fitting splits by problem (scikit-learn's `GroupKFold`, which draws nothing
unless it is asked to: the same data give the same parts). No class is weighted up: that would spoil the probabilities
that are asked for. Needs the extra [calibration].

How many labels are enough was simulated with as many scores as DECLARED; docs/calibration.md has the figures.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import __version__
from ..extras import require_extra
from ..metrics import rarer_class
from .calibrator import METHODS, SOURCE, Calibrator, Isotonic, Logistic, Temperature
from .columns import DECLARED, Array, Table, check_names, columns_of, labels

ENOUGH = 50  # problems with a right answer, and as many with a wrong one
FOLDS = 5
Groups = Sequence[Hashable] | NDArray[Any]


@dataclass(frozen=True)
class CrossFit:
    """P(correct) of each response from a calibrator that has not seen its problem; arrays are [n]."""

    p_correct: Array  # NaN where there is no value
    base_rate: Array  # the share of right responses among those that the same calibrator was fitted on
    fold: NDArray[np.int64]  # the part that the response was in; -1 where there is no value
    right: NDArray[np.bool_]

    @property
    def brier(self) -> float:
        """Mean of (P - right)^2; 0 is perfect, and 0.25 is what always saying 1/2 gets."""
        return self._brier(self.p_correct)

    @property
    def base_brier(self) -> float:
        """The same for the base rate, which knows nothing of the response: what there is to beat."""
        return self._brier(self.base_rate)

    @property
    def auroc(self) -> float:
        """Share of pairs of a right and a wrong response in which the right one has the larger P."""
        from sklearn.metrics import roc_auc_score

        seen = self.fold >= 0
        return float(roc_auc_score(self.right[seen], self.p_correct[seen]))

    def _brier(self, p: Array) -> float:
        seen = self.fold >= 0
        return float(np.mean((p[seen] - self.right[seen]) ** 2))


def fit(
    table: Table,
    right: ArrayLike,
    groups: Groups,
    features: Sequence[str] = DECLARED,
    method: str = "logistic",
    source: Mapping[str, Any] | None = None,
) -> Calibrator:
    """A calibrator for responses with these scores.

    Args:
        table: scores by name, arrays [n]. A response without a finite value of each is left out, and counted.
        right: verdicts [n]; an undecided answer is not known to be right.
        groups: problem of each response [n].
        features: scores to compute with; one for isotonic and temperature.
        method: logistic (scikit-learn's, with its penalty C = 1 on weights of standardised columns), isotonic (kept off
            0 and 1 by 1 / (n + 2)) or temperature (the T of the largest likelihood).
        source: what the responses were made with; those of SOURCE are stored.

    Raises:
        ValueError, in one line, for unusable input, and where the method has no answer: one class only, or a score
        that does not rise with being right (temperature).
    """
    columns, verdicts, problems, kept = _checked(table, right, groups, features, method)
    parameters = _fitted(columns[kept], verdicts[kept], method)
    number = int(verdicts[kept].sum())
    counts = {
        "responses": int(kept.sum()),
        "right": number,
        "wrong": int(kept.sum()) - number,
        "groups": len(set(problems[kept].tolist())),
        "left_out": int((~kept).sum()),
    }
    return Calibrator(
        method=method,
        features=tuple(features),
        parameters=parameters,
        counts=counts,
        versions={"bayesian_transformer": __version__, "scikit-learn": metadata.version("scikit-learn")},
        source={key: value for key, value in (source or {}).items() if key in SOURCE and value is not None},
        notes=tuple(_notes(columns[kept], verdicts[kept], problems[kept], features, counts["left_out"])),
    )


def cross_fit(
    table: Table,
    right: ArrayLike,
    groups: Groups,
    features: Sequence[str] = DECLARED,
    method: str = "logistic",
    folds: int = FOLDS,
    partition: int | None = None,
) -> CrossFit:
    """P(correct) of each response by a calibrator fitted on the other problems; the arguments are those of `fit`.

    `partition` is the seed of a random way to deal the problems into folds; without it they are dealt by their size.

    ValueError as in `fit`, and if there are fewer problems than folds or all answers outside a fold are of one class.
    """
    from sklearn.model_selection import GroupKFold

    columns, verdicts, problems, kept = _checked(table, right, groups, features, method)
    found = len(set(problems[kept].tolist()))
    if folds < 2:
        raise ValueError(f"cross-fitting needs at least 2 parts; got {folds}")
    if found < folds:
        raise ValueError(f"cross-fitting in {folds} parts needs at least {folds} problems; there are {found}")
    p_correct, base_rate = np.full(kept.size, np.nan), np.full(kept.size, np.nan)
    fold = np.full(kept.size, -1, dtype=np.int64)
    rows = np.flatnonzero(kept)
    splitter = GroupKFold(folds, shuffle=partition is not None, random_state=partition)
    for number, (others, part) in enumerate(splitter.split(rows, groups=problems[rows])):
        seen, unseen = rows[others], rows[part]
        _demand_both(verdicts[seen], f" outside of each of the {folds} parts")
        p_correct[unseen] = _fitted(columns[seen], verdicts[seen], method).predict(columns[unseen])
        base_rate[unseen] = verdicts[seen].mean()
        fold[unseen] = number
    return CrossFit(p_correct, base_rate, fold, verdicts)


def _checked(
    table: Table, right: ArrayLike, groups: Groups, features: Sequence[str], method: str
) -> tuple[Array, NDArray[np.bool_], NDArray[np.int64], NDArray[np.bool_]]:
    """Columns [n, k], verdicts [n], problems by number [n], and which responses have all values [n]."""
    require_extra("calibration", "sklearn")
    check_names(features)
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}; got {method!r}")
    if method != "logistic" and len(features) != 1:
        raise ValueError(f"{method} calibrates one score; got {', '.join(features)}")
    columns = columns_of(table, features, as_logits=method == "temperature")
    verdicts = labels(right, len(columns))
    if len(groups) != len(columns):
        raise ValueError(f"'groups' must name the problem of each of the {len(columns)} responses; got {len(groups)}")
    number = {name: index for index, name in enumerate(dict.fromkeys(groups))}
    problems = np.array([number[name] for name in groups], np.int64)
    _demand_values(columns, features)
    kept = np.array(np.isfinite(columns).all(axis=1))
    _demand_both(verdicts[kept], " with values of all scores")
    return columns, verdicts, problems, kept


def _fitted(columns: Array, right: NDArray[np.bool_], method: str) -> Logistic | Isotonic | Temperature:
    if method == "isotonic":
        return _isotonic(columns[:, 0], right)
    return _temperature(columns, right) if method == "temperature" else _logistic(columns, right)


def _demand_values(columns: Array, features: Sequence[str]) -> None:
    """ValueError, naming the score, where no response has a value, or values are too large to compute with."""
    for name, column in zip(features, columns.T, strict=True):
        known = column[np.isfinite(column)]
        if column.size and not known.size:
            raise ValueError(f"no response has a value of {name}; calibrate with other scores")
        with np.errstate(over="ignore"):
            if not np.isfinite(np.square(known).sum()):  # then neither are the mean and the spread sure to be
                raise ValueError(f"{name} has values as large as {np.abs(known).max():.3g}, too large to compute with")


def _demand_both(right: NDArray[np.bool_], where: str) -> None:
    """ValueError, in one line, unless there are right and wrong answers `where` they are needed."""
    if right.all() or not right.any():
        which = "there is none" if not right.size else f"all {right.size} are {'right' if right.all() else 'wrong'}"
        raise ValueError(f"calibration needs right and wrong answers{where}; {which}")


def _logistic(columns: Array, right: NDArray[np.bool_]) -> Logistic:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(columns)
    # This solver ends at the optimum itself, and draws nothing.
    model = LogisticRegression(solver="newton-cholesky", tol=1e-8).fit(scaler.transform(columns), right)
    return Logistic(
        tuple(scaler.mean_.tolist()),
        tuple(scaler.scale_.tolist()),
        tuple(model.coef_[0].tolist()),
        float(model.intercept_[0]),
    )


def _isotonic(score: Array, right: NDArray[np.bool_]) -> Isotonic:
    from sklearn.isotonic import IsotonicRegression

    edge = 1 / (right.size + 2)  # n labels do not show that something never happens
    model = IsotonicRegression(y_min=edge, y_max=1 - edge, out_of_bounds="clip").fit(score, right.astype(np.float64))
    return Isotonic(tuple(model.X_thresholds_.tolist()), tuple(model.y_thresholds_.tolist()))


def _temperature(logits: Array, right: NDArray[np.bool_]) -> Temperature:
    from sklearn.linear_model import LogisticRegression

    scale = float(np.abs(logits).max()) or 1.0
    # A penalty too small to be seen, which keeps T above 0 where the score separates right from wrong.
    model = LogisticRegression(C=1e6, fit_intercept=False, solver="newton-cholesky", tol=1e-8)
    slope = float(model.fit(logits / scale, right).coef_[0, 0]) / scale
    if slope <= 0:
        raise ValueError(
            "the score does not rise with being right, so no temperature fits; use logistic, or another score"
        )
    return Temperature(1 / slope)


def _notes(
    columns: Array, right: NDArray[np.bool_], problems: NDArray[np.int64], features: Sequence[str], left_out: int
) -> list[str]:
    """What whoever uses the calibrator must know. Labels are counted by problem, as copies of an answer add none."""
    notes = []
    fewest, which = rarer_class(right, problems.tolist())
    if fewest < ENOUGH:
        notes.append(
            f"only {fewest} problems have a {which} answer: with fewer than {ENOUGH} right and {ENOUGH} wrong ones "
            "P(correct) may be no better than the base rate"
        )
    if left_out:
        notes.append(f"{left_out} responses were left out: a score has no value there")
    constant = [name for name, column in zip(features, columns.T, strict=True) if np.ptp(column) == 0]
    if constant:
        notes.append(f"{', '.join(constant)}: the same value everywhere, which says nothing")
    return notes
