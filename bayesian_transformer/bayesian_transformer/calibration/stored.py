"""A JSON object whose keys are read with their types; what is wrong is one line with the file and the key."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class StoredObject:
    """An object in a file. All methods raise ValueError for a key that is absent or holds something else."""

    path: Path
    values: Mapping[str, Any]
    inside: str = ""  # the keys that lead to it

    def demand(self, key: str, holds: bool, otherwise: str) -> None:
        """ValueError that says `otherwise` of the key, unless it `holds`."""
        if not holds:
            raise ValueError(f"{self.path}: {self.inside + key!r} {otherwise}; fit the calibrator again")

    def number(self, key: str) -> float:
        value = self._of(key, (int, float), "a number")
        self.demand(key, _is_finite(value), "is not finite")
        return float(value)

    def share(self, key: str) -> float:
        value = self.number(key)
        self.demand(key, 0 <= value <= 1, "must be between 0 and 1")
        return value

    def integer(self, key: str) -> int:
        return int(self._of(key, int, "a whole number"))

    def text(self, key: str) -> str:
        return str(self._of(key, str, "a text"))

    def numbers(self, key: str) -> tuple[float, ...]:
        values = self._of(key, list, "a list")
        fine = all(_is(value, (int, float)) and _is_finite(value) for value in values)
        self.demand(key, fine, "must be a list of finite numbers")
        return tuple(float(value) for value in values)

    def texts(self, key: str) -> tuple[str, ...]:
        values = self._of(key, list, "a list")
        self.demand(key, all(isinstance(value, str) for value in values), "must be a list of texts")
        return tuple(values)

    def object(self, key: str) -> "StoredObject":
        return StoredObject(self.path, self._of(key, dict, "an object"), f"{self.inside}{key}.")

    def _of(self, key: str, kind: type | tuple[type, ...], called: str) -> Any:
        self.demand(key, key in self.values, "is absent")
        self.demand(key, _is(self.values[key], kind), f"must be {called}")
        return self.values[key]


def _is(value: Any, kind: type | tuple[type, ...]) -> bool:
    """isinstance, but true and false are not numbers."""
    return isinstance(value, kind) and not isinstance(value, bool)


def _is_finite(value: float) -> bool:
    """Whether a float can hold the number; a whole number of JSON may be larger, and math.isfinite fails on it."""
    return abs(value) <= sys.float_info.max
