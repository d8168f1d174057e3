"""Which scores a calibrator is made of, and how well a score chooses among the answers to one problem."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bayesian_transformer.calibration import DECLARED, MANY, NOISY, auroc_within, declared_scores, rarer_class


@given(
    st.lists(
        st.tuples(st.one_of(st.integers(0, 3), st.just(float("nan"))), st.booleans(), st.sampled_from("abc")),
        max_size=25,
    )
)
def test_auroc_within_groups_equals_all_pairs(rows: list[tuple[float, bool, str]]) -> None:
    pairs = [
        (one > other) + 0.5 * (one == other)
        for one, right, group in rows
        for other, wrong, same in rows
        if right and not wrong and group == same and not np.isnan([one, other]).any()
    ]
    values = np.array([row[0] for row in rows], dtype=np.float64)
    found = auroc_within(values, np.array([row[1] for row in rows], dtype=bool), [row[2] for row in rows])
    assert found == pytest.approx(sum(pairs) / len(pairs) if pairs else np.nan, nan_ok=True)


def test_with_ten_labels_for_each_more_scores_are_used() -> None:
    assert MANY[-2:] == NOISY == DECLARED[-2:]
    assert (declared_scores(10 * len(MANY) - 1), declared_scores(10 * len(MANY))) == (DECLARED, MANY)
    right = np.array([True, True, True, False, False])
    assert rarer_class(right, [1, 1, 2, 3, 4]) == (2, "right")  # two problems of three answers
    assert rarer_class(~right, [1, 1, 2, 3, 4]) == (2, "right")
    assert rarer_class(~right, [1, 2, 3, 4, 4]) == (1, "right")
    assert rarer_class(right, [1, 2, 3, 4, 4]) == (1, "wrong")
