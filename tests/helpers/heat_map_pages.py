"""What the tests of the heat map share: its command, records for it, and the parts of a page."""

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from bayesian_transformer.heat_map import Response
from bayesian_transformer.heat_map.command import main
from bayesian_transformer.uncertainty import FIELDS


class Page(HTMLParser):
    """Elements of a page: scripts, tokens (text, level), all text outside scripts and styles, tags and attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts: list[str] = []
        self.tokens: list[tuple[str, str]] = []
        self.text, self.tags = "", []  # type: str, list[tuple[str, dict[str, str | None]]]
        self._in: str = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")
        if tag in ("script", "style"):
            self._in = tag
        elif tag == "span" and "data-level" in dict(attrs):
            self.tokens.append(("", dict(attrs)["data-level"] or ""))
            self._in = "token"

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style", "span"):
            self._in = ""

    def handle_data(self, data: str) -> None:
        if self._in == "script":
            self.scripts[-1] += data
        elif self._in != "style":
            self.text += data
            if self._in == "token":
                self.tokens[-1] = (self.tokens[-1][0] + data, self.tokens[-1][1])

    @property
    def data(self) -> list[dict[str, Any]]:
        return json.loads(self.scripts[0])


def a_record(tokens: list[str], /, **changes: Any) -> dict[str, Any]:
    """A line of the score command's output."""
    arrays = {name: [0.01 * (t + 1) for t in range(len(tokens))] for name in FIELDS}
    ids = list(range(len(tokens)))
    return {
        "prompt": "p",
        "response": "".join(tokens),
        "line": 1,
        "token_ids": ids,
        "tokens": tokens,
        **arrays,
        **changes,
    }


def a_response(tokens: list[str], /, name: str = "r", **changes: Any) -> Response:
    values = {"epistemic": [0.1] * len(tokens)}
    return Response(name, list(range(len(tokens))), tokens, **({"values": values} | changes))


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


def write(path: Path, *lines: Any) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path
