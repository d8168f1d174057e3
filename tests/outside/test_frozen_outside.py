"""What users can see is still there as it was stored: names, options, environment variables, keys and columns.

Additions pass. If something must go or change, `python -m tests.outside.record` stores it anew.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.outside.compare import losses
from tests.outside.names import describe
from tests.outside.record import KINDS, OUTSIDE, seen
from tests.outside.written_files import Written

FROZEN = json.loads(OUTSIDE.read_text(encoding="utf-8"))


@pytest.mark.parametrize("area", FROZEN)
def test_nothing_that_users_see_is_gone_or_changed(area: str, written: Written) -> None:
    found = list(losses(FROZEN[area], seen(area, FROZEN[area], written), area))
    if found:
        pytest.fail("\n".join([*found, "If that is meant: python -m tests.outside.record"]), pytrace=False)


def test_every_kind_of_area_is_stored() -> None:
    assert {area.partition(": ")[0] for area in FROZEN} == set(KINDS)


def before(path: str, rank: int = 8, *, seed: int = 0) -> None: ...


def optional_added(path: str, rank: int = 8, device: str = "cpu", *, dtype: str = "float32", seed: int = 0) -> None: ...


def other_default(path: str, rank: int = 4, *, seed: int = 0) -> None: ...


def one_removed(path: str, rank: int = 8) -> None: ...


def inserted(path: str, kind: str = "right", rank: int = 8, *, seed: int = 0) -> None: ...


def more_needed(path: str, rank: int = 8, *, seed: int = 0, kind: str) -> None: ...


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (before, []),
        (optional_added, []),
        (other_default, ["load: parameters: rank: default: was 8, is 4"]),
        (one_removed, ["load: parameters: seed: is gone"]),
        (inserted, ["load: parameters: rank: position: was 1, is 2"]),
        (more_needed, ["load: now needs kind"]),
    ],
)
def test_a_call_that_worked_must_work_and_mean_the_same(after: Callable[..., None], expected: list[str]) -> None:
    assert list(losses(describe(before), describe(after), "load")) == expected


class Before:
    kinds = ("right", "left")

    def grade(self, pairs: list[str]) -> None: ...

    @property
    def rank(self) -> int:
        return 8


@dataclass
class Settings:
    seed: int
    rank: int = 8


class After:
    kinds = ("left", "right")
    rank = 8


@dataclass
class OtherSettings:
    rank: int = 8
    sigma: float = 0.1


def test_members_and_fields_of_a_class_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.outside.names._OURS", {__name__.split(".")[0]})
    assert list(losses(describe(Before), describe(After))) == [
        "members: kinds: value: was ('right', 'left'), is ('left', 'right')",
        "members: grade: is gone",
        "members: rank: kind: is gone",
    ]
    assert list(losses(describe(Settings), describe(OtherSettings))) == [
        "fields: seed: is gone",
        "fields: rank: position: was 1, is 0",
    ]


@pytest.mark.parametrize(
    ("frozen", "found", "expected"),
    [
        ({"--mode": {"choices": ["all"]}}, {"--mode": {"choices": ["pass", "all"]}, "--new": {}}, []),
        ({"--mode": {"choices": ["all", "pass"]}}, {"--mode": {"choices": ["all"]}}, ["--mode: choices: pass is gone"]),
        ({"line": {"total": {}, "seed": {}}}, {"line": {"total": {}, "more": {}}}, ["line: seed: is gone"]),
        ({"--seed": {"default": "96"}}, {"--seed": {}}, ["--seed: default: is gone"]),
    ],
)
def test_options_and_keys_may_only_be_added(frozen: Any, found: Any, expected: list[str]) -> None:
    assert list(losses(frozen, found)) == expected
