"""A published name: grading is `bayesian_transformer.grading`."""

from bayesian_transformer.grading.grader import MAX_ANSWER, Grader, Verdict

__all__ = ["MAX_ANSWER", "Grader", "Verdict"]
