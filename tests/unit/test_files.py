"""Files that survive a kill."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bayesian_transformer.files import append_jsonl, atomic_path, drop_torn_line, read_jsonl, write_json

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=8,
)


def test_a_failed_block_leaves_the_old_file_and_no_temporary(tmp_path: Path) -> None:
    target = tmp_path / "out.json"
    write_json(target, {"old": 1})

    def fail_half_way() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert json.loads(target.read_text()) == {"old": 1}
    assert list(tmp_path.iterdir()) == [target]


@given(st.lists(st.dictionaries(st.text(), json_values), max_size=5))
@settings(deadline=None)  # every line is synced to the disk
def test_lines_round_trip(tmp_path_factory: pytest.TempPathFactory, rows: list[dict]) -> None:
    path = tmp_path_factory.mktemp("jsonl") / "rows.jsonl"
    path.touch()
    for row in rows:
        append_jsonl(path, row)
    assert read_jsonl(path) == rows


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_torn_last_line_is_dropped_and_appending_goes_on(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "rows.jsonl"
    append_jsonl(path, {"a": 1})
    append_jsonl(path, {"b": "é"})
    path.write_bytes(path.read_bytes()[:-cut])
    if cut == 1:  # only the newline is missing
        assert read_jsonl(path) == [{"a": 1}, {"b": "é"}]
    else:
        assert read_jsonl(path, torn_end=True) == [{"a": 1}]
        with pytest.raises(ValueError, match=r"rows\.jsonl:2: not "):
            read_jsonl(path)
    drop_torn_line(path)
    assert read_jsonl(path) == [{"a": 1}]
    append_jsonl(path, {"c": 3})
    assert read_jsonl(path) == [{"a": 1}, {"c": 3}]


def test_bad_lines_are_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\nnonsense\n{"b": 2}\n')
    with pytest.raises(ValueError, match=r"rows\.jsonl:2: not valid JSON"):
        read_jsonl(path)
    path.write_bytes('{"a": 1}\n{"b": "é"}\n{"b": 2}\n'.encode("latin-1"))
    for torn_end in (False, True):
        with pytest.raises(
            ValueError, match=r"rows\.jsonl:2: not valid UTF-8 \(.* at byte 8\); save the file as UTF-8"
        ):
            read_jsonl(path, torn_end)
    path.write_text("[1]\n")
    with pytest.raises(ValueError, match=r"rows\.jsonl:1: expected a JSON object, got list"):
        read_jsonl(path)


def test_numbers_that_json_lacks_become_null(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"x": [float("inf"), float("nan"), 1.5], "y": (float("-inf"),)})
    assert json.loads((tmp_path / "x.json").read_text()) == {"x": [None, None, 1.5], "y": [None]}
