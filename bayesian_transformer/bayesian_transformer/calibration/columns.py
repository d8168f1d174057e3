"""From a table of scores to the columns that a calibrator computes with.

A table is a mapping from the names of scores.py to arrays [n], one value per response, NaN where there is none. Columns
are the scores themselves, with two exceptions: of `length` it is the logarithm of the token count, and the temperature
alone takes a log-likelihood as the logit of the probability that it is the logarithm of.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..scores import SCORE_BY_NAME

Array = NDArray[np.float64]
Table = Mapping[str, ArrayLike]

# Few, as each costs labels, and all stored with greedy and with sampled responses. Not blind: `ll_tail` is here because
# it had been the best single score on arithmetic problems, so figures on such problems are in its favour.
NOISE_FREE = ("ll_mean", "ll_tail", "self_certainty_mean", "confidence_mean", "length")
NOISY = ("eu_mean", "bir_mean")
DECLARED = (*NOISE_FREE, *NOISY)
# With many labels: cheap aggregations of every quantity that needs no noise. Chosen as a grid, not by results.
MANY_NOISE_FREE = (
    *(
        f"{prefix}_{how}"
        for prefix in ("ll", "entropy", "self_certainty", "confidence")
        for how in ("mean", "sum", "tail", "worst_decile")
    ),
    "length",
)
MANY = (*MANY_NOISE_FREE, *NOISY)
LABELS_PER_SCORE = 10  # of the rarer class; the usual rule of thumb (Peduzzi et al., J Clin Epidemiol 1996)
_OF_NOISE = {"total", "aleatoric", "epistemic", "implicit_reward"}
_LARGEST = -1e-12  # a log-likelihood of 0 has no finite logit


def check_names(features: Sequence[str]) -> None:
    """ValueError, in one line, unless all are names of scores.py and none comes twice."""
    unknown = [name for name in features if name not in SCORE_BY_NAME]
    if unknown:
        raise ValueError(f"no score is called {', '.join(map(repr, unknown))}; the names are those of scores.py")
    if not features or len(set(features)) != len(features):
        raise ValueError(f"features must be at least one score, each once; got {', '.join(features) or 'none'}")


def declared_scores(rarer: int) -> tuple[str, ...]:
    """The scores to compute with when `rarer` problems have an answer of the rarer class: MANY if these suffice."""
    return MANY if rarer >= LABELS_PER_SCORE * len(MANY) else DECLARED


def depend_on_noise(features: Sequence[str]) -> bool:
    """Whether one of the scores needs noisy weight samples, so that their number and sigma matter."""
    quantities = [SCORE_BY_NAME[name].quantity for name in features]
    return any(quantity is not None and quantity.name in _OF_NOISE for quantity in quantities)


def columns_of(table: Table, features: Sequence[str], as_logits: bool = False) -> Array:
    """The columns [n, k]; a row without a finite value in each has NaN where it has none.

    ValueError, in one line, if the table lacks a score or its arrays are not numbers of one length.
    """
    missing = [name for name in features if name not in table]
    if missing:
        raise ValueError(
            f"these results have no {', '.join(missing)}; the calibrator computes with {', '.join(features)}"
        )
    columns = [_column(name, table[name], as_logits) for name in features]
    sizes = {name: column.size for name, column in zip(features, columns, strict=True)}
    if len(set(sizes.values())) != 1:
        raise ValueError(f"the scores must have one value per response each; they have {sizes}")
    return np.stack(columns, axis=1)


def missing_values(columns: Array, features: Sequence[str]) -> list[str | None]:
    """For each response None, or why it has no P(correct)."""
    return [
        None if row.all() else f"no value of {', '.join(np.asarray(features)[~row])}" for row in np.isfinite(columns)
    ]


def labels(right: ArrayLike, size: int) -> NDArray[np.bool_]:
    """Verdicts as booleans [n]; ValueError unless there are `size` of them, each true or false."""
    found: NDArray[Any] = np.asarray(right)
    if found.shape != (size,) or not np.isin(found, (0, 1)).all():
        raise ValueError(f"'right' must say true or false for each of the {size} responses")
    return found.astype(bool)


def _column(name: str, values: ArrayLike, as_logits: bool) -> Array:
    try:
        column = np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} is not a list of numbers: {error}") from error
    if column.ndim != 1:
        raise ValueError(f"{name} must have one value per response; its shape is {list(column.shape)}")
    column[~np.isfinite(column)] = np.nan
    if name == "length":
        if (column > 0).any():
            raise ValueError("length must be minus the token count, as in scores.py; it is above 0")
        column = np.log(-column, out=np.full_like(column, np.nan), where=column < 0)
    elif as_logits and name.startswith("ll_"):
        column = np.minimum(column, _LARGEST)
        column -= np.log(-np.expm1(column))
    return column
