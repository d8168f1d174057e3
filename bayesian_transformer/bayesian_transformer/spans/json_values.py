"""The scalar values of a JSON answer: where each stands in the text, by its path.

A scanner that keeps positions, which `json` does not. On a document that `json.loads` reads it finds the same values.
It also reads one that the text cuts off, up to the cut. It needs one pass and no recursion.

Beyond `json.loads` it takes any escape and raw line breaks inside strings, for models write LaTeX into them. Anything
else that is wrong, as a comma too many, makes it no JSON, which has no values.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .text_span import Span
from .thinking import final_parts

LONGEST_PATH = 500  # characters of a path; bounds the memory of a response made of nothing but brackets

_BLANK = re.compile(r"[ \t\n\r]*")
_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)  # without the closing quote
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][-+]?[0-9]++)?")
_NUMBER_LIKE = re.compile(r"-?[0-9.eE+-]*+")
_WORDS = ("true", "false", "null", "NaN", "Infinity", "-Infinity")
_PLAIN_KEY = re.compile(r"[A-Za-z_\x80-\U0010ffff][0-9A-Za-z_\x80-\U0010ffff]*")
_FENCE = re.compile(r"^[ \t]*```[ \t]*(?:json[0-9a-z]*)?[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)


def json_spans(text: str) -> list[Span]:
    """The scalar values of the JSON answer in `text`, in the order of the text; empty if there is none.

    The answer is the last fenced block (``` with the label json or none) that begins with a document; else the document
    that the text begins with or consists of; else the last object with a value in it. Thinking is left out.

    - The name is the path: `$.a[0].b`, and `$["two words"]` for a key that is not a plain name. `$` alone is a document
      that is one scalar.
    - A string counts without its quotes, an empty one with them, for else it would have no tokens.
    - Empty arrays and objects have no values. Of a key that stands twice in an object the last one counts, as in
      `json.loads`.
    - Where the text ends inside a value, that value is marked `cut`. So is a number at the very end of an unfinished
      document, which might have gone on.

    ValueError if a path is longer than LONGEST_PATH characters.
    """
    found: list[Span] = []
    for start, end in final_parts(text):
        found = [span.moved(start) for span in _values(text[start:end])] or found
    return found


def _values(part: str) -> list[Span]:
    fenced: list[Span] = []
    for fence in _FENCE.finditer(part):
        fenced = _Document(part, fence.end()).read() or fenced
    if fenced:
        return fenced
    whole = _Document(part, 0)
    found = whole.read()
    is_scalar = [span.name for span in found] == ["$"]
    if found and not (is_scalar and (found[0].cut or part[whole.at :].strip())):
        return found
    found = []
    at = part.find("{")
    while at >= 0:
        document = _Document(part, at)
        found = document.read() or found
        at = part.find("{", max(document.at, at + 1))
    return found


def _end_of(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return match.end() if match else at


@dataclass
class _Container:
    """An array or an object that is open."""

    is_object: bool
    first: int  # of the values, the first one of the member that is being read
    size: int  # length of the path up to here
    step: str = ""  # the path from here to the member
    index: int = -1
    key: str | None = None  # of the member that is being read
    members: dict[str, tuple[int, int]] = field(default_factory=dict)  # the values of each key: first, behind the last


class _Broken(Exception):
    """The text is not JSON at this place."""


class _Cut(Exception):
    """The text ends before the document does."""


class _Document:
    """One document from the place `at` on, which moves to where reading ended."""

    def __init__(self, text: str, at: int) -> None:
        self.text, self.at = text, at
        self.open: list[_Container] = []
        self.found: list[Span] = []
        self.replaced: list[tuple[int, int]] = []  # values of a key that came again

    def read(self) -> list[Span]:
        """The values, also of a document that is cut off; none of one that is broken."""
        state: Callable[[], Any] | None = self._value
        try:
            while state is not None:
                self.at = _end_of(_BLANK, self.text, self.at)
                if self.at == len(self.text):
                    raise _Cut
                state = state()
        except _Cut:
            self.at = len(self.text)
            for container in self.open:
                if container.first < len(self.found):
                    self._finish(container)
        except _Broken:
            return []
        return self.values()

    def values(self) -> list[Span]:
        """The values found so far, without those that a later member of the same name replaced."""
        changes = [0] * (len(self.found) + 1)
        for first, behind in self.replaced:
            changes[first] += 1
            changes[behind] -= 1
        kept, depth = [], 0
        for span, change in zip(self.found, changes, strict=False):
            depth += change
            if not depth:
                kept.append(span)
        return kept

    # Each of these reads one thing and returns what reads the next one; None at the end of the document.

    def _value(self) -> Any:
        opening = self.text[self.at]
        if opening in "{[":
            self.open.append(_Container(opening == "{", len(self.found), self._size()))
            self.at += 1
            return self._first_key if opening == "{" else self._first_element
        start = self.at
        if opening == '"':
            self._string()
            inside = (start + 1, self.at - 1) if self.at - start > 2 else (start, self.at)
            self._add(*inside)
        else:
            self._add(start, self._scalar())
        return self._next

    def _first_key(self) -> Any:
        return self._close() if self.text[self.at] == "}" else self._key()

    def _first_element(self) -> Any:
        if self.text[self.at] == "]":
            return self._close()
        self.open[-1].index = 0
        return self._value()

    def _key(self) -> Any:
        start = self.at
        if self.text[start] != '"':
            raise _Broken
        self._string(is_key=True)
        try:
            self.open[-1].key = json.loads(self.text[start : self.at], strict=False)
        except ValueError:  # an escape that JSON does not have
            self.open[-1].key = self.text[start + 1 : self.at - 1]
        self.open[-1].first = len(self.found)
        return self._colon

    def _colon(self) -> Any:
        if self.text[self.at] != ":":
            raise _Broken
        self.at += 1
        return self._value

    def _next(self) -> Any:
        """After a value: the next member, or the end of what holds it. A scalar document ends here."""
        if not self.open:
            return None
        container, mark = self.open[-1], self.text[self.at]
        if mark == ("}" if container.is_object else "]"):
            return self._close()
        if mark != ",":
            raise _Broken
        self._finish(container)
        self.at += 1
        container.index += 1
        return self._key if container.is_object else self._value

    def _close(self) -> Any:
        self._finish(self.open.pop())
        self.at += 1
        return self._next if self.open else None

    def _finish(self, container: _Container) -> None:
        """A member is complete: it takes the place of an earlier one of its name."""
        if container.key is None:
            return
        if container.key in container.members:
            self.replaced.append(container.members[container.key])
        container.members[container.key] = (container.first, len(self.found))
        container.key = None

    def _string(self, is_key: bool = False) -> None:
        start = self.at
        end = _end_of(_STRING, self.text, start)
        if self.text[end : end + 1] == '"':
            self.at = end + 1
            return
        if not is_key:
            self._add(min(start + 1, len(self.text) - 1), len(self.text), cut=True)
        raise _Cut

    def _scalar(self) -> int:
        """The end of a number or a word, which becomes the place."""
        start, size = self.at, len(self.text)
        for word in _WORDS:
            if self.text.startswith(word, start):
                self.at += len(word)
                return self.at
            if size - start < len(word) and word.startswith(self.text[start:]) and self.text[start:] != "-":
                self._add(start, size, cut=True)
                raise _Cut
        self.at = _end_of(_NUMBER, self.text, start)
        if _end_of(_NUMBER_LIKE, self.text, start) == size and (self.open or self.at < size):
            self._add(start, size, cut=True)  # it might have gone on
            raise _Cut
        if self.at == start:
            raise _Broken
        return self.at

    def _size(self) -> int:
        """Characters of the path to the member that is being read."""
        return self.open[-1].size + len(self._step(self.open[-1])) if self.open else 1

    def _step(self, container: _Container) -> str:
        """The path from an open array or object to its member, which it keeps."""
        key = container.key
        if key is None:
            container.step = f"[{container.index}]"
        elif key.isprintable() and _PLAIN_KEY.fullmatch(key):
            container.step = f".{key}"
        else:
            container.step = f"[{json.dumps(key, ensure_ascii=not key.isprintable())}]"
        return container.step

    def _add(self, start: int, end: int, cut: bool = False) -> None:
        size = self._size()
        if size > LONGEST_PATH:
            raise ValueError(f"the path of a JSON value has {size} characters, more than {LONGEST_PATH}")
        path = "$" + "".join(container.step for container in self.open)
        self.found.append(Span(path, start, end, cut=cut))
