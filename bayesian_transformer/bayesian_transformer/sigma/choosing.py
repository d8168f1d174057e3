"""Which sigma to recommend, and which one to try next.

The tolerance is a convention. No theory ties the share of flipped tokens to how well the uncertainties detect errors.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from .summary import Row


@dataclass(frozen=True)
class Choice:
    """The largest sigma that keeps to the tolerance, for one number of weight samples; None if no sigma tried does."""

    num_samples: int
    sigma: float | None
    text: str  # for people


def first_above(rows: Sequence[Row], tolerance: float) -> int:
    """The place of the first row, by sigma, whose flip rate is above the tolerance; the number of rows if none is.

    A larger sigma that keeps to it again does so by chance, and does not count.
    """
    return next((place for place, row in enumerate(rows) if row.flip_rate > tolerance), len(rows))


def next_sigma(rows: Sequence[Row], tolerance: float) -> float | None:
    """A sigma between the last one that keeps to the tolerance and the first that does not, with three digits.

    It is their geometric mean. Below the smallest one tried it is half of that, as nothing flips at 0. None if all keep
    to the tolerance, and if three digits leave nothing between. `rows` are of one number of samples, by sigma.
    """
    place = first_above(rows, tolerance)
    if place == len(rows):
        return None
    high = rows[place].sigma
    low = rows[place - 1].sigma if place else 0.0
    middle = float(f"{(low * high) ** 0.5 if low else high / 2:.3g}")
    return middle if low < middle < high else None


def recommend(rows: Sequence[Row], tolerance: float) -> Choice:
    """What to recommend after `rows`, which are of one number of samples, by sigma."""
    place, count = first_above(rows, tolerance), rows[0].num_samples
    limit = f"{100 * tolerance:g} %"
    if not place:
        smallest = rows[0]
        return Choice(
            count,
            None,
            f"none of these: even sigma {smallest.sigma:g} flips {100 * smallest.flip_rate:.2f} % of the tokens, more "
            f"than {limit}; try smaller ones, or --bisect",
        )
    row = rows[place - 1]
    text = f"sigma {row.sigma:g}, which flips {100 * row.flip_rate:.2f} % of the tokens (at most {limit})"
    if place == len(rows):
        text += "; even the largest one tried keeps to it, so a larger one may too"
    if row.flip_rate_interval is not None and row.flip_rate_interval[1] > tolerance:
        text += f"; its interval reaches {100 * row.flip_rate_interval[1]:.2f} %, so more texts could overturn it"
    if any(later.flip_rate <= tolerance for later in rows[place:]):
        text += "; a larger sigma keeps to it again, which is chance"
    return Choice(count, row.sigma, text)
