"""How likely is this answer right, and from where on may it be trusted? From scores of responses to P(correct).

`fit` learns P(correct) from scored and graded responses, `cross_fit` says how good that is on problems that it has not
seen, and `threshold_for` draws the line above which answers are wrong with at most a chosen share. A `Calibrator` is
stored as JSON; using one needs numpy alone. `fit` and `threshold_for` need the extra [calibration].
"""

from ..metrics import rarer_class
from .calibrator import Calibrator, Isotonic, Logistic, Temperature
from .columns import DECLARED, MANY, NOISE_FREE, NOISY, declared_scores
from .learning import ENOUGH, CrossFit, cross_fit, fit
from .risk import RiskThreshold, quantile_grid, threshold_for

__all__ = [
    "DECLARED",
    "ENOUGH",
    "MANY",
    "NOISE_FREE",
    "NOISY",
    "Calibrator",
    "CrossFit",
    "Isotonic",
    "Logistic",
    "RiskThreshold",
    "Temperature",
    "cross_fit",
    "declared_scores",
    "fit",
    "quantile_grid",
    "rarer_class",
    "threshold_for",
]
