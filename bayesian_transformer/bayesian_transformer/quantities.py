"""The eight quantities of a token: what each is called in Python, vLLM and files, and which way it points.

All are in nats. This is the one table; the formulas are in uncertainty.py. The order is that of every table of eight
columns: tensors [N, 8], the rows that leave the vLLM worker, the kernels in C++ and Triton.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Quantity:
    """One quantity of a token."""

    name: str  # of the field of TokenUncertainty and of the array in JSON files
    attribute: str  # of the field of Uncertainty, which vLLM's outputs hold; the published name where there is one
    symbol: str  # for people
    label: str  # for people
    prefix: str  # of the names of response scores: tu_sum, tu_mean
    sign: int  # 1 where a larger value means a more confident token, -1 where it means a less confident one
    from_zero: bool = True  # whether 0 is the end of its range


QUANTITIES = (
    Quantity("total", "total_uncertainty", "TU", "total uncertainty", "tu", -1),
    Quantity("aleatoric", "aleatoric_uncertainty", "AU", "aleatoric uncertainty", "au", -1),
    Quantity("epistemic", "epistemic_uncertainty", "EU", "epistemic uncertainty", "eu", -1),
    # A Jensen gap: 0 when all weight samples agree on the token, so larger is less confident.
    Quantity("implicit_reward", "bayes_implicit_reward", "BIR", "Bayesian implicit reward", "bir", -1),
    Quantity("logprob", "logprob", "logprob", "log-probability of the token", "ll", 1),
    Quantity("entropy", "entropy", "entropy", "entropy of the noise-free model", "entropy", -1),
    Quantity(
        "self_certainty",
        "self_certainty",
        "self-certainty",
        "self-certainty of the noise-free model",
        "self_certainty",
        1,
        False,
    ),
    Quantity("confidence", "confidence", "confidence", "DeepConf's token confidence", "confidence", 1, False),
)
FIELDS = tuple(quantity.name for quantity in QUANTITIES)
ATTRIBUTES = tuple(quantity.attribute for quantity in QUANTITIES)
QUANTITY_BY_NAME = {quantity.name: quantity for quantity in QUANTITIES}


def without_value(arrays: Iterable[object]) -> bool:
    """Whether the arrays of a response, [tokens] each, hold values of which not one is finite.

    None stands for a value that is not, as in JSON. A response without tokens has no values, so it is not meant.
    """
    values = [value for array in arrays if isinstance(array, list) for value in array]
    return bool(values) and not any(isinstance(value, int | float) and math.isfinite(value) for value in values)
