"""Offsets of tokens, beside a brute force over the bytes and beside what real tokenizers know of their tokens."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from bayesian_transformer.spans import spell, token_offsets
from tests.helpers.sentencepiece_tokenizers import MAKE

FAMILY = "\U0001f469\u200d\U0001f469\u200d\U0001f466"  # one picture of five characters
ALPHABET = st.one_of(
    st.sampled_from([*"ab .\n", "é", "e\u0301", "汉", "字", "😀", "😁", FAMILY, "\u202e", "ſ", "\x00"]),
    st.text(max_size=3),
)
TEXTS = (
    st.lists(ALPHABET, max_size=8).map("".join).filter(lambda text: not any("\ud800" <= c <= "\udfff" for c in text))
)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """The bytes between sorted places."""
    borders = [0, *sorted(min(place, len(data)) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(borders)]


def characters(data: bytes) -> list[int]:
    """For each byte the number of the character that decoding makes of it, by decoding ever more of it."""
    owner: list[int] = []
    while len(owner) < len(data):
        rest = data[len(owner) :]
        try:
            size = len(rest.decode()[0].encode())
        except UnicodeDecodeError as error:
            size = error.end if error.start == 0 else len(rest[: error.start].decode()[0].encode())
        owner += [owner[-1] + 1 if owner else 0] * size
    return owner


def true_offsets(pieces: list[bytes]) -> list[tuple[int, int]]:
    owner, at, found = characters(b"".join(pieces)), 0, []
    for piece in pieces:
        inside = owner[at : at + len(piece)]
        found.append((inside[0], inside[-1] + 1) if inside else (-1, -1))
        at += len(piece)
    return found


def divisions(data: bytes, tokens: list[str]) -> Iterator[list[bytes]]:
    """Every way to cut the bytes into pieces that decode to the tokens."""
    if not tokens:
        if not data:
            yield []
        return
    for size in range(len(data) + 1):
        if data[:size].decode(errors="replace") == tokens[0]:
            for others in divisions(data[size:], tokens[1:]):
                yield [data[:size], *others]


@given(text=TEXTS, places=st.lists(st.integers(0, 40), max_size=8))
def test_bytes_cut_anywhere(text: str, places: list[int]) -> None:
    """The offsets cover every division of the text that the tokens allow, and nothing else."""
    pieces = cut(text.encode(), places)
    tokens = [piece.decode(errors="replace") for piece in pieces]
    offsets = token_offsets(tokens, text)
    assert offsets is not None
    assert offsets[0][0] == 0
    assert [start for start, _ in offsets] == sorted(start for start, _ in offsets)
    possible = [true_offsets(division) for division in divisions(text.encode(), tokens)]
    assert possible
    for index, (start, end) in enumerate(offsets):
        places_of_it = [division[index] for division in possible]
        if (-1, -1) in places_of_it:
            assert start == end
        else:
            first, last = min(s for s, _ in places_of_it), max(e for _, e in places_of_it)
            assert (start, end) == (first, last)


@given(data=st.lists(st.one_of(TEXTS.map(str.encode), st.binary(max_size=3)), max_size=4).map(b"".join), n=st.randoms())
def test_bytes_that_are_no_text(data: bytes, n: Any) -> None:
    """What a model writes need not be UTF-8. The offsets hold the true ones."""
    pieces = [piece for piece in cut(data, [n.randrange(len(data) + 1) for _ in range(4)]) if piece]
    offsets = token_offsets([piece.decode(errors="replace") for piece in pieces], data.decode(errors="replace"))
    assert offsets is not None
    for (start, end), (first, last) in zip(offsets, true_offsets(pieces), strict=True):
        assert start <= first
        assert last <= end


def byte_of() -> dict[str, int]:
    """The byte that each character of a byte-level vocabulary stands for, as GPT-2 numbers them."""
    own = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in own]
    return {chr(byte): byte for byte in own} | {chr(256 + n): byte for n, byte in enumerate(others)}


@settings(deadline=None)
@given(text=TEXTS)
def test_a_byte_level_tokenizer(text: str, smollm2_tokenizer: PreTrainedTokenizerBase) -> None:
    ids = smollm2_tokenizer(text).input_ids
    assume(smollm2_tokenizer.decode(ids) == text)  # the vocabulary lacks some control characters
    tokens = [smollm2_tokenizer.decode([token]) for token in ids]
    byte = byte_of()
    known = true_offsets([bytes(byte[c] for c in name) for name in smollm2_tokenizer.convert_ids_to_tokens(ids)])
    offsets = token_offsets([*tokens, "<|im_end|>"], text)
    assert offsets is not None
    assert offsets[-1] == (len(text), len(text))
    for (start, end), (first, last) in zip(offsets, known, strict=False):
        assert start <= first
        assert last <= end
    if len(tokens) < 12 and len(list(divisions(text.encode(), tokens))) == 1:
        assert offsets[:-1] == known


SPACED = st.lists(
    st.sampled_from(["The capital", " is", " ", "Paris", "é", "😀", "汉", ".", "\n", "  ", "[24]"]), max_size=8
)


@pytest.mark.parametrize("name", MAKE)
@given(parts=SPACED)
def test_sentencepiece_tokenizers(name: str, parts: list[str]) -> None:
    """The leading space that a token loses when it is decoded alone is its own; the first of the text is not there."""
    tokenizer, text = MAKE[name](), "".join(parts)
    ids = tokenizer(text, add_special_tokens=False).input_ids
    names = tokenizer.convert_ids_to_tokens(ids)
    assume("<unk>" not in names)
    pieces = [bytes([int(n[3:5], 16)]) if n.startswith("<0x") else n.replace("▁", " ").encode() for n in names]
    whole = b"".join(pieces).decode()
    decoded = tokenizer.decode(ids)
    lost = len(whole) - len(decoded)
    assume(whole.endswith(decoded) and lost in (0, 1))
    offsets = token_offsets([tokenizer.decode([token]) for token in ids], decoded)
    assert offsets is not None
    is_exact = "▁" not in names and "  " not in whole and not any(s in decoded for s in "é😀汉")
    for (start, end), (first, last) in zip(offsets, true_offsets(pieces), strict=True):
        first, last = max(0, first - lost), max(0, last - lost)
        assert first == last or (start <= first and last <= end)
        assert not is_exact or first == last or (start, end) == (first, last)


@pytest.mark.parametrize(
    ("tokens", "text", "offsets"),
    [
        (["Hello", "world"], "Hello world", [(0, 5), (5, 11)]),
        ([" Paris", " is"], "Paris is", [(0, 5), (5, 8)]),
        (["▁"], "x", None),
        (["", "6"], " 6", [(0, 1), (0, 2)]),  # "▁" and "6", or a token without text and "▁6"
        (["a", "bc", "d"], "ab", [(0, 1), (1, 2), (2, 2)]),  # cut at a stop string
        (["a", "<end>"], "a", [(0, 1), (1, 1)]),
        (["a", "<end>", "b"], "ab", None),
        (["a"], "ab", None),
        (["ab"], "ac", None),
        (["\ufffd", "\ufffd"], "é", [(0, 1), (0, 1)]),
        (["\ufffd", "\ufffd"], "\ufffd", [(0, 1), (0, 1)]),  # two bytes that are one broken character
        (["\ufffd"], "é", None),
        (["\ufffd"] * 5, "😀😀", [(0, 1), (0, 1), (0, 2), (1, 2), (1, 2)]),  # 2 + 3 or 3 + 2
        (["\n\n", "a"], "a", [(0, 0), (0, 1)]),
        ([], "", []),
        ([], "a", None),
        (["a", "b"], "", [(0, 0), (0, 0)]),
    ],
)
def test_offsets(tokens: list[str], text: str, offsets: list[tuple[int, int]] | None) -> None:
    assert token_offsets(tokens, text) == offsets


def test_special_tokens_may_be_left_out_anywhere() -> None:
    tokens = ["a", "<end>", "b"]
    assert token_offsets(tokens, "ab", special=["<end>"]) == [(0, 1), (1, 1), (1, 2)]
    assert token_offsets(tokens, "a<end>b", special=["<end>"]) == [(0, 1), (1, 6), (6, 7)]


@given(text=TEXTS, places=st.lists(st.integers(0, 40), max_size=8), shown=st.integers(0, 20))
def test_a_text_cut_at_a_stop_string_keeps_the_offsets_before_it(text: str, places: list[int], shown: int) -> None:
    tokens = [text[start:end] for start, end in zip([0, *sorted(places)], [*sorted(places), len(text)], strict=True)]
    offsets = token_offsets(tokens, text[:shown])
    assert offsets is not None
    at = 0
    for token, (start, end) in zip(tokens, offsets, strict=True):
        wanted = (min(at, shown, len(text)), min(at + len(token), shown, len(text)))
        assert (start, end) == wanted or (start == end and wanted[0] == wanted[1])
        at += len(token)


def test_time_is_linear_in_the_text() -> None:
    """The hardest texts take what a quadratic way would not: 40,000 tokens would be 10 ** 9 steps."""
    count = 10_000
    tokens = ["a", " \ufffd", "\ufffd", " b"] * count
    offsets = token_offsets(tokens, "a é b" * count)
    assert offsets is not None
    assert offsets[-1] == (5 * count - 2, 5 * count)
    mixed = token_offsets((["\ufffd"] * 5 + ["!"]) * count, "😀😀!" * count)
    assert mixed is not None
    assert mixed[-2:] == [(3 * count - 2, 3 * count - 1), (3 * count - 1, 3 * count)]
    assert token_offsets(["\ufffd"] * (5 * count), "😀" * (2 * count)) is None  # too many divisions, and said so


@given(text=TEXTS, places=st.lists(st.integers(0, 40), max_size=8))
def test_pieces_join_to_the_text(text: str, places: list[int]) -> None:
    tokens = [piece.decode(errors="replace") for piece in cut(text.encode(), places)]
    pieces = spell(tokens, text)
    assert pieces is not None
    assert "".join(pieces) == text
