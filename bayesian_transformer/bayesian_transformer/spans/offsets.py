"""Where each token lies in the text of its response, found from the texts of the tokens alone.

The texts are those that a tokenizer gives when it decodes each token by itself. They differ from the response where

- a character has several tokens (byte-level BPE, byte fallback): each decodes to U+FFFD, one for each of its bytes that
  continue a character, and one for all that begin one;
- SentencePiece takes one leading space from what it decodes, from each token and from the whole response;
- the response leaves out a token, as one that ends a turn; or it is cut at a stop string.

So the tokens are matched with the text as a small automaton. Its state is a character of the text and how many of its
bytes are spoken for; a token leads from a state to one or several others, and the states from which the rest of the
text cannot be spelled are dropped. Few states are open at a time, so the time is linear in the text.
"""

from collections.abc import Collection, Iterator, Sequence
from itertools import product

REPLACEMENT = "\ufffd"  # what tokenizers decode the bytes of an incomplete character to
State = tuple[int, int]  # a character of the text, and how many of its bytes belong to earlier tokens
Offsets = tuple[int, int]  # [start, end) in characters
_Step = tuple[State, int, int, State]  # of a token: state before it, its characters [start, end), state after it

MOST_OPEN = 100  # states; a run of U+FFFD alone opens one more with every few tokens

# What may be assumed, from the strictest; the first that spells the text is taken.
_AS_WRITTEN, _ONE_SPACE, _ANY_SPACE = range(3)


def token_offsets(tokens: Sequence[str], text: str, special: Collection[str] = ()) -> list[Offsets] | None:
    """The characters [start, end) of each token in `text`, or None if the tokens do not spell it.

    Args:
        tokens: the text of each token, decoded by itself; U+FFFD stands for bytes that are no character.
        text: the response as decoded in one piece. It may end in the middle of a token, at a stop string.
        special: texts of tokens that the response may leave out anywhere. After its end any token may be.

    A character of several tokens belongs to each of them, so neighbours can overlap. A token that is not in the text
    has an empty range where it would stand. White space in front of a token that the token's own text lacks belongs to
    the token. As many tokens are in the text as can be. Where the texts allow several divisions, as of five U+FFFD for
    two emoji, a range covers them all: the range that is meant lies inside. Starts never decrease from one token to the
    next; nor do ends, empty ranges left aside. None also if more than MOST_OPEN divisions stay open, as in a run of
    over 60 U+FFFD.
    """
    return _offsets(tokens, text, frozenset(special))


def spell(tokens: Sequence[str], text: str) -> list[str] | None:
    """What each token adds to the text: pieces that join to it. None if the tokens do not spell it.

    A character of several tokens goes to the last of them, which leaves "" to the others. Tokens after the end of the
    text, as one that ends a turn, keep their own. Made for showing a text, so an incomplete character may be completed
    by the text alone.
    """
    offsets = _offsets(tokens, text, frozenset(), forgiving=True)
    if offsets is None:
        return None
    pieces: list[str] = []
    following = [len(text)] * len(tokens)  # where the next token that is in the text begins
    for index in range(len(tokens) - 2, -1, -1):
        start, end = offsets[index + 1]
        following[index] = start if start < end else following[index + 1]
    at = 0
    for token, (start, end), limit in zip(tokens, offsets, following, strict=True):
        if start == end and start >= len(text):
            pieces.append(token)
            continue
        stop = max(at, min(end, limit))
        pieces.append(text[at:stop])
        at = stop
    return pieces


def _offsets(
    tokens: Sequence[str], text: str, special: frozenset[str], forgiving: bool = False
) -> list[Offsets] | None:
    for assumed, is_cut in product((_AS_WRITTEN, _ONE_SPACE, _ANY_SPACE), (False, True)):
        steps = _Spelling(text, special, assumed, is_cut, forgiving).steps(tokens)
        if steps is not None:
            found = []
            for choices in steps:
                start = min(first for _, first, _, _ in choices)
                end = max(last for _, _, last, _ in choices)
                found.append((start, end if any(last > first for _, first, last, _ in choices) else start))
            return found
    return None


class _Spelling:
    """The automaton of one text under one assumption about white space, and one about its end."""

    def __init__(self, text: str, special: frozenset[str], assumed: int, is_cut: bool, forgiving: bool) -> None:
        self.text, self.special, self.assumed, self.forgiving = text, special, assumed, forgiving
        self.is_cut = is_cut  # whether the text may end in the middle of a token
        self.blank_from = len(text.rstrip()) if assumed == _ANY_SPACE else len(text)  # what no token needs to spell

    def steps(self, tokens: Sequence[str]) -> list[list[_Step]] | None:
        """For each token the steps that lie on a way through the whole text; None if there is no way."""
        states: set[State] = {(0, 0)}
        ways: list[list[_Step]] = []
        for token in tokens:
            plain = self._plain(next(iter(states)), token) if len(states) == 1 else None
            steps = [plain] if plain else [step for state in states for step in self._from(state, token)]
            states = {after for _, _, _, after in steps}
            if not states or len(states) > MOST_OPEN:
                return None
            ways.append(steps)
        ends = {state for state in states if any(at >= self.blank_from and not part for at, part in self._same(state))}
        if not ends:
            return None
        if (end := (len(self.text), 0)) in ends:
            ends = {end}
            self._end_late(ways, end)
        else:
            self._give_rest(ways)
        for index in range(len(ways) - 1, -1, -1):
            ways[index] = [step for step in ways[index] if step[3] in ends]
            ends = {before for before, _, _, _ in ways[index]}
        return ways

    def _end_late(self, ways: list[list[_Step]], end: State) -> None:
        """The tokens after the text are those that cannot be in it."""
        for index in range(len(ways) - 1, -1, -1):
            arriving = [step for step in ways[index] if step[0] != end and step[3] == end]
            if arriving:
                ways[index] = arriving
                return
            ways[index] = [step for step in ways[index] if step[0] == end]

    def _give_rest(self, ways: list[list[_Step]]) -> None:
        """White space at the end that no token spells goes to the last token in the text."""
        for index in range(len(ways) - 1, -1, -1):
            if any(end > start for _, start, end, _ in ways[index]):
                size = len(self.text)
                ways[index] = [
                    (before, start, size if end > start and end >= self.blank_from else end, after)
                    for before, start, end, after in ways[index]
                ]
                return

    def _plain(self, state: State, token: str) -> _Step | None:
        """What most tokens are: their own text, right here and nothing else. It saves nine tenths of the time."""
        at, part = state
        other = part or not token or token in self.special or REPLACEMENT in token
        if other or (self.assumed == _ONE_SPACE and token[0] == " ") or not self.text.startswith(token, at):
            return None
        end = at + len(token)
        return state, at, end, (end, 0)

    def _from(self, state: State, token: str) -> Iterator[_Step]:
        """All that a token can be at a state."""
        found: set[_Step] = set()
        if token in self.special:
            found.add((state, state[0], state[0], state))
        for here in self._same(state):
            for start, after in self._readings(here, token):
                end = after[0] + bool(after[1])
                found.add((state, start, max(start, end) if after != here else start, after))
        yield from found

    def _readings(self, here: State, token: str) -> Iterator[tuple[int, State]]:
        """The start and the state after a token that begins at `here`, with or without white space of its own."""
        at, part = here
        text = self.text
        direct = [(at, after) for after in self._after(here, token)]
        if part or at == len(text):
            yield from direct
            return
        if at == 0 and not direct and token[:1].isspace():  # the text has lost its first white space
            bare = token.lstrip()
            sizes = range(1, len(token) - len(bare) + 1)
            direct = [(0, after) for size in sizes for after in self._after(here, token[size:])]
        if self.assumed == _ONE_SPACE and at < len(text) and text[at] == " ":
            yield from ((at, after) for after in self._after((at + 1, 0), token))
            if at and token.startswith(" "):  # it has lost one, as all have
                return
        elif self.assumed == _ANY_SPACE and not direct and token:
            rest = at
            while rest < len(text) and text[rest].isspace():
                rest += 1
            if rest > at:
                yield from ((at, after) for after in self._after((rest, 0), token))
        yield from direct

    def _same(self, state: State) -> Iterator[State]:
        """The state, and the next character where the one in progress may be over.

        A U+FFFD in the text stands for bytes that are no character, one to three of them.
        """
        yield state
        at, part = state
        if part and (self.forgiving or self.text[at] == REPLACEMENT):
            yield at + 1, 0

    def _after(self, state: State, token: str) -> set[State]:
        """The states after a token that begins exactly here. At the end of the text it is cut."""
        at, part = state
        text = self.text
        if at == len(text):
            return {state}
        if not part and REPLACEMENT not in token:
            if text.startswith(token, at):
                return {(at + len(token), 0)}
            is_cut = self.is_cut and len(text) - at < len(token) and token.startswith(text[at:])
            return {(len(text), 0)} if is_cut else set()
        states = {state}
        for place, character in enumerate(token, start=1):
            states = {
                after
                for before in states
                for same in (self._same(before) if place > 1 else [before])  # of the first one `_from` has thought
                for after in self._read(same, character, place == len(token))
            }
        return states

    def _read(self, state: State, character: str, is_last: bool) -> Iterator[State]:
        """The states after one character of a token."""
        at, part = state
        if at == len(self.text):
            if self.is_cut:
                yield state
            return
        size = _size(self.text[at])
        if part:
            if character == REPLACEMENT:  # a byte that continues the character
                yield (at, part + 1) if part + 1 < size else (at + 1, 0)
            return
        if character == self.text[at]:
            yield at + 1, 0
        if character == REPLACEMENT and is_last:  # the first bytes of the character, of which there are more
            yield from ((at, first) for first in range(1, size))


def _size(character: str) -> int:
    """Bytes of a character in UTF-8."""
    code = ord(character)
    return 1 if code < 0x80 else 2 if code < 0x800 else 3 if code < 0x10000 else 4
