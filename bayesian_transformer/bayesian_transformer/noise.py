"""Counter-based Gaussian noise: z = f(seed, position, site, sample, index), with no generator state.

Every engine (vLLM, transformers, offline scoring) calls this one function, so the same request seed gives the same
noise whatever else is in the batch, on every tensor-parallel rank and in every replay of a position.

The bits come from Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), keyed by the
64-bit seed, with the counter words (index // 4, position, site, sample). Box-Muller turns each pair of words into two
normals.
"""

import math

import torch
from torch import Tensor

_SITES = {"q_proj": (0, 2), "v_proj": (1, 2), "k_proj": (1 << 30, 1)}  # of layer 0, and from layer to layer
_WORD = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10


def site_index(layer: int, projection: str) -> int:
    """Number of the noise site that a projection of a decoder layer is: one of noise_config.QKV."""
    first, step = _SITES[projection]
    return first + step * layer


def noise_key(seed: int) -> int:
    """Any Python integer as the int64 with the same low 64 bits, which is what a noise seed is."""
    return (seed + (1 << 63)) % (1 << 64) - (1 << 63)


def philox4x32(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    """Philox4x32-10 block cipher: four counter words and two key words to four random words.

    All tensors are int64 holding values in [0, 2**32) and broadcast against each other.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        # The product wraps modulo 2**64, which keeps the bits of both 32-bit halves.
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (p1 >> 32 & _WORD) ^ c1 ^ k0, p1 & _WORD, (p0 >> 32 & _WORD) ^ c3 ^ k1, p0 & _WORD
        k0, k1 = k0 + _WEYL[0] & _WORD, k1 + _WEYL[1] & _WORD
    return c0, c1, c2, c3


def _box_muller(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Two independent standard normals (float32) from two 32-bit words, of which the top 24 bits are used."""
    radius = (-2.0 * (((a >> 8) + 1).float() * 2.0**-24).log()).sqrt()  # the argument of log lies in (0, 1]
    angle = (b >> 8).float() * (2.0 * math.pi * 2.0**-24)
    return radius * angle.cos(), radius * angle.sin()


def standard_normal(seed: Tensor, position: Tensor, site: Tensor, sample: Tensor, width: int, start: int = 0) -> Tensor:
    """Standard normal noise z[..., i] for index i in [start, start + width).

    Args:
        seed: int64, the request's noise seed; any value, its 64 bits are the key.
        position: int64, position of the token in its sequence.
        site: int64, from `site_index`.
        sample: int64, weight sample, >= 1 (sample 0 is the noise-free one and draws nothing).
        width: number of noise values for each element.
        start: first index, a multiple of 4; a tensor-parallel rank asks for its own slice.

    The four tensors broadcast to a shape [...]; the result is float32 of shape [..., width].
    """
    if start % 4:
        raise ValueError(f"noise index must start at a multiple of 4, got {start}")
    block = torch.arange(start // 4, (start + width + 3) // 4, device=seed.device, dtype=torch.int64)
    seed, position, site, sample = (t.unsqueeze(-1) for t in (seed, position, site, sample))
    words = philox4x32((block, position & _WORD, site & _WORD, sample & _WORD), (seed & _WORD, seed >> 32 & _WORD))
    normals = (*_box_muller(words[0], words[1]), *_box_muller(words[2], words[3]))
    return torch.stack(normals, dim=-1).flatten(-2)[..., :width]
