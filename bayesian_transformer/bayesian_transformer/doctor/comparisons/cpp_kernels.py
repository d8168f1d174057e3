"""The C++ kernels on the CPU: compiled here, or taken from the cache folder, and compared with the plain formulas."""

import logging
import os
import re
import shutil
import subprocess
from dataclasses import dataclass

import torch
from torch import Tensor

from ...vllm_plugin.kernels import cpp, cpp_library, plain
from ..finding import Finding, error, warning
from ..installed import switched_off
from ..protocol import doing, one_line
from .cases import DTYPES, NOISY_SAMPLES, rounding, short
from .differences import Differences, announce
from .kernels import compare_noise, compare_statistics

_BLOCK = 16  # tokens in a block of the cache
_SECONDS = 20


def check() -> Finding:
    """The compiler that CXX names, g++ otherwise, and what it made."""
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        if "CXX" in os.environ:
            return error(f"CXX={compiler}: there is no such command", "unset CXX, or let it name a C++ compiler")
        return warning("no compiler; plain torch computes, slower on a CPU", "install g++, or let CXX name a compiler")
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, timeout=_SECONDS)
    if version.returncode:
        found = f"compiler {compiler} fails: `{compiler} --version` ended with status {version.returncode}"
        return error(found, "let CXX name a C++ compiler that works, or set TOKUR_KERNELS=plain")
    name = one_line(re.sub(r"\(.*?\)", "", version.stdout.partition("\n")[0])) or compiler
    doing(f"compiling with {name}")
    messages = _Messages()
    logging.getLogger(cpp_library.__name__).addHandler(messages)
    if cpp.library() is None:
        found = f"{name} cannot compile them: {' '.join(messages.texts)}"
        return error(found, "let CXX name g++ 11 or newer, or set TOKUR_KERNELS=plain")
    differences = Differences()
    compare_noise(differences, cpp, "cpu")
    compare_statistics(differences, cpp.token_uncertainty, "cpu")
    compare_attention(differences)
    return differences.finding(f"{switched_off() or f'{name}: '}noise, statistics, attention")


class _Messages(logging.Handler):
    """Keeps what the kernels' module logs: why they cannot be compiled."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(one_line(record.getMessage()))


@dataclass(frozen=True)
class Layout:
    """How numbers lie in a block of the cache, as vllm_plugin/attention/cpu.py learns it from vLLM; here, made up.

    A block holds K [D, block size] and V [block size, D], each in the given order of places, None for that order.
    """

    head_size: int
    key_order: Tensor | None = None  # int64 [D, block size]
    value_order: Tensor | None = None  # int64 [block size, D]
    block_size: int = _BLOCK

    @property
    def steps(self) -> tuple[int, int]:
        """Distance of neighbours, 0 where it differs."""
        return (1, 1) if self.key_order is None else (0, 0)

    def unpack(self, packed: Tensor) -> tuple[Tensor, Tensor]:
        """Keys [heads, D, tokens] and values [heads, tokens, D] of blocks [n, heads, 2, block size * D], float32."""
        keys, values = packed.float().unbind(2)
        if self.key_order is not None and self.value_order is not None:
            keys, values = keys[..., self.key_order.flatten()], values[..., self.value_order.flatten()]
        keys = keys.unflatten(-1, (self.head_size, self.block_size)).permute(1, 2, 0, 3).flatten(2)
        return keys, values.unflatten(-1, (self.block_size, self.head_size)).transpose(0, 1).flatten(1, 2)


def compare_attention(differences: Differences) -> None:
    """cpp.attend compared with plain.attend: prefixes of no token, of a part of a block, and of several blocks."""
    generator = torch.Generator().manual_seed(3)
    lengths = torch.tensor([1, 20, 45], dtype=torch.int32)  # the current token included
    blocks, kv_heads, group = 9, 2, 3
    table = torch.randperm(blocks, generator=generator).view(len(lengths), -1).int()
    for head_size in (32, 64):
        places = [torch.randperm(head_size * _BLOCK, generator=generator) for _ in range(2)]
        mixed = Layout(head_size, places[0].view(head_size, _BLOCK), places[1].view(_BLOCK, head_size))
        for dtype in DTYPES:
            cache = torch.randn(blocks, kv_heads, _BLOCK, 2 * head_size, generator=generator).to(dtype)
            rows = torch.randn(NOISY_SAMPLES * len(lengths), (group + 2) * kv_heads, head_size, generator=generator).to(
                dtype
            )
            query, key, value = rows.split([group * kv_heads, kv_heads, kv_heads], dim=1)
            for layout in (Layout(head_size), mixed):
                name = announce(f"attention ({short(dtype)}, heads of {head_size})")
                got, wanted = torch.full((2, *query.shape), torch.nan)
                got = got.to(dtype)
                arguments = (table, lengths, layout, head_size**-0.5)
                cpp.attend(query, key, value, cache, *arguments, got)
                plain.attend(query, key, value, cache, *arguments, wanted)
                differences.compare(name, got, wanted, 2e-5, rounding(dtype))
