"""One reader of JSON Lines, for data sets, results, scores and the heat map: what editors and other programs make."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bayesian_transformer.files import parse_json, read_document, read_jsonl
from bayesian_transformer.heat_map.records import BadRecord, read_records
from bayesian_transformer.problems import load_problems
from bayesian_transformer.score import BadLine, parse_line, read_lines

ROWS = [{"unique_id": str(i), "problem": f"é {i}?", "answer": "1", "prompt": "p", "response": "r"} for i in range(3)]
LINES = [json.dumps(row, ensure_ascii=False).encode() for row in ROWS]
MARK = b"\xef\xbb\xbf"


def by_score(path: Path) -> list[dict]:
    return [parse_line(line, 0)[0] for _, line in read_lines(path)]


def by_heat_map(path: Path) -> list[dict]:
    found = []
    for _, record in read_records(path):
        if isinstance(record, BadRecord):
            raise record
        del record["line"]
        found.append(record)
    return found


READERS: list[Callable[[Path], list[dict]]] = [load_problems, by_score, by_heat_map, read_jsonl]
readers = pytest.mark.parametrize("read", READERS)


@readers
@pytest.mark.parametrize(
    "content",
    [
        b"\n".join(LINES),
        MARK + b"\n".join(LINES) + b"\n",  # https://github.com/microsoft/promptflow/issues/3670
        b"\r\n".join(LINES) + b"\r\n",
        MARK + b"\r\n\r\n" + b"\r\n \t\r\n".join(LINES) + b"\n\n\n",
    ],
)
def test_what_editors_add_changes_nothing(tmp_path: Path, read: Callable[[Path], list[dict]], content: bytes) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    assert read(path) == ROWS


@readers
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\n".join(LINES).decode().encode("utf-16"), "UTF-16 or UTF-32; save the file as UTF-8"),
        (b"\n".join(LINES).decode().encode("utf-16-le"), "UTF-16 or UTF-32; save the file as UTF-8"),
        (b"\n".join(LINES).decode().encode("utf-16-be"), "UTF-16 or UTF-32; save the file as UTF-8"),
        (b"\n".join(LINES).decode().encode("utf-32"), "UTF-16 or UTF-32; save the file as UTF-8"),
        (b"\n".join(LINES).decode().encode("latin-1"), "not valid UTF-8 .* at byte .*; save the file as UTF-8"),
        (json.dumps(ROWS).encode(), "expected a JSON object, got list; write one object on each line"),
        (json.dumps(ROWS, indent=1).encode(), "ends after its first bracket.; write one object on each line"),
        (json.dumps(ROWS[0], indent=1).encode(), "ends after its first bracket.; write one object on each line"),
        (b'{"answer": 1, "answer": 2}', "the key 'answer' occurs twice"),
        (b'{"a": {"b": 1, "b": 1}}', "the key 'b' occurs twice"),
        (b'"text"', "expected a JSON object, got str"),
        (b"[" * 100_000, "not valid JSON"),
        (b"\0" * 100, "not valid JSON"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(
    tmp_path: Path, read: Callable[[Path], list[dict]], content: bytes, said: str
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises((ValueError, BadLine), match=said) as caught:
        read(path)
    assert "\n" not in str(caught.value)


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_whatever_a_line_holds_is_read_or_refused_in_one_line(content: bytes) -> None:
    said = ""
    try:
        parse_json(content, "mend it")
    except ValueError as error:
        said = str(error)
    assert "\n" not in said


def test_documents_are_read_as_lines_are(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(MARK + b'{"a": 1}')
    assert read_document(path, "mend it") == {"a": 1}
    for content, said in ((b'{"a": 1, "a": 2}', "'a' occurs twice"), (b"[]", "got list"), (b"", "not valid JSON")):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"x\.json: .*{said}.*; mend it"):
            read_document(path, "mend it")
