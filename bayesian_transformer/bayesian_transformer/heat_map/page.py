"""The heat map as one HTML page.

The page asks nothing of any network. Its security policy allows no script or style but its own, known by their hash,
and every text is escaped. Without JavaScript it shows all responses, coloured by EU.

A token's colour: `Scale.level` makes one of ten steps of its value, heat_map.html.j2 writes that as `data-level`, and
heat_map.css gives each step its strength. Where another quantity is chosen, `paint` in heat_map.js writes its steps.
"""

import base64
import hashlib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from ..files import HALF_PAIRS, atomic_path
from ..quantities import FIELDS, QUANTITY_BY_NAME, Quantity
from ..spans import Span, spell
from ..spans.offsets import REPLACEMENT
from .outlines import find_spans, list_spans, outline

LEVELS = 10  # steps of colour; heat_map.css has as many
OUTLIERS = 0.02  # share of the tokens that may lie beyond the strong end of the scale
_NO_VALUE = "-"


# In the order of the page's menu. The stronger colour is always the less certain token.
SHOWN = tuple(
    QUANTITY_BY_NAME[name]
    for name in (
        *("epistemic", "total", "aleatoric", "entropy"),
        *("implicit_reward", "logprob", "self_certainty", "confidence"),
    )
)


@dataclass(frozen=True)
class Response:
    """A response to show.

    Args:
        name: what the reader chooses it by.
        token_ids, tokens: ids and texts of its tokens; a token that is part of a character may have any text with
            U+FFFD in it.
        values: for some or all of FIELDS one value per token, in nats: lists, or tensors [tokens]. None and values
            that are not finite are shown as missing.
        text: the response as decoded in one piece; default: the texts of the tokens joined.
        prompt: shown above it, folded.
        details: further facts by name.
        spans: parts of the text, with their tokens, to outline and to list; see `with_spans`. None: no list.

    ValueError, naming the response, if an array has another length than the response or no FIELDS are given.
    """

    name: str
    token_ids: Sequence[int]
    tokens: Sequence[str]
    values: Mapping[str, Sequence[float | None]]
    text: str | None = None
    prompt: str = ""
    details: Mapping[str, str] = field(default_factory=dict)
    spans: Sequence[Span] | None = None

    def __post_init__(self) -> None:
        unknown = set(self.values) - set(FIELDS)
        if unknown or not self.values:
            raise ValueError(f"{self.name}: values must be some of {', '.join(FIELDS)}; got {sorted(unknown)}")
        for name, array in {"token_ids": self.token_ids, **self.values}.items():
            if len(array) != len(self.tokens):
                raise ValueError(f"{self.name}: {name} has {len(array)} values for {len(self.tokens)} tokens")

    @classmethod
    def from_completion(cls, name: str, completion: Any, prompt: str = "") -> "Response":
        """From a completion of vLLM, `out.outputs[i]` of `llm.generate`."""
        ids, entries = list(completion.token_ids), completion.uncertainties
        tokens = [entry[token_id] for entry, token_id in zip(entries, ids, strict=True)]
        rows = [token.row() for token in tokens]
        values = {field: [row[column] for row in rows] for column, field in enumerate(FIELDS)}
        return cls(name, ids, [token.decoded_token or "" for token in tokens], values, completion.text, prompt)

    @property
    def whole_text(self) -> str:
        """The text, or the texts of the tokens joined."""
        return "".join(self.tokens) if self.text is None else self.text

    def with_spans(self, kinds: Sequence[str]) -> "Response":
        """The response with all its spans of some of `bayesian_transformer.spans.SPAN_KINDS`, after those it has.

        ValueError, naming the response, if its tokens do not spell its text, or a kind is not known.
        """
        try:
            found = find_spans(self.whole_text, self.tokens, kinds)
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}") from error
        return replace(self, spans=[*(self.spans or ()), *found])


@dataclass(frozen=True)
class Scale:
    """Linear scale of one quantity over all tokens of a page, from the pale end to the strong one."""

    pale: float
    strong: float
    extreme: float  # the value farthest beyond the strong end

    @classmethod
    def of(cls, quantity: Quantity, values: Iterable[float | None]) -> "Scale":
        """The strong end leaves out the OUTLIERS, so that a few of them do not fade all others."""
        known = sorted((v for v in values if v is not None), reverse=quantity.sign > 0) or [0.0]
        cut = round((1 - OUTLIERS) * (len(known) - 1))
        pale = 0.0 if quantity.from_zero else known[len(known) - 1 - cut]
        return cls(pale, known[cut] if known[cut] != pale else known[-1], known[-1])

    def level(self, value: float | None) -> str:
        """The step of colour, a digit, or "-" for a missing value."""
        if value is None:
            return _NO_VALUE
        if self.strong == self.pale:
            return "0"
        share = (value - self.pale) / (self.strong - self.pale)
        return str(int(min(max(share * LEVELS, 0), LEVELS - 1)))

    @property
    def note(self) -> str:
        """What lies beyond the strong end, if anything does."""
        if self.extreme == self.strong:
            return ""
        return f" and beyond, to {value_text(self.extreme)}"


def value_text(value: float | None) -> str:
    """Four decimals, or two significant digits of what they would hide."""
    if not value:
        return "–" if value is None else "0"
    return f"{value:.1e}" if 0 < abs(value) < 0.001 else f"{value:.4f}"


def write_report(
    path: Path, responses: Sequence[Response], *, title: str = "Token uncertainties", note: str = ""
) -> None:
    """Write the page, atomically. ValueError if there is no response."""
    if not responses:
        raise ValueError(f"{path}: there are no responses to show")
    page = render(responses, title, note)
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8", errors=HALF_PAIRS)


def render(responses: Sequence[Response], title: str, note: str = "") -> str:
    """The page as a string."""
    tables = [{name: [_finite(v) for v in array] for name, array in r.values.items()} for r in responses]
    quantities = [q for q in SHOWN if any(q.name in table for table in tables)]
    scales = {q.name: Scale.of(q, [v for table in tables for v in table.get(q.name, ())]) for q in quantities}
    names = ["heat_map", "outlines"] if any(r.spans is not None for r in responses) else ["heat_map"]
    script, style = (
        Markup("".join((_FOLDER / f"{name}.{suffix}").read_text(encoding="utf-8") for name in names))
        for suffix in ("js", "css")
    )
    return _TEMPLATES.get_template("heat_map.html.j2").render(
        title=title,
        note=note,
        quantities=quantities,
        scales=scales,
        levels=range(LEVELS),
        sections=[_section(r, table, quantities, scales) for r, table in zip(responses, tables, strict=True)],
        script=script,
        style=style,
        hashes={"script": _hash(script), "style": _hash(style)},
        value_text=value_text,
    )


def _section(
    response: Response,
    table: Mapping[str, Sequence[float | None]],
    quantities: Sequence[Quantity],
    scales: Mapping[str, Scale],
) -> dict[str, Any]:
    """What the template needs of one response; `data` goes to the script."""
    count = len(response.tokens)
    pieces = list(response.tokens) if response.text is None else spell(response.tokens, response.text)
    levels = {
        q.name: "".join(map(scales[q.name].level, table[q.name])) if q.name in table else _NO_VALUE * count
        for q in quantities
    }
    spans = response.spans
    listed = None if spans is None else list_spans(spans, response.whole_text, table, quantities, value_text)
    shown = pieces or response.tokens
    styles, marks = outline(spans or (), count)
    styles = [[*(() if piece else ("part",)), *names] for piece, names in zip(shown, styles, strict=True)]
    return {
        "response": response,
        "spelled": pieces is not None,
        "spans": listed,
        "tokens": list(zip(shown, levels[quantities[0].name], map(" ".join, styles), marks, strict=True)),
        "totals": {q.name: _totals(table.get(q.name, ())) for q in quantities},
        "data": {
            "ids": [int(i) for i in response.token_ids],
            "tokens": list(response.tokens),
            "levels": levels,
            "values": {name: [value_text(v) for v in array] for name, array in table.items()},
            **({"spans": listed.data} if listed else {}),
        },
    }


def _totals(values: Sequence[float | None]) -> tuple[float | None, float | None, int]:
    """Sum and mean of the values that are there, and how many are missing."""
    known = [v for v in values if v is not None]
    if not known:
        return None, None, len(values)
    return math.fsum(known), math.fsum(known) / len(known), len(values) - len(known)


def _finite(value: float | None) -> float | None:
    value = math.nan if value is None else float(value)
    return value if math.isfinite(value) else None


def _hash(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


def _visible(text: str) -> Markup:
    """Escaped text in which white space other than blanks has a mark, and control characters are spelled out.

    The marks are empty elements that the style fills, so that copied text is free of them.
    """
    text = re.sub("[\ud800-\udfff]", REPLACEMENT, text)
    text = re.sub(r"[\x00-\x08\x0b-\x1f]", lambda match: f"\\x{ord(match[0]):02x}", text)
    marked = str(escape(text)).replace("\n", '<i class="line"></i>\n').replace("\t", '<i class="tab"></i>\t')
    return Markup(marked)


_FOLDER = Path(__file__).parent
_TEMPLATES = Environment(
    loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
_TEMPLATES.filters["visible"] = _visible
