"""From N of the stored responses to one answer: majority vote, weighted vote, best of N, and pass@N as their ceiling.

Everything is an expectation where there is a tie: tied answers (or responses) are each taken with equal probability.
A response without an answer casts no vote. Accuracies are float64, one per subset.
"""

import math
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from bayesian_transformer.metrics import Array
from bayesian_transformer.scores import SAMPLED_SCORES

from .responses import NO_ANSWER, Problem

UNFILTERED = "none"  # the score name of what uses no score
METHODS = ("majority", "weighted", "best_of_n", "pass", "pass_expected", "single")


def subsets(question_id: str, seed: int, stored: int, size: int, repeats: int) -> NDArray[np.int64]:
    """`repeats` random subsets of `size` of the `stored` responses, in random order: indices [repeats, size].

    A function of its arguments alone: the same in every process and whichever other problems there are.
    """
    words = np.frombuffer(blake2b(question_id.encode(), digest_size=16).digest(), dtype="<u4")
    sequences = [np.random.SeedSequence([seed, size, repeat, *words.tolist()]) for repeat in range(repeats)]
    return np.stack([np.random.default_rng(sequence).permutation(stored)[:size] for sequence in sequences])


def problem_accuracy(
    problem: Problem, seed: int, size: int, repeats: int, p_val: float
) -> dict[tuple[str, str], Array]:
    """Accuracy [repeats] by (method, name of a score) on subsets of `size` responses, or on all if fewer are stored.

    Votes keep the best `p_val` of a subset by each score (rounded down, at least one), equal scores in the random
    order of the subset. A response without a value of the score comes last.
    """
    stored = problem.answers.size
    size = min(size, stored)
    index = subsets(problem.question_id, seed, stored, size, repeats)
    answers, right = problem.answers[index], problem.right[index]
    values = np.where(np.isnan(problem.values), -np.inf, problem.values)[:, index]  # [scores, repeats, size]
    best = np.argsort(-values, axis=-1, kind="stable")[..., : max(1, math.floor(p_val * size + 1e-9))]
    kept_answers = np.take_along_axis(answers[None], best, axis=-1)
    kept_values = np.take_along_axis(values, best, axis=-1)

    result: dict[tuple[str, str], Array] = {}
    everyone = _vote(answers[None], np.ones((1, *answers.shape)), problem.class_right)
    result["majority", UNFILTERED] = everyone[0]
    majority = _vote(kept_answers, np.ones(kept_answers.shape), problem.class_right)
    weighted = _vote(kept_answers, vote_weights(kept_values, kept_answers), problem.class_right)
    top = values == values.max(axis=-1, keepdims=True)
    best_of_n = np.divide((top & right).sum(axis=-1), top.sum(axis=-1))
    for row, score in enumerate(SAMPLED_SCORES):
        result["majority", score.name] = majority[row]
        result["weighted", score.name] = weighted[row]
        result["best_of_n", score.name] = best_of_n[row]
    result["pass", UNFILTERED] = np.asarray(right.any(axis=-1), dtype=np.float64)
    result["pass_expected", UNFILTERED] = np.full(repeats, pass_at(stored, int(problem.right.sum()), size))
    result["single", UNFILTERED] = np.asarray(right.mean(axis=-1))
    return result


def vote_weights(values: Array, answers: NDArray[np.int64]) -> Array:
    """softmax(score) over the last axis, up to a factor that does not change the vote; 0 without an answer.

    Shifted by the largest score that has an answer, so that at least one vote is 1. Without any value: all 1.
    """
    voters = np.where(answers == NO_ANSWER, -np.inf, values)
    largest = voters.max(axis=-1, keepdims=True)
    shifted = voters - np.where(np.isfinite(largest), largest, 0.0)
    return np.where(np.isfinite(largest), np.exp(shifted), 1.0)


def pass_at(stored: int, right: int, size: int) -> float:
    """Expected share of subsets with a right response, 1 - C(n - c, N) / C(n, N) (Chen et al., arXiv 2107.03374)."""
    return 1.0 - math.comb(stored - right, size) / math.comb(stored, size)


def _vote(answers: NDArray[np.int64], weights: Array, class_right: NDArray[np.bool_]) -> Array:
    """Probability that the winner is right, over the last axis of `answers`; 0 if nobody gives an answer."""
    shape, classes = answers.shape[:-1], class_right.size
    if not classes:
        return np.zeros(shape)
    rows = np.arange(math.prod(shape)).reshape(*shape, 1)
    bins = rows * (classes + 1) + np.where(answers == NO_ANSWER, classes, answers)
    votes = np.bincount(bins.ravel(), weights.ravel(), minlength=rows.size * (classes + 1))
    votes = votes.reshape(*shape, classes + 1)[..., :classes]
    most = votes.max(axis=-1, keepdims=True)
    winners = (votes >= most * (1 - 1e-12)) & (most > 0)  # sums of equal weights differ by rounding
    return (winners & class_right).sum(axis=-1) / np.maximum(winners.sum(axis=-1), 1)
