"""A published name: the normal form of answers is in `bayesian_transformer.grading.normal_form`.

Never put this folder on sys.path: this file would take the place of Python's own `math`.
"""

from bayesian_transformer.grading.normal_form import (
    DECIMAL,
    MAX_EXPONENT,
    MAX_NUMBER,
    RELATIVE_TOLERANCE,
    ROUGHLY,
    SCALE,
    TEXT,
    VULGAR,
    Number,
    normalize,
    number,
)

__all__ = [
    "DECIMAL",
    "MAX_EXPONENT",
    "MAX_NUMBER",
    "RELATIVE_TOLERANCE",
    "ROUGHLY",
    "SCALE",
    "TEXT",
    "VULGAR",
    "Number",
    "normalize",
    "number",
]
