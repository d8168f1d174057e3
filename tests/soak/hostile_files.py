"""Files that nobody wrote on purpose: any bytes, and good files with a few things in them changed."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import click
from hypothesis import strategies as st

MOST_CHARACTERS = 1500  # of an error
_DEEP = "@deep@"  # stands for nested lists, which json.dumps refuses to write
_DEPTHS = (100, 400, 600, 900, 5000)
_ODD_TEXT = st.sampled_from(
    ("", " ", "\x00", "\ud800", "\udfff!", "\ufeff", "\u2028", "\r\n", "1e5", "nan", "-1", "../x", "é" * 300)
)
_ODD_NUMBER = st.sampled_from((0, -1, 10**400, -(10**30), 2**63, 1e308, -0.0, float("nan"), float("inf")))
_KEY = st.text(max_size=5) | _ODD_TEXT
_ODD_LIST = st.sampled_from(([], {}, [[]], [1, 2], {"a": [1]}, ["x"]))
_ODD = st.none() | st.booleans() | _ODD_TEXT | _ODD_NUMBER | _ODD_LIST | st.just(_DEEP)
json_values = st.recursive(
    _ODD | st.integers() | st.floats() | st.text(max_size=20),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(_KEY, children, max_size=4),
    max_leaves=6,
)
any_bytes = st.binary(max_size=300) | st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass"))


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Each container in a JSON value with each of its keys."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield value, key
        yield from places(item)


@st.composite
def changed(draw: st.DrawFn, value: Any) -> bytes:
    """JSON of `value` in one line, in which up to three values are replaced, removed, renamed or put twice."""
    value = deepcopy(value)
    for _ in range(draw(st.sampled_from((1, 1, 1, 2, 3, 0)))):
        found = list(places(value))
        outer = [place for place in found if place[0] is value]
        if not found:
            break
        container, key = draw(st.sampled_from(outer) | st.sampled_from(found))
        how = draw(st.sampled_from(("replace", "replace", "replace", "remove", "rename", "double")))
        if how == "remove":
            del container[key]
        elif how == "rename" and isinstance(container, dict):
            container[draw(_KEY)] = container.pop(key)
        elif how == "double" and isinstance(container, list):
            container.insert(key, container[key])
        else:
            container[key] = deepcopy(draw(_ODD | json_values))
    depth = draw(st.sampled_from(_DEPTHS))
    text = json.dumps(value, ensure_ascii=draw(st.booleans())).replace(f'"{_DEEP}"', "[" * depth + "]" * depth)
    return text.encode("utf-8", "surrogatepass")


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """The bytes, cut off, with others put in, or with a byte order mark; most of the time as they are."""
    how = draw(st.sampled_from((*5 * ("as it is",), "cut", "insert", "mark")))
    at = draw(st.integers(0, len(content)))
    if how == "cut":
        return content[:at]
    if how == "insert":
        return content[:at] + draw(any_bytes) + content[at:]
    return b"\xef\xbb\xbf" + content if how == "mark" else content


def hostile_document(value: Any) -> st.SearchStrategy[bytes]:
    """A file of one JSON document that was `value`, seldom any bytes."""
    return _mostly(changed(value))


def hostile_lines(rows: Sequence[Any]) -> st.SearchStrategy[bytes]:
    """A JSON Lines file that held these rows, of which some are changed and some left out. Seldom any bytes."""
    lines = [st.sampled_from((b"", good_line(row), good_line(row))) | changed(row).map(_ended) for row in rows]
    return _mostly(st.tuples(*lines).map(b"".join))


def good_line(value: Any) -> bytes:
    """`value` as a line of a JSON Lines file."""
    return _ended(json.dumps(value).encode())


def _ended(line: bytes) -> bytes:
    return line + b"\n"


def one_hostile(*files: tuple[bytes, st.SearchStrategy[bytes]]) -> st.SearchStrategy[list[bytes]]:
    """Several files, of which all but one are good, or all. Each is given as good content and a strategy."""
    good = [st.just(content) for content, _ in files]
    return st.one_of(*(st.tuples(*good[:at], files[at][1], *good[at + 1 :]).map(list) for at in range(len(files))))


def _mostly(content: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return st.integers(0, 7).flatmap(lambda number: content.flatmap(damaged) if number else any_bytes)


@contextmanager
def only_named_errors(*paths: Path) -> Iterator[None]:
    """Nothing but the errors of a command may be raised, and the message is short and names one of the files."""
    try:
        yield
    except (ValueError, click.ClickException) as error:
        check_named(error, *paths)


@contextmanager
def only_short_errors() -> Iterator[None]:
    """Nothing but a ValueError may be raised, whose message a caller puts behind the name of the file."""
    try:
        yield
    except ValueError as error:
        check_short(error)


def check_named(error: object, *paths: Path) -> None:
    """An error of a file is one line for a terminal and names the file."""
    assert any(str(path) in str(error) for path in paths), error
    check_short(str(error).replace(str(paths[0]), ""))


def check_short(error: object) -> None:
    """An error does not repeat all of a file."""
    assert len(str(error)) < MOST_CHARACTERS, error
