"""A published name: symbolic comparison is in `bayesian_transformer.grading.symbolic`. Call it in a worker only."""

from bayesian_transformer.grading.symbolic import DIGITS, SYMPY_ERRORS, canonical, equal

__all__ = ["DIGITS", "SYMPY_ERRORS", "canonical", "equal"]
