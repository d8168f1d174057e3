"""Mutations of the weight files: their length, their header, the tensors in them, the basis vectors."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bayesian_transformer.conversion import BASIS_SHARD
from tests.soak.mutation import (
    BASIS_OF_Q,
    CONVERT,
    EMBEDDING,
    FIRST,
    HEAD,
    LOAD,
    NORM,
    SECOND,
    UP,
    VLLM,
    Change,
    Mutation,
    Q,
    accepted,
    content,
    entry,
    header,
    header_text,
    poison,
    raw,
    replace,
    tensors,
)

_UNREADABLE = (FIRST, "not a readable safetensors file")
_OF_TFB = (LOAD, VLLM)
_VALUES_UNREAD = (
    "neither transformers nor vLLM looks at values, and reading all of them would double the time of a start; the "
    "conversion did, and `tokur score` counts a text without a finite value as failed"
)


def _ends(path: Path) -> tuple[int, int]:
    return path.stat().st_size - len(raw(path)[1]), path.stat().st_size


def _cut(size: Callable[[int, int], int]) -> Change:
    """Truncate the first shard to a size that is made of where its header and it end."""
    return lambda folder: os.truncate(folder / FIRST, size(*_ends(folder / FIRST)))


def _always(size: int) -> Callable[[int, int], int]:
    return lambda begin, end: size


_CUTS: dict[str, Callable[[int, int], int]] = {
    **{f"to {size} bytes": _always(size) for size in (0, 1, 7, 8, 9, 100)},
    "in the middle of the header": lambda begin, end: begin // 2,
    "a byte before the header ends": lambda begin, end: begin - 1,
    "where the header ends": lambda begin, end: begin,
    "a byte behind the header": lambda begin, end: begin + 1,
    "in the middle of the data": lambda begin, end: (begin + end) // 2,
    "an element early": lambda begin, end: end - 4,
    "a byte early": lambda begin, end: end - 1,
}
_LENGTHS = (0, 1, 99, 100_000_001, 1 << 31, 1 << 63, (1 << 64) - 1)
_SHIFTED = (1, -1, 8)  # header lengths that are wrong by so much


def _wrong_by(change: int) -> Change:
    def edit(data: bytes) -> bytes:
        return (int.from_bytes(data[:8], "little") + change).to_bytes(8, "little") + data[8:]

    return content(edit)


def _twice(text: str) -> str:
    """The header with an entry for a tensor that has one."""
    return text[:-1] + f', "{Q}": {{"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}}}'


def _key_twice(text: str) -> str:
    return text.replace('"dtype": "F32"', '"dtype": "F32", "dtype": "F32"', 1)


def _overlap(found: dict[str, Any]) -> None:
    found[Q]["data_offsets"] = found[EMBEDDING]["data_offsets"]


def _hole(found: dict[str, Any]) -> None:
    last = max((e for name, e in found.items() if name != "__metadata__"), key=lambda e: e["data_offsets"][1])
    last["data_offsets"] = [offset + 4 for offset in last["data_offsets"]]


_DEEP = '{"a":' + "[" * 200_000 + "]" * 200_000 + "}"
_HEADERS: dict[str, Change] = {
    "is not JSON": header_text(lambda text: text[:-1]),
    "is a list": header_text("[]"),
    "is a number": header_text("17"),
    "is empty": header_text("{}"),
    "is blank": header_text("   "),
    "is not UTF-8": header_text(lambda text: text.replace("layers", "layer\udcff", 1)),
    "is deep": header_text(_DEEP),
    "is a hundred thousand brackets": header_text("[" * 100_000),
    "ends in something else": header_text(lambda text: text + "garbage"),
    "has a tensor twice": header_text(_twice),
    "has a key twice": header_text(_key_twice),
    "has numbers for metadata": header(lambda found: found.update(__metadata__={"format": 1})),
    "has null for a tensor": header(lambda found: found.update({Q: None})),
    "has a list for a tensor": header(lambda found: found.update({Q: []})),
    "lacks a shape": header(lambda found: found[Q].pop("shape")),
    "lacks a dtype": header(lambda found: found[Q].pop("dtype")),
    "lacks offsets": header(lambda found: found[Q].pop("data_offsets")),
    "has overlapping tensors": header(_overlap),
    "has a hole between tensors": header(_hole),
}
_ENTRIES: dict[str, dict[str, Any]] = {
    "offsets out of the file": {"data_offsets": [0, 1 << 40]},
    "offsets of 2**63": {"data_offsets": [1 << 63, (1 << 63) + 16384]},
    "a negative offset": {"data_offsets": [-4, 16380]},
    "offsets the wrong way round": {"data_offsets": [16384, 0]},
    "offsets that are fractions": {"data_offsets": [0.5, 16384.5]},
    "one offset": {"data_offsets": [0]},
    "an unknown dtype": {"dtype": "F12"},
    "a dtype of another size": {"dtype": "BF16"},
    "a negative shape": {"shape": [-64, -64]},
    "a shape of 2**62 by 2**62": {"shape": [1 << 62, 1 << 62]},
    "a shape of terabytes": {"shape": [1 << 20, 1 << 20]},
    "a text for a shape": {"shape": "64x64"},
    "fractions for a shape": {"shape": [64.5, 64]},
}


def _structure() -> list[Mutation]:
    return [
        *(Mutation(f"first shard cut {name}", _cut(size), _UNREADABLE) for name, size in _CUTS.items()),
        *(Mutation(f"header length {n}", header_text(lambda t: t, length=n), _UNREADABLE) for n in _LENGTHS),
        *(Mutation(f"header length wrong by {n}", _wrong_by(n), _UNREADABLE) for n in _SHIFTED),
        Mutation("a byte too many", content(lambda data: data + b"\0"), _UNREADABLE),
        Mutation("a gigabyte of nothing behind", lambda folder: os.truncate(folder / FIRST, 1 << 30), _UNREADABLE),
        *(Mutation(f"header {name}", change, _UNREADABLE) for name, change in _HEADERS.items()),
        *(Mutation(f"tensor with {name}", entry(Q, **keys), _UNREADABLE) for name, keys in _ENTRIES.items()),
        Mutation("a second shard of zeros", content(lambda data: bytes(len(data)), SECOND), (SECOND, "not a readable")),
        Mutation("a shard that is a pickle", content(lambda data: b"\x80\x04." + data), _UNREADABLE),
        Mutation("a shard that is a page", content(lambda data: b"<!DOCTYPE html>" * 99), _UNREADABLE),
        Mutation("a shard that is a pointer", content(lambda data: b"version https://git-lfs.github.com/spec/v1\n" * 3),
                 _UNREADABLE),
    ]  # fmt: skip


def _without(name: str) -> Callable[[dict[str, torch.Tensor]], object]:
    return lambda found: found.pop(name)


def _with(name: str) -> Callable[[dict[str, torch.Tensor]], object]:
    return lambda found: found.update({name: torch.ones(3)})


def _wrong(name: str, edit: Callable[[torch.Tensor], torch.Tensor], tensor: str, says: str, file: str) -> Mutation:
    return Mutation(f"{tensor} {name}", replace(tensor, edit, file), (file, tensor, says))


_DTYPES = (torch.int8, torch.int32, torch.uint8, torch.bool, torch.float8_e4m3fn, torch.complex64)


def _tensors() -> list[Mutation]:
    unread = accepted(_VALUES_UNREAD, *_OF_TFB)
    surplus = accepted("transformers leaves tensors that a model does not have unread", CONVERT, LOAD)
    return [
        *(_wrong(f"as {d}", partial(torch.Tensor.to, dtype=d), Q, "is not supported", FIRST) for d in _DTYPES),
        *(
            Mutation(f"as {d}", replace(Q, partial(torch.Tensor.to, dtype=d)), accepted=accepted("a float too"))
            for d in (torch.float64, torch.float16, torch.bfloat16)
        ),
        _wrong("flat", lambda t: t.flatten(), Q, "has shape [4096]", FIRST),
        _wrong("without an element", lambda t: t[:0], Q, "has shape [0, 64]", FIRST),
        _wrong("as a number", lambda t: t[0, 0], Q, "has shape []", FIRST),
        _wrong("in three dimensions", lambda t: t[None], Q, "has shape [1, 64, 64]", FIRST),
        _wrong("transposed", lambda t: t.T, UP, "has shape [64, 96]", SECOND),
        _wrong("without a row", lambda t: t[1:], EMBEDDING, "has shape [63, 64]", FIRST),
        _wrong("doubled", lambda t: torch.cat([t, t]), NORM, "has shape [128]", SECOND),
        *(
            Mutation(f"{tensor} missing", tensors(_without(tensor), file), (tensor, "is missing"))
            for tensor, file in ((Q, FIRST), (EMBEDDING, FIRST), (UP, SECOND), (NORM, SECOND), (HEAD, SECOND))
        ),
        Mutation("half of the tensors missing", tensors(lambda found: found.clear()), ("is missing",)),
        *(
            Mutation(f"{value} in {tensor}", poison(tensor, value, file), (file, tensor, "NaN or infinite"), unread)
            for value in (float("nan"), float("inf"), float("-inf"))
            for tensor, file in ((Q, FIRST), (EMBEDDING, FIRST), (NORM, SECOND))
        ),
        Mutation("a matrix of zeros", replace(Q, torch.zeros_like), accepted=accepted("zeros are numbers")),
        Mutation("denormal values", replace(Q, lambda t: t * 1e-42), accepted=accepted("small numbers are numbers")),
        Mutation("huge values", replace(Q, lambda t: t * 1e30), accepted=accepted("large numbers are numbers")),
        *(
            Mutation(f"surplus tensor {name[:30]!r}", tensors(_with(name)),
                     accepted=surplus, stock={VLLM: "vLLM names a tensor that its model does not have"}, late=True)
            for name in ("model.layers.9.mlp.up_proj.weight", "../../../etc/passwd", "a\nb\x1b[31m", "x" * 100_000)
        ),
    ]  # fmt: skip


def _basis() -> list[Mutation]:
    changes: dict[str, tuple[Change, str]] = {
        "transposed": (replace(BASIS_OF_Q, lambda t: t.T, BASIS_SHARD), "has shape [4, 64]"),
        "of another rank": (replace(BASIS_OF_Q, lambda t: t[:, :3], BASIS_SHARD), "has shape [64, 3]"),
        "flat": (replace(BASIS_OF_Q, lambda t: t.flatten(), BASIS_SHARD), "has shape [256]"),
        "of integers": (replace(BASIS_OF_Q, lambda t: t.to(torch.int32), BASIS_SHARD), "is not supported"),
        "with NaN": (poison(BASIS_OF_Q, float("nan"), BASIS_SHARD), ""),
        "with an infinity": (poison(BASIS_OF_Q, float("inf"), BASIS_SHARD), ""),
        "missing": (tensors(lambda found: found.pop(BASIS_OF_Q), BASIS_SHARD), "is missing"),
    }
    found = [
        Mutation(f"basis {name}", change, (BASIS_OF_Q, says), stages=_OF_TFB, late=not says)
        for name, (change, says) in changes.items()
    ]
    cut = content(lambda data: data[:-1], BASIS_SHARD)
    return [*found, Mutation("basis cut", cut, (BASIS_SHARD, "not a readable"), stages=_OF_TFB)]


def weight_mutations() -> list[Mutation]:
    return [*_structure(), *_tensors(), *_basis()]
