"""A small part of the campaign on the number of labels."""

from .calibration_labels import broken_promises, run


def test_fifty_of_the_rarer_class_are_enough() -> None:
    """And ten are not, with scores whose AUROC is 0.70; `run` itself asserts the first."""
    figures = run(draws=20, seed=1, fewest=(10, 50))
    assert figures["auroc 0.7, accuracy 0.2, 50 labels: better on unseen"] < 0.6


def test_the_promise_holds_with_cross_fitted_predictions() -> None:
    figures = broken_promises(draws=60, count=300, alpha=0.2, delta=0.1, seed=1)
    assert figures["300 labels: reached"] > 0.3
    assert figures["300 labels: broken"] <= 0.1
