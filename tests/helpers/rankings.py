"""Scores with ties and labels for the tests of the ranking metrics, and what a random order of ties gives."""

import itertools

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from bayesian_transformer.metrics import Array

Data = tuple[Array, NDArray[np.bool_]]  # scores and labels


def ones(size: int) -> NDArray[np.int32]:
    """One weighting that counts each response once."""
    return np.ones((1, size), dtype=np.int32)


def responses(min_size: int = 2, max_size: int = 30) -> st.SearchStrategy[Data]:
    """Scores on a coarse grid, so that ties are common, with labels."""
    pairs = st.tuples(st.integers(-4, 4).map(lambda v: v / 4), st.booleans())
    return st.lists(pairs, min_size=min_size, max_size=max_size).map(
        lambda rows: (np.array([r[0] for r in rows]), np.array([r[1] for r in rows]))
    )


both_labels = responses().filter(lambda data: 0 < data[1].sum() < len(data[1]))


def accuracies_over_all_orders(score: Array, right: NDArray[np.bool_]) -> Array:
    """Accuracy of the k most confident for k = 1..n, averaged over every order of tied responses."""
    order = np.argsort(-score, kind="stable")
    groups = [list(group) for _, group in itertools.groupby(order, key=lambda index: score[index])]
    rows = []
    for orders in itertools.product(*(itertools.permutations(group) for group in groups)):
        labels = right[[index for group in orders for index in group]]
        rows.append(np.cumsum(labels) / np.arange(1, len(labels) + 1))
    return np.mean(rows, axis=0)


def perfect_accuracies(right: NDArray[np.bool_]) -> Array:
    """Accuracy of the k most confident for k = 1..n if every right response comes before every wrong one."""
    return np.cumsum(np.sort(right)[::-1]) / np.arange(1, len(right) + 1)
