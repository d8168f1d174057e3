"""What a check found, and its verdict."""

from dataclasses import dataclass, field
from typing import Any

OK, WARNING, ERROR, NOT_APPLICABLE = VERDICTS = ("ok", "warning", "error", "n/a")


@dataclass(frozen=True)
class Finding:
    """The outcome of one check."""

    verdict: str  # one of VERDICTS
    found: str  # one line
    remedy: str = ""  # what to do about a warning or an error, naming the option, variable or command
    details: dict[str, Any] = field(default_factory=dict)  # JSON values, for `--json`

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise ValueError(f"verdict must be one of {', '.join(VERDICTS)}; got {self.verdict!r}")


def ok(found: str, **details: Any) -> Finding:
    """All is well."""
    return Finding(OK, found, details=details)


def warning(found: str, remedy: str, **details: Any) -> Finding:
    """TokUR works, but not as well as it could."""
    return Finding(WARNING, found, remedy, details)


def error(found: str, remedy: str = "", **details: Any) -> Finding:
    """Something does not work. Without a remedy, that of the check's row in the table applies."""
    return Finding(ERROR, found, remedy, details)


def not_applicable(found: str) -> Finding:
    """There is nothing to check here."""
    return Finding(NOT_APPLICABLE, found)
