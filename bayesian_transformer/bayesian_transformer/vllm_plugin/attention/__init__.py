"""What a particle row attends to: the clean cache before its token, and its own k and v.

cpu.py and gpu.py put a mixin over the attention implementation that vLLM chose; the loops are in ../kernels/.
"""

from typing import Any

from vllm.platforms import current_platform

from ..attention_refusals import GPU_ATTENTION, refuse_attention
from ..particles import Particles


def install(attention: Any, particles: Particles) -> None:
    """Give vLLM's attention layer `attention` the particle rows' attention.

    Which implementation class a layer gets is the platform's choice, made inside its constructor; so the mixin is put
    over whatever class that is. ValueError if particle rows cannot attend with it.
    """
    stock, mixin = attention.impl, _mixin(attention.impl)
    ours: Any = particle_class(stock, mixin)
    attention.impl = ours.__new__(ours)
    vars(attention.impl).update(vars(stock), particles=particles)


def particle_class(stock: Any, mixin: type) -> type:
    """The class that the attention implementation `stock` becomes."""
    return type(f"Particle{type(stock).__name__}", (mixin, type(stock)), {})


def _mixin(stock: Any) -> type:
    mixin: Any
    if current_platform.is_cuda():
        from .gpu import GpuParticleAttention as mixin  # imported where it can work only

        refuse_attention(stock, mixin.over, GPU_ATTENTION)
    else:
        from .cpu import CpuParticleAttention as mixin

        refuse_attention(stock, mixin.over)
    return mixin
