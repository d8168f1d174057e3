"""Which scores a calibrator is made of."""

import numpy as np

from bayesian_transformer.calibration import DECLARED, MANY, NOISY, declared_scores, rarer_class


def test_with_ten_labels_for_each_more_scores_are_used() -> None:
    assert MANY[-2:] == NOISY == DECLARED[-2:]
    assert (declared_scores(10 * len(MANY) - 1), declared_scores(10 * len(MANY))) == (DECLARED, MANY)
    right = np.array([True, True, True, False, False])
    assert rarer_class(right, [1, 1, 2, 3, 4]) == (2, "right")  # two problems of three answers
    assert rarer_class(~right, [1, 1, 2, 3, 4]) == (2, "right")
    assert rarer_class(~right, [1, 2, 3, 4, 4]) == (1, "right")
    assert rarer_class(right, [1, 2, 3, 4, 4]) == (1, "wrong")
