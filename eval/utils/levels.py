"""The levels of a data set: the difficulty of MATH problems, the kind of arithmetic problems. Text or number."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

NO_LEVEL = -1


def level_name(value: object) -> str | None:
    """The level in a stored record as text: 5, 5.0 and "5" are the same one. None for what is no text or number."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else None


def level_codes(levels: Sequence[str | None]) -> NDArray[np.int64]:
    """A whole number >= 0 for each level, [n]; NO_LEVEL without one, and for all if there is one level only."""
    names = sorted({level for level in levels if level is not None})
    if len(names) < 2:
        return np.full(len(levels), NO_LEVEL, dtype=np.int64)
    codes: dict[str | None, int] = {name: code for code, name in enumerate(names)} | {None: NO_LEVEL}
    return np.array([codes[level] for level in levels], dtype=np.int64)
