"""The stored generations evaluate to the numbers that are stored in tests/data/tables, cell by cell.

New columns and rows pass. If a number must change, `python -m tests.outside.record --tables` stores all anew.
"""

import math
from collections.abc import Iterator

import pytest

from tests.outside.record import SCALING_TABLES, TABLES, tables
from tests.outside.written_files import DETECTION_TABLES, Written, rows

# Scores of the detection tables whose name did not say whether it is a sum or a mean, with the name that they have now.
_SCORES = {
    **{"tu": "tu_sum", "au": "au_sum", "eu": "eu_sum", "bir": "bir_sum", "pe": "entropy_sum"},
    **{"ntu": "tu_mean", "nau": "au_mean", "neu": "eu_mean", "nbir": "bir_mean", "npe": "entropy_mean"},
    **{"ll": "ll_mean", "ce": "self_certainty_mean", "ce_sum": "self_certainty_sum"},
    **{"dc": "confidence_mean", "dc_sum": "confidence_sum"},
    **{"dc_low": "confidence_lowest_group", "dc_bottom": "confidence_bottom_groups"},
}
_PUBLISHED_METRICS = ("auc", "auprc", "top10", "top25", "top50", "top75")
_METRICS = (*_PUBLISHED_METRICS, "prr", "aurc", "auc_strata", "auc_residual", "auc_gain")
_PUBLISHED = [f"{metric}_{score}" for metric in _PUBLISHED_METRICS for score in ("tu", "au", "eu", "ll")]
_COLUMNS = {f"{metric}_{old}": f"{metric}_{new}" for metric in _METRICS for old, new in _SCORES.items()}

# Stored name -> the name that it has now, of columns, metrics and scores that were renamed. The two evaluations have
# different names for the same score: the published `ll` is a mean in detection and a sum in scaling.
RENAMED = {
    "detection": _SCORES | {old: new for old, new in _COLUMNS.items() if old not in _PUBLISHED},
    "scaling": {"npe": "entropy_mean", "nbir": "bir_mean"},
}

_DETAILED, _SUMMARY, _RESPONSES = DETECTION_TABLES
# What tells the rows of a table apart.
KEYS = {_DETAILED: ("seed",), _SUMMARY: ("metric",), _RESPONSES: ("seed", "question_id")}
KEYS |= dict.fromkeys(SCALING_TABLES, ("method", "score", "n", "p_val"))
# How many numbers are stored, but for the keys.
CELLS = {_DETAILED: 2 * 212, _SUMMARY: 212 * 8, _RESPONSES: 152 * 21} | dict.fromkeys(SCALING_TABLES, 215 * 6)
RELATIVE, ABSOLUTE = 1e-9, 1e-12  # what another order of additions may change

Table = dict[tuple[str, ...], dict[str, str]]


def by_key(table: list[dict[str, str]], keys: tuple[str, ...]) -> Table:
    """The rows by the cells of their `keys`."""
    result = {tuple(row[key] for key in keys): row for row in table}
    assert len(result) == len(table), f"rows that {keys} do not tell apart"
    return result


def renamed(table: list[dict[str, str]], names: dict[str, str]) -> list[dict[str, str]]:
    """Stored rows with the columns, metrics and scores that they have now."""
    return [{names.get(column, column): names.get(cell, cell) for column, cell in row.items()} for row in table]


def same(stored: str, found: str) -> bool:
    """Whether two cells are equal: as text, or nearly as numbers. An empty cell is not a number."""
    try:
        return stored == found or math.isclose(float(stored), float(found), rel_tol=RELATIVE, abs_tol=ABSOLUTE)
    except ValueError:
        return False


def differences(stored: Table, found: Table) -> Iterator[str]:
    """One sentence for each stored cell that is gone or has another value."""
    for key, row in stored.items():
        where = " ".join(key)
        if key not in found:
            yield f"{where}: the row is gone"
            continue
        for column, cell in row.items():
            if column not in found[key]:
                yield f"{where}: column {column} is gone"
            elif not same(cell, found[key][column]):
                yield f"{where}, {column}: was {cell or 'empty'}, is {found[key][column] or 'empty'}"


@pytest.mark.parametrize("name", KEYS)
def test_every_stored_number_is_the_same(name: str, written: Written) -> None:
    names = RENAMED["detection" if name in DETECTION_TABLES else "scaling"]
    keys = tuple(names.get(key, key) for key in KEYS[name])
    stored = by_key(renamed(rows(TABLES / name), names), keys)
    assert sum(len(row) - len(keys) for row in stored.values()) >= CELLS[name]
    found = list(differences(stored, by_key(rows(tables(written)[name]), keys)))
    if found:
        advice = f"{len(found)} differences. If they are meant: python -m tests.outside.record --tables"
        pytest.fail("\n".join([f"{name}:", *found[:20], advice]), pytrace=False)


def metrics_of(name: str, written: Written) -> dict[str, list[str]]:
    """All numbers of each metric in a detection table, in order."""
    table = rows(tables(written)[name])
    if name == _DETAILED:
        return {column: [row[column] for row in table] for column in table[0]}
    return {row["metric"]: [cell for column, cell in row.items() if column != "metric"] for row in table}


@pytest.mark.parametrize("name", [_DETAILED, _SUMMARY])
def test_published_columns_hold_what_their_new_columns_hold(name: str, written: Written) -> None:
    found = metrics_of(name, written)
    assert {alias: found[alias] for alias in _PUBLISHED} == {alias: found[_COLUMNS[alias]] for alias in _PUBLISHED}


def test_a_scaling_row_names_its_score_in_both_spellings(written: Written) -> None:
    published = {"nau": "au_mean", "neu": "eu_mean", "ntu": "tu_mean", "au": "au_sum", "eu": "eu_sum", "tu": "tu_sum"}
    published |= {"nll": "ll_mean", "ll": "ll_sum", "ce": "self_certainty_mean", "dc": "confidence_mean"}
    same_in_both = ("entropy_mean", "bir_mean", "length", "none")
    found = {(row["score"], row["name"]) for row in rows(tables(written)["scaling_0.9.csv"])}
    assert found == {*published.items(), *((name, name) for name in same_in_both)}


def test_renamed_columns_and_rows_are_compared_under_their_new_names() -> None:
    names = {"auc_ll": "auc_ll_mean", "mean": "average"}
    stored = by_key(renamed([{"metric": "auc_ll", "mean": "0.5"}], names), ("metric",))
    assert list(differences(stored, {("auc_ll_mean",): {"metric": "auc_ll_mean", "average": "0.5"}})) == []


def test_one_changed_cell_row_or_column_is_a_difference() -> None:
    stored: Table = {("96", "arithmetic_1"): {"seed": "96", "question_id": "arithmetic_1", "tu": "0.1", "ll": ""}}
    assert list(differences(stored, {key: row | {"tu": "0.10000000000001"} for key, row in stored.items()})) == []
    changed = {key: row | {"tu": "0.1000001", "ll": "0.0"} for key, row in stored.items()}
    assert list(differences(stored, changed)) == [
        "96 arithmetic_1, tu: was 0.1, is 0.1000001",
        "96 arithmetic_1, ll: was empty, is 0.0",
    ]
    fewer = {key: {name: cell for name, cell in row.items() if name != "tu"} for key, row in stored.items()}
    assert list(differences(stored, fewer)) == ["96 arithmetic_1: column tu is gone"]
    assert list(differences(stored, {})) == ["96 arithmetic_1: the row is gone"]
