"""What a span is."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Span:
    """A part of a response: characters [start, end) of its text, and the tokens that spell them."""

    name: str  # "answer", "step 2", or the path of a JSON value
    start: int
    end: int
    tokens: range = range(0)  # filled in by `place`
    cut: bool = False  # the text ends before the span does

    def moved(self, by: int) -> "Span":
        """The same span in a text with `by` more characters in front."""
        return Span(self.name, self.start + by, self.end + by, self.tokens, self.cut)
