"""The attention of particle rows on a GPU, eagerly, and a whole decode step captured in a CUDA graph and replayed.

FlashAttention attends to the prefix and our merge adds the own token; the results are compared with attention in
float64 on the CPU. Never yet run on a GPU: the calls of FlashAttention, the capture and the replay. The tests run all
the rest on the CPU, with a stand-in for FlashAttention.
"""

import itertools
import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from ... import uncertainty
from ...noise import site_index
from ...noise_config import NOISE_KINDS, PROJECTIONS
from ...vllm_plugin import kernels
from ...vllm_plugin.kernels import plain
from ..finding import Finding, error
from ..protocol import doing
from .cases import NOISY_SAMPLES, short
from .differences import Differences, announce

_REQUESTS, _KV_HEADS, _GROUP = 3, 2, 4
_HEADS = _KV_HEADS * _GROUP
_BLOCK, _BLOCKS = 16, 256  # tokens of a block of the cache, blocks of the cache and of each request, which share them
_RANK, _SIGMA, _VOCABULARY, _LAYER = 8, 0.3, 5_003, 1
# Current token included; 0 is a request that only pads the batch. Long prefixes are split among processors.
_LENGTHS = ([1, 100, _BLOCK * _BLOCKS], [4_001, 0, 2])
_LIMITS = ((0, 0.0), (2, 0.0), (1_000, 0.0), (0, 20.0), (1_000, 20.0))  # window and soft cap of a layer; 0: none
_SPLITS = 32  # as vLLM gives FlashAttention 3 under capture; eagerly, the choice is the kernel's
_PEAKED = 3.0  # factor of the queries: an even mean of thousands of values would be lost in the tolerance
_TOLERANCES = {torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 0.03}


def prefix() -> Finding:
    """FlashAttention over the prefix and the merge of the own token, in both dtypes."""
    version = _version()
    if version is None:
        return error("vLLM has no FlashAttention for this GPU")
    differences = Differences()
    for dtype in (torch.float16, torch.bfloat16):
        for size in (64, 128):
            compare_attention(differences, version, dtype, size, "cuda")
    torch.cuda.synchronize()
    return differences.finding(f"version {version}, prefix and own token")


def graph() -> Finding:
    """A decode step: noise drawn and added, attention, statistics; captured once, replayed with other contents."""
    version = _version()
    if version is None:
        return error("vLLM has no FlashAttention for this GPU")
    differences = Differences()
    for dtype in (torch.float16, torch.bfloat16):
        for kind in NOISE_KINDS:
            compare_replays(differences, version, dtype, "cuda", captured, kind)
    os.environ["TOKUR_KERNELS"] = "plain"  # in this process, which ends after it
    kernels.read_mode()
    for kind in NOISE_KINDS:
        compare_replays(differences, version, torch.bfloat16, "cuda", captured, kind)
    torch.cuda.synchronize()
    return differences.finding("a decode step captured and replayed, and the plain formulas")


def _version() -> int | None:
    from vllm.v1.attention.backends import fa_utils  # here, as the table of checks is read without vLLM too

    version: int | None = fa_utils.get_flash_attn_version()
    return version


def captured(step: Callable[[], None]) -> Callable[[], None]:
    """The step as a CUDA graph. It has run once before, as vLLM does before it captures."""
    captured_step = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured_step):
        step()
    return captured_step.replay


class DecodeStep:
    """The buffers of a decode step of one layer, and the step itself; what it computes lies in buffers, too."""

    def __init__(self, version: int, dtype: torch.dtype, head_size: int, device: str, kind: str = "right") -> None:
        rows, width = NOISY_SAMPLES * _REQUESTS, (_HEADS + 2 * _KV_HEADS) * head_size
        self.version, self.dtype, self.head_size, self.kind = version, dtype, head_size, kind
        self.splits, self.window, self.soft_cap = 0, 0, 0.0
        self.sizes = q, kv = (_HEADS * head_size, _KV_HEADS * head_size)
        self.parts = (plain.Part(0, q), plain.Part(q + kv, kv))
        self.generator = torch.Generator().manual_seed(0)
        with torch.device(device):
            self.seeds, self.positions = torch.zeros(2, _REQUESTS, dtype=torch.int64)
            self.seq_lens = torch.ones(_REQUESTS, dtype=torch.int32)
            self.table = torch.zeros(_REQUESTS, _BLOCKS, dtype=torch.int32)
            self.cache = torch.zeros(_BLOCKS, _KV_HEADS, _BLOCK, 2 * head_size, dtype=dtype)
            self.clean, self.qkv = torch.zeros(2, rows, width, dtype=dtype)
            self.x = torch.zeros(rows, 256, dtype=dtype)
            self.basis = torch.zeros(2 * _RANK, width, dtype=dtype)
            self.head = torch.zeros(_HEADS * head_size, _VOCABULARY, dtype=dtype)
            self.scale = torch.zeros(rows, 2)  # of left noise
            self.sites = torch.tensor([[site_index(_LAYER, projection) for projection in PROJECTIONS]])
            self.noise = torch.zeros(1, rows, 2, _RANK)
            self.output = torch.zeros(rows, _HEADS, head_size, dtype=dtype)
            self.logits = torch.zeros(NOISY_SAMPLES, _REQUESTS, _VOCABULARY, dtype=dtype)
            self.token_ids = torch.arange(_REQUESTS)
            self.statistics = torch.zeros(_REQUESTS, len(uncertainty.FIELDS))

    def fill(self, lengths: list[int]) -> None:
        """New contents for all inputs, in place, as before a step of an engine."""
        for buffer, scale in ((self.cache, 1.0), (self.clean, 1.0), (self.x, 0.1), (self.head, 0.2)):
            buffer.copy_(scale * torch.randn(buffer.shape, generator=self.generator))
        self.scale.copy_(0.2 + 0.4 * torch.rand(self.scale.shape, generator=self.generator))
        q, kv = self.sizes
        self.clean[:, :q] *= _PEAKED
        basis = torch.zeros(self.basis.shape)
        basis[:_RANK, :q] = torch.randn(_RANK, q, generator=self.generator)
        basis[_RANK:, -kv:] = torch.randn(_RANK, kv, generator=self.generator)
        self.basis.copy_(0.3 * basis)
        self.table.copy_(torch.stack([torch.randperm(_BLOCKS, generator=self.generator) for _ in range(_REQUESTS)]))
        self.seeds.copy_(torch.randint(-(2**62), 2**62, (_REQUESTS,), generator=self.generator))
        self.seq_lens.copy_(torch.tensor(lengths))
        self.positions.copy_(torch.tensor(lengths).clamp_min(1) - 1)

    def run(self) -> None:
        """Draw the noise, add it, attend, and take the statistics."""
        kernels.noise_functions(self.noise).draw_noise(self.noise, self.seeds, self.positions, self.sites)
        self.qkv.copy_(self.clean)
        self.add_noise(kernels.noise_functions(self.qkv, self.x, self.basis))
        self.attend()
        self.logits.copy_((self.output.flatten(1) @ self.head).view_as(self.logits))
        self.statistics.copy_(kernels.token_uncertainty(self.logits, self.token_ids).stack())

    def add_noise(self, functions: kernels.NoiseFunctions) -> None:
        """Add noise of the step's kind to `qkv`; right noise has been drawn before."""
        if self.kind == "right":
            z = self.noise[0].flatten(-2)
            functions.add_right_noise(self.qkv, self.x, self.basis, z, _SIGMA, self.parts)
        else:
            counters = self.seeds, self.positions, self.sites[0]
            functions.add_left_noise(self.qkv, self.scale, *counters, self.parts)

    def attend(self) -> None:
        """Our attention on the noisy rows, as an engine's layer calls it."""
        from ...vllm_plugin.attention.gpu import GpuParticleAttention

        layer: Any = GpuParticleAttention()
        layer.num_kv_heads, layer.head_size, layer.scale = _KV_HEADS, self.head_size, self.head_size**-0.5
        layer.vllm_flash_attn_version, layer.logits_soft_cap = self.version, self.soft_cap
        layer.sliding_window = (self.window - 1, 0) if self.window else (-1, -1)
        layer.particles = SimpleNamespace(num_tokens=0, noisy_samples=NOISY_SAMPLES)
        metadata = SimpleNamespace(
            seq_lens=self.seq_lens,
            block_table=self.table,
            max_seq_len=_BLOCK * _BLOCKS,
            max_num_splits=self.splits,
        )
        layer._attend(*self.split(self.qkv), self.cache, metadata, self.output)

    def split(self, qkv: Tensor) -> list[Tensor]:
        """Query, key and value, [rows, heads, D] each."""
        return list(qkv.unflatten(1, (-1, self.head_size)).split([_HEADS, _KV_HEADS, _KV_HEADS], dim=1))

    def expected_output(self) -> Tensor:
        """What the attention of the rows as they are should give: float64 [rows, heads, D], on the CPU."""
        query, key, value = (part.cpu().double() for part in self.split(self.qkv))
        cache, table = self.cache.cpu(), self.table.cpu().long()
        outputs = []
        for row in range(len(query)):
            request = row % _REQUESTS
            length = max(0, int(self.seq_lens[request]) - 1)
            blocks = cache[table[request, : -(-length // _BLOCK)]].double()
            stored = blocks.transpose(1, 2).flatten(0, 1)[:length].split(self.head_size, dim=-1)
            keys, values = (
                torch.cat([part, own[row : row + 1]])[-self.window :].repeat_interleave(_GROUP, dim=1)
                for part, own in zip(stored, (key, value), strict=True)
            )
            scores = torch.einsum("hd,thd->ht", query[row], keys) * self.head_size**-0.5
            scores = self.soft_cap * (scores / self.soft_cap).tanh() if self.soft_cap else scores
            outputs.append(torch.einsum("ht,thd->hd", scores.softmax(-1), values))
        return torch.stack(outputs)

    def expected_qkv(self) -> Tensor:
        """The rows with noise by the plain formulas, float32 on the CPU."""
        noise, qkv = torch.zeros(self.noise.shape), self.clean.float().cpu()
        counters = self.seeds.cpu(), self.positions.cpu()
        if self.kind == "left":
            plain.add_left_noise(qkv, self.scale.cpu(), *counters, self.sites[0].cpu(), self.parts)
            return qkv
        plain.draw_noise(noise, *counters, self.sites.cpu())
        rows = (self.x.float().cpu(), self.basis.float().cpu(), noise[0].flatten(-2))
        plain.add_right_noise(qkv, *rows, _SIGMA, self.parts)
        return qkv


def compare_attention(differences: Differences, version: int, dtype: torch.dtype, head_size: int, device: str) -> None:
    """Attention without noise, for prefixes of every kind, with and without windows and soft caps."""
    step = DecodeStep(version, dtype, head_size, device)
    for lengths, (step.window, step.soft_cap) in itertools.product(_LENGTHS, _LIMITS):
        limits = f"window {step.window}, soft cap {step.soft_cap}"
        name = announce(f"attention ({short(dtype)}, heads of {head_size}, {limits})")
        step.fill(lengths)
        step.qkv.copy_(step.clean)
        step.output.fill_(torch.nan)
        step.attend()
        tolerance = _TOLERANCES[dtype]
        differences.compare(name, step.output, step.expected_output(), tolerance, tolerance)


def compare_replays(
    differences: Differences,
    version: int,
    dtype: torch.dtype,
    device: str,
    capture: Callable[[Callable[[], None]], Callable[[], None]],
    kind: str = "right",
) -> None:
    """What a captured step leaves in its buffers, part by part from the contents of the part before."""
    step = DecodeStep(version, dtype, 64, device, kind)
    step.splits = _SPLITS if version == 3 else 0
    name = f"{short(dtype)}, {kind} noise, kernels {kernels.mode()}"
    doing(f"running a decode step ({name})")
    step.fill([1] * _REQUESTS)  # as vLLM captures: every request in its first token
    step.run()
    doing(f"capturing a decode step ({name})")
    replay = capture(step.run)
    tolerance = _TOLERANCES[dtype]
    for lengths in _LENGTHS:
        step.fill(lengths)
        for buffer in (step.qkv, step.noise, step.output, step.logits, step.statistics):
            buffer.fill_(torch.nan)
        doing(f"replaying a decode step ({name})")
        replay()
        differences.compare(f"noise in a graph ({name})", step.qkv, step.expected_qkv(), tolerance, tolerance)
        differences.compare(f"attention in a graph ({name})", step.output, step.expected_output(), tolerance, tolerance)
        plain_statistics = uncertainty.token_uncertainty(step.logits.cpu(), step.token_ids.cpu()).stack()
        differences.compare(f"statistics in a graph ({name})", step.statistics, plain_statistics, 5e-5, 1e-5)
