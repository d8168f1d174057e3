"""When a number written with decimals stands for another one.

A tolerance is relative, and for a gold answer with decimals only. Next to an exact gold answer (an integer, a fraction,
a root) a decimal must be that number rounded to the digits that are written, and the digits must be enough to tell it
from its neighbours: 0.3333 is 1/3, 0.33 and 0.3334 are not. Next to an integer nothing is forgiven, but for HALF_LEFT.
"""

from fractions import Fraction

RELATIVE_TOLERANCE = 1e-4  # of a gold answer with decimals; what a rounding of an exact one may differ at most
ROUGHLY = 5e-2  # relative difference of a number and its rounding to two digits, such as 8/3 = 2.7
HALF_LEFT = 2e-6  # of a large whole number, below which a half left over is forgiven: 276000.5 is 276000


def is_near(gold: Fraction, answer: Fraction, tolerance: float = RELATIVE_TOLERANCE) -> bool:
    """Whether `answer` is within `tolerance` of `gold`, relative to `gold`."""
    return abs(answer - gold) <= Fraction(tolerance) * abs(gold)


def is_rounding(exact: Fraction, answer: Fraction, unit: Fraction) -> bool:
    """Whether `answer`, whose last written digit counts `unit`, is `exact` rounded to its digits, and near it.

    Halves may be rounded either way. A half left over after a whole number is forgiven where the number is so large
    that nobody can mean its neighbour's half.
    """
    if exact.denominator == 1 and unit < 1 and abs(answer - exact) == Fraction(1, 2):
        return is_near(exact, answer, HALF_LEFT)
    return abs(answer - exact) <= unit / 2 and is_near(exact, answer)


def last_place(value: Fraction) -> Fraction:
    """What the last decimal of a number counts, for one with finitely many decimals; 1 of a whole number."""
    place = Fraction(1)
    while (value / place).denominator > 1:
        place /= 10
    return place
