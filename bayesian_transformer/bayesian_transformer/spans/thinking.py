"""The thinking of a response that reasons first, and the parts of it that are not thinking."""

import re

from .text_span import Span

_TAG = re.compile(r"<(/?)think>")


def thinking_spans(text: str, opened: bool = False) -> list[Span]:
    """Each `<think>` block with its tags; one that never ends goes to the end of the text, and is marked `cut`.

    A `</think>` without a tag before it ends a block that the prompt opened, as some chat templates do. Of such a
    response that never ends its thinking the text does not tell; `opened` says that the prompt opened a block.
    """
    spans: list[Span] = []
    start: int | None = 0 if opened else None
    for tag in _TAG.finditer(text):
        if not tag[1]:
            start = tag.start() if start is None else start
        elif start is not None or not spans:
            spans.append(_block(spans, start or 0, tag.end()))
            start = None
    if start is not None and start < len(text):
        spans.append(_block(spans, start, len(text), cut=True))
    return spans


def _block(earlier: list[Span], start: int, end: int, cut: bool = False) -> Span:
    return Span(f"thinking {len(earlier) + 1}" if earlier else "thinking", start, end, cut=cut)


def final_parts(text: str, opened: bool = False) -> list[tuple[int, int]]:
    """The characters [start, end) of the parts outside of thinking, none of them blank; the last one has the answer.

    Empty if all of the text is thinking.
    """
    parts, at = [], 0
    for block in thinking_spans(text, opened):
        parts.append((at, block.start))
        at = block.end
    parts.append((at, len(text)))
    return [(start, end) for start, end in parts if text[start:end].strip()]
