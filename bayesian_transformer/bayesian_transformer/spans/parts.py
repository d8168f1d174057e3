"""Which tokens are the answer and which the steps, for the scores of both (`answer` and `worst_step`)."""

from collections.abc import Sequence

from ..aggregations import NO_PARTS, Parts
from .offsets import Offsets
from .placing import place
from .prose import answer_spans, step_spans


def parts_of(text: str, offsets: Sequence[Offsets] | None) -> Parts:
    """The parts of a response by the characters [start, end) of its tokens; none of them if these are not known."""
    if offsets is None:
        return NO_PARTS
    answer = place(answer_spans(text), offsets)
    steps = place(step_spans(text), offsets)
    return Parts(answer[0].tokens if answer else range(0), tuple(step.tokens for step in steps))
