"""Particle rows: the noisy weight samples of every request, appended to the token batch of an ordinary forward.

A forward of T tokens for B requests runs T + (S - 1) * B rows. The extra rows are copies of each request's last token;
row T + (s - 1) * B + b carries weight sample s of request b. Those of their q, k and v that `bayes_projections` names
get noise (`QKVNoise`), they attend to the request's clean cache and to themselves (attention/), and nothing of theirs
enters the cache. Every weight matrix is read once for all rows.

Right noise is drawn once a forward for all layers (`Particles.begin`) and added layer by layer (`QKVNoise.add`). Left
noise is as wide as the output, so it is drawn where it is added. The formulas are in kernels/plain.py.
"""

from typing import Any

import torch
from torch import Tensor, nn
from vllm.distributed import get_tensor_model_parallel_rank
from vllm.forward_context import get_forward_context
from vllm.model_executor.utils import set_weight_attrs
from vllm.utils.torch_utils import direct_register_custom_op

from ..noise import site_index
from ..noise_config import NoiseConfig
from .kernels import noise_functions
from .kernels.plain import Part


class Particles:
    """What the particle rows of the current forward are. One object per model, shared by all its layers.

    Who writes, who reads, who clears (the runner is worker.UncertaintyRunner, the model model_mixin.TFBModelMixin):

    | field       | written by                    | read by                      | holds until               |
    | ----------- | ----------------------------- | ---------------------------- | ------------------------- |
    | seeds       | the runner, before a forward  | begin; a graph on its replay | requests come or go       |
    | sites       | __init__; after a deep sleep  | begin; QKVNoise.add          | the model is gone         |
    | num_tokens  | begin                         | QKVNoise.add, attention      | the next begin            |
    | counters    | begin                         | QKVNoise.add, left noise     | the next begin            |
    | right_noise | begin                         | QKVNoise.add, right noise    | the next begin            |
    | hidden      | the runner, after a forward   | the model's compute_logits   | that call sets it to None |
    | logits      | the model's compute_logits    | the runner's _sample         | that call sets it to None |

    On the replay of a captured graph no Python of the model runs: what `begin` wrote stays as it was captured, and
    nobody reads it. The runner's profiling (`_dummy_sampler_run`) writes `hidden` and clears `logits` as a step would.
    """

    def __init__(self, noise: NoiseConfig, num_layers: int, max_requests: int, device: torch.device) -> None:
        self.noise = noise
        self.noisy_samples = noise.noisy_samples  # S - 1: particle rows of each request
        self.num_tokens = 0  # T of the current forward
        self.hidden: Tensor | None = None  # final hidden states of the particle rows [P, hidden]
        self.logits: Tensor | None = None  # raw logits of all weight samples [S, B, V]
        self.seeds = torch.zeros(max_requests, dtype=torch.int64, device=device)  # never moved: graphs hold its address
        self.counters = (self.seeds, self.seeds)  # noise seed and position of each request, int64 [B]
        self.right_noise = torch.empty(0, dtype=torch.float32, device=device)  # of all layers [L, P, N, r]
        projections = noise.bayes_projections  # N of them
        sites = [[site_index(layer, projection) for projection in projections] for layer in range(num_layers)]
        self._sites = torch.tensor(sites)
        self.sites = self._sites.to(device, copy=True)  # int64 [L, N]; never moved, as the seeds

    def write_sites(self) -> None:
        """Write `sites` again, whose memory has been taken away meanwhile."""
        self.sites.copy_(self._sites)

    def begin(self, embeddings: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Start a forward: append the particle rows to `embeddings` [T, hidden] and `positions` [T]."""
        metadata = get_forward_context().attn_metadata
        if metadata is None:
            self._stand_in(positions)
            return embeddings, positions
        self.num_tokens = embeddings.shape[0]
        last = next(iter(metadata.values())).query_start_loc[1:].long() - 1  # row of each request's last token
        self._draw(self.seeds[: len(last)], positions[last])
        rows = last.repeat(self.noisy_samples)
        return torch.cat([embeddings, embeddings[rows]]), torch.cat([positions, positions[rows]])

    def _stand_in(self, positions: Tensor) -> None:
        """Profiling and warm-up, without requests: the last rows of the batch are taken for particle rows."""
        requests = min(len(self.seeds), len(positions) // (1 + self.noisy_samples))
        self.num_tokens = len(positions) - requests * self.noisy_samples
        self._draw(self.seeds[:requests], positions[:requests])

    def _draw(self, seeds: Tensor, positions: Tensor) -> None:
        """The noise of requests with these noise seeds and positions, int64 [B]."""
        self.counters = (seeds, positions)
        if self.noise.bayes_noise == "right":
            layers, projections = self.sites.shape
            rows = self.noisy_samples * len(seeds)
            self.right_noise = self.right_noise.new_empty(layers, rows, projections, self.noise.rank)
            if rows:
                noise_functions(self.right_noise).draw_noise(self.right_noise, seeds, positions, self.sites)


class QKVNoise(nn.Module):
    """Adds a layer's noise to the N noisy parts of its fused projection output, particle rows only.

    The basis is one parameter, `basis_vectors`. Right: [N * r, q + k + v], basis^T of one part over that of the next,
    zeros elsewhere, so that one matmul perturbs all parts and leaves the rest as it is. Left: [hidden, N * r], the
    bases side by side. A noisy k is that of the particle row itself, before norms and rotary.

    A module of its own and a parameter with a `weight_loader`: vLLM reloads weights module by module, counts what the
    loaders copy, and puts other tensors in place of the parameters meanwhile. So nothing else refers to the parameter,
    and a projection's loader writes the zeros too.
    """

    def __init__(self, qkv_proj: Any, layer: int, particles: Particles) -> None:
        super().__init__()
        self.layer = layer
        self.particles = particles
        self.sites = particles.sites[layer]  # int64 [N]
        q, kv = qkv_proj.num_heads * qkv_proj.head_size, qkv_proj.num_kv_heads * qkv_proj.head_size
        # First global output of this rank's share; KV heads are replicated when there are more ranks than heads.
        rank = get_tensor_model_parallel_rank()
        q_start, kv_start = rank * q, rank // qkv_proj.num_kv_head_replicas * kv
        parts = {"q_proj": Part(0, q, q_start), "k_proj": Part(q, kv, kv_start), "v_proj": Part(q + kv, kv, kv_start)}
        self.parts = tuple(parts[projection] for projection in particles.noise.bayes_projections)
        self.total_q = qkv_proj.total_num_heads * qkv_proj.head_size
        self.total_kv = qkv_proj.total_num_kv_heads * qkv_proj.head_size
        self.hidden_size = qkv_proj.hidden_size
        ranks = len(self.parts) * particles.noise.rank
        shape = (ranks, q + 2 * kv) if self.is_right else (self.hidden_size, ranks)
        self.basis_vectors = nn.Parameter(torch.zeros(shape), requires_grad=False)
        set_weight_attrs(self.basis_vectors, {"weight_loader": self.load})

    @property
    def is_right(self) -> bool:
        return self.particles.noise.bayes_noise == "right"

    def checkpoint_shape(self, projection: str) -> tuple[int, int]:
        """Shape of a projection's `basis_vectors` in the checkpoint."""
        outputs = self.total_q if projection == "q_proj" else self.total_kv
        return (outputs if self.is_right else self.hidden_size, self.particles.noise.rank)

    def load(self, param: Tensor, loaded_weight: Tensor, projection: str) -> None:
        """The `weight_loader` of the parameter: copy this rank's share of a noisy projection's basis into `param`."""
        rank, index = self.particles.noise.rank, self.particles.noise.bayes_projections.index(projection)
        share = slice(index * rank, (index + 1) * rank)
        if self.is_right:
            begin, size, start = self.parts[index]
            rows = loaded_weight.new_zeros(rank, param.shape[1])
            rows[:, begin : begin + size] = loaded_weight[start : start + size].T
            param.data[share].copy_(rows)
        else:
            param.data[:, share].copy_(loaded_weight)

    def add(self, qkv: Tensor, x: Tensor) -> None:
        """Perturb the particle rows of `qkv` [rows, q + k + v] in place; x [rows, hidden] is the layer's input.

        vLLM's transformers backend has a dimension of one before the rows.
        """
        particles = self.particles
        qkv, x = qkv.view(-1, qkv.shape[-1]), x.reshape(-1, x.shape[-1])
        qkv, x = qkv[particles.num_tokens :], x[particles.num_tokens :]
        if not len(qkv):  # a warm-up with fewer tokens than a request has weight samples
            return
        functions, sigma = noise_functions(qkv, x, self.basis_vectors), particles.noise.bayes_sigma
        if self.is_right:
            z = particles.right_noise[self.layer].flatten(-2)
            functions.add_right_noise(qkv, x, self.basis_vectors, z, sigma, self.parts)
        else:
            inner = (x.float() @ self.basis_vectors.float()).unflatten(-1, (len(self.parts), -1))
            scale = sigma * torch.linalg.vector_norm(inner, dim=-1)  # [P, N]
            functions.add_left_noise(qkv, scale, *particles.counters, self.sites, self.parts)


def _add_qkv_noise(qkv: Tensor, x: Tensor, layer_name: str) -> None:
    get_forward_context().no_compile_layers[layer_name].qkv_noise.add(qkv, x)


def _add_qkv_noise_fake(qkv: Tensor, x: Tensor, layer_name: str) -> None:
    return None


# One opaque operator, as vLLM does for attention: the compiled decoder sees a single dynamic number of rows and never
# where the particle rows begin.
_library = torch.library.Library("bayesian_transformer", "FRAGMENT")
direct_register_custom_op(
    "add_qkv_noise", _add_qkv_noise, mutates_args=["qkv"], fake_impl=_add_qkv_noise_fake, target_lib=_library
)


Projected = Tensor | tuple[Tensor, Any]  # by vLLM's transformers backend, and by vLLM's own classes


def perturb_output(layer_name: str) -> Any:
    """A forward hook for a qkv projection that adds the noise of the attention layer `layer_name`."""

    def hook(module: nn.Module, args: tuple[Tensor, ...], output: Projected) -> Projected:
        # Where nothing is compiled, the operator would only cost time.
        add = torch.ops.bayesian_transformer.add_qkv_noise if torch.compiler.is_compiling() else _add_qkv_noise
        add(output if isinstance(output, Tensor) else output[0], args[0], layer_name)
        return output

    return hook
