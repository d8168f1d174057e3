"""The fused kernels of the vLLM plugin compared with the plain torch formulas, on a GPU.

For each shape: the median time of both, their ratio, and the share of the GPU's copy bandwidth (measured here) that the
fused statistics reach, counting every logit as read twice. The last line is the same as JSON.

    python benchmarks/bench_kernels.py
    python benchmarks/bench_kernels.py --samples 10 --vocabulary 151936
"""

import json
from collections.abc import Callable
from typing import Any

import click
import torch
from torch import Tensor

from bayesian_transformer.noise import site_index, standard_normal
from bayesian_transformer.noise_config import PROJECTIONS
from bayesian_transformer.uncertainty import token_uncertainty
from bayesian_transformer.vllm_plugin.kernels import HAS_TRITON
from bayesian_transformer.vllm_plugin.kernels.plain import Part

BATCHES = (1, 16, 64, 256)
LAYERS, RANK, HIDDEN, Q_SIZE, KV_SIZE = 32, 8, 4096, 4096, 1024  # of Llama-3.1-8B
SIGMA = 0.1


def milliseconds(function: Callable[[], object]) -> float:
    """Median time of a captured CUDA graph of `function`, as the plugin's decoding runs it."""
    from triton.testing import do_bench

    function()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        function()
    return float(do_bench(graph.replay, return_mode="median"))


def copy_bandwidth() -> float:
    """Bytes per second of a large device copy, reads and writes counted."""
    source = torch.empty(1 << 28, dtype=torch.float32, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.nbytes / (1e-3 * milliseconds(lambda: target.copy_(source)))


def statistics(batch: int, num_samples: int, vocabulary: int, bandwidth: float) -> dict[str, float]:
    """The eight quantities from bfloat16 logits."""
    from bayesian_transformer.vllm_plugin.kernels.triton_statistics import fused_token_uncertainty

    logits = (4 * torch.randn(num_samples, batch, vocabulary, device="cuda")).bfloat16()
    token_ids = torch.randint(vocabulary, (batch,), device="cuda")
    fused = milliseconds(lambda: fused_token_uncertainty(logits, token_ids).stack())
    plain = milliseconds(lambda: token_uncertainty(logits, token_ids).stack())
    reads = 1 if num_samples == 1 else 2
    return {"fused_ms": fused, "plain_ms": plain, "bandwidth": reads * logits.nbytes / (1e-3 * fused) / bandwidth}


def right_noise(batch: int, num_samples: int) -> dict[str, float]:
    """A step's right noise: all layers drawn at once, then each layer's addition."""
    from bayesian_transformer.vllm_plugin.kernels.triton_noise import add_right_noise, draw_noise

    rows, width = batch * (num_samples - 1), Q_SIZE + 2 * KV_SIZE
    seeds = torch.arange(batch, device="cuda")
    z = torch.empty(LAYERS, rows, 2, RANK, device="cuda")
    qkv, x = (torch.randn(rows, size, device="cuda").bfloat16() for size in (width, HIDDEN))
    basis = torch.randn(2 * RANK, width, device="cuda").bfloat16()
    numbers = [[site_index(layer, projection) for projection in PROJECTIONS] for layer in range(LAYERS)]
    sites, parts = torch.tensor(numbers, device="cuda"), (Part(0, Q_SIZE), Part(Q_SIZE + KV_SIZE, KV_SIZE))
    sample = torch.arange(1, num_samples, device="cuda").repeat_interleave(batch)[:, None]

    def fused() -> None:
        draw_noise(z, seeds, seeds, sites)
        for layer in range(LAYERS):
            add_right_noise(qkv, x, basis, z[layer], SIGMA, parts)

    def plain() -> None:
        seed = seeds.repeat(num_samples - 1)[:, None]
        noise: Tensor = standard_normal(seed, seed, sites[:, None], sample, RANK).flatten(-2)
        for layer in range(LAYERS):
            scale = SIGMA * torch.linalg.vector_norm(x.float(), dim=-1, keepdim=True)
            qkv.addmm_((noise[layer] * scale).to(qkv.dtype), basis)

    return {"fused_ms": milliseconds(fused), "plain_ms": milliseconds(plain)}


@click.command(help=(__doc__ or "").split("\n\n")[0])
@click.option(
    "--samples", "num_samples", default=5, show_default=True, type=click.IntRange(1), help="Weight samples S."
)
@click.option("--vocabulary", default=128_256, show_default=True, type=click.IntRange(1))
def main(num_samples: int, vocabulary: int) -> None:
    if not torch.cuda.is_available() or not HAS_TRITON:
        raise click.ClickException("bench_kernels.py needs an NVIDIA GPU and triton; there is nothing to time without")
    bandwidth = copy_bandwidth()
    click.echo(
        f"{torch.cuda.get_device_name()}: copies {bandwidth / 1e12:.2f} TB/s; S = {num_samples}, V = {vocabulary}"
    )
    rows: list[dict[str, Any]] = []
    for batch in BATCHES:
        rows.append({"kernel": "statistics", "batch": batch, **statistics(batch, num_samples, vocabulary, bandwidth)})
        if num_samples > 1:
            rows.append({"kernel": "right noise", "batch": batch, **right_noise(batch, num_samples)})
    for row in sorted(rows, key=lambda row: row["kernel"]):
        fused, plain = row["fused_ms"], row["plain_ms"]
        share = f"  {row['bandwidth']:.0%} of bandwidth" if "bandwidth" in row else ""
        times = f"{fused:.4f} ms  plain {plain:.4f} ms  {plain / fused:.1f}x"
        click.echo(f"{row['kernel']:12s} B = {row['batch']:4d}  {times}{share}")
    click.echo(json.dumps({"num_samples": num_samples, "vocabulary": vocabulary, "bandwidth": bandwidth, "rows": rows}))


if __name__ == "__main__":
    main()
