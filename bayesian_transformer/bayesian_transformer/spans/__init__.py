"""Spans: where in a response the doubt sits. From the text of a response to the tokens of its parts.

    from bayesian_transformer.spans import answer_spans, field_scores, place, span_scores, token_offsets
    field_scores(text, tokens, {"epistemic": values})["$.name"].quantities["epistemic"]["max"]
    for span in place(answer_spans(text), token_offsets(tokens, text)):
        span_scores(span, {"epistemic": values})

Reading order: offsets.py (where each token lies in the text), text_span.py, thinking.py, json_values.py and prose.py
(the spans of a text), placing.py (their tokens and what these say), parts.py (those that scores are made of). Importing
it takes neither torch nor transformers.
"""

from collections.abc import Callable

from .json_values import json_spans
from .offsets import Offsets, spell, token_offsets
from .parts import parts_of
from .placing import FieldScore, Summary, field_scores, place, span_scores
from .prose import answer_spans, regex_spans, sentence_spans, step_spans
from .text_span import Span
from .thinking import thinking_spans

SPAN_KINDS: dict[str, Callable[[str], list[Span]]] = {  # by the name that options have for them
    "answer": answer_spans,
    "json": json_spans,
    "steps": step_spans,
    "sentences": sentence_spans,
    "thinking": thinking_spans,
}

__all__ = [
    "SPAN_KINDS",
    "FieldScore",
    "Offsets",
    "Span",
    "Summary",
    "answer_spans",
    "field_scores",
    "json_spans",
    "parts_of",
    "place",
    "regex_spans",
    "sentence_spans",
    "span_scores",
    "spell",
    "step_spans",
    "thinking_spans",
    "token_offsets",
]
