"""A published name: symbolic comparison is in `bayesian_transformer.grading.symbolic`. Call it in a worker only."""

from bayesian_transformer.grading.canonical import DIGITS, canonical
from bayesian_transformer.grading.scalars import SYMPY_ERRORS
from bayesian_transformer.grading.symbolic import equal

__all__ = ["DIGITS", "SYMPY_ERRORS", "canonical", "equal"]
