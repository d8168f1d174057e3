"""Mixin that turns one of vLLM's decoder models into its TFB variant."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from vllm.config import VllmConfig
from vllm.model_executor.models.utils import extract_layer_index
from vllm.platforms import current_platform

from ..architectures import architecture_of, is_plain
from ..basis_cache import cached_basis_vectors
from ..basis_file import read_basis_file
from ..checkpoint import SINGLE_FILE, check_weight, is_quantised, reads_single_file
from ..layers import check_basis
from ..noise_config import QKV, NoiseConfig
from ..noisy_weights import FUSED, fused_rows
from .attention import install
from .kernels import mixture_logits
from .particles import Particles, QKVNoise, perturb_output

_BASIS_SUFFIX = ".basis_vectors"
EXPERTS_ARE_PACKED = (
    "the weights of experts cannot be loaded again on a CPU, as vLLM packs only those that it loads first; "
    "start the engine again"
)


def weight_patterns(folder: Path) -> list[str] | None:
    """What vLLM must be told to read the weights that transformers reads from a folder; None where both agree.

    Where there are both an index and model.safetensors, vLLM would read what the index names, and without safetensors
    it would read pickles. A name on the hub is no folder, and left to vLLM.
    """
    if reads_single_file(folder):
        return [SINGLE_FILE]
    return ["*.safetensors"] if folder.is_dir() and not any(folder.glob("*.safetensors")) else None


def _written(folder: Path) -> dict[str, tuple[int, int]]:
    """When the files of weights in a folder were written, and their sizes; nothing for a name on the hub."""
    found = ((path.name, path.stat()) for path in folder.glob("*.safetensors"))
    return {name: (stat.st_mtime_ns, stat.st_size) for name, stat in found}


class TFBModelMixin:
    """Put before a vLLM `...ForCausalLM` whose layers have `self_attn.qkv_proj` and `self_attn.attn`."""

    model: Any

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)  # type: ignore[call-arg]
        self.allow_patterns_overrides = weight_patterns(Path(vllm_config.model_config.model))
        config = vllm_config.model_config.hf_config
        noise = NoiseConfig.from_model_config(config)
        self._config = config.to_dict()
        basis_path = getattr(config, "basis_path", None)
        self.basis_path = Path(basis_path) if basis_path else None
        self._name = vllm_config.model_config.model  # which vLLM changes when it loads weights from elsewhere
        self._written = _written(Path(self._name))
        self._is_plain = is_plain(config.model_type)
        # Of each weight that comes without its bases, where it can be done and they are in no file.
        self.computes_bases = self._is_plain and not (basis_path or is_quantised(self._config))
        self._loaded_bases: set[str] = set()  # that have come before
        self.packs_experts = current_platform.is_cpu() and architecture_of(config.model_type).experts
        self._made_up = vllm_config.load_config.load_format == "dummy"
        self._fused_rows = fused_rows(self._config)
        max_requests = vllm_config.scheduler_config.max_num_seqs
        device = vllm_config.device_config.device
        self.particles = Particles(noise, len(self.model.layers), max_requests, device)
        self._qkv_noise: dict[str, QKVNoise] = {}  # by the name of the attention block in a checkpoint
        for layer in self.model.layers:
            attention = layer.self_attn.attn
            index = extract_layer_index(attention.layer_name)
            attention.qkv_noise = QKVNoise(layer.self_attn.qkv_proj, index, self.particles)
            self._qkv_noise[f"model.layers.{index}.self_attn"] = attention.qkv_noise
            if self.particles.noisy_samples:
                layer.self_attn.qkv_proj.register_forward_hook(perturb_output(attention.layer_name))
                layer.self_attn.qkv_proj.requires_unquantized_input = True  # vLLM's word for what the hook reads
                install(attention, self.particles)

    def forward(
        self,
        input_ids: Tensor | None,
        positions: Tensor,
        intermediate_tensors: Any = None,
        inputs_embeds: Tensor | None = None,
    ) -> Tensor:
        """Final hidden states [T + P, hidden]: the ordinary rows first, then the particle rows."""
        if self.particles.noisy_samples:
            embeddings = self.embed_input_ids(input_ids) if inputs_embeds is None else inputs_embeds  # type: ignore
            # Outside the compiled decoder, which then sees one dynamic dimension.
            inputs_embeds, positions = self.particles.begin(embeddings, positions)
            input_ids = None
        return super().forward(input_ids, positions, intermediate_tensors, inputs_embeds)  # type: ignore[misc]

    def compute_logits(self, hidden_states: Tensor) -> Tensor | None:
        """Logits of `hidden_states` [B, hidden]; the first call after a forward adds the particle rows' to the matmul.

        `particles.logits` then holds the raw logits of all samples [S, B, V] until the tokens are sampled. What is
        returned, for sampling, is a copy, because the sampler edits its logits in place.
        """
        particles, requests = self.particles, hidden_states.shape[0]
        if particles.hidden is None:  # prompt log-probabilities ask again
            return super().compute_logits(hidden_states)  # type: ignore[misc]
        rows, particles.hidden = particles.hidden, None
        if particles.noisy_samples:  # a padded batch has particle rows of requests that do not exist
            rows = rows.unflatten(0, (particles.noisy_samples, -1))[:, :requests].flatten(0, 1)
            hidden_states = torch.cat([hidden_states, rows])
        logits = super().compute_logits(hidden_states)  # type: ignore[misc]
        if logits is None:  # a tensor-parallel rank that does not sample
            return None
        particles.logits = logits.unflatten(0, (-1, requests))
        if particles.noise.use_tfb_for_generation:
            return mixture_logits(particles.logits)
        return particles.logits[0].clone()

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        """Load a checkpoint or a part of one; the stock loader gets everything but the basis vectors.

        The bases of a plain checkpoint are computed from its weights as they come, before vLLM cuts them into shards,
        or are those of the file `basis_path`, which belong to the first weights that come.
        ValueError names a basis of a TFB model that is missing: that of each weight which comes must come with it.
        """
        arrived: set[str] = set()
        changed: set[str] = set()
        computed: dict[str, Tensor] = {}

        def base_weights() -> Iterable[tuple[str, Tensor]]:
            for name, tensor in weights:
                if name.endswith(_BASIS_SUFFIX):
                    self._load_basis(name, tensor)
                    arrived.add(name)
                else:
                    if self.packs_experts and ".experts." in name and (self._made_up or self._loaded_bases):
                        raise ValueError(f"{name}: {EXPERTS_ARE_PACKED}")
                    changed.update(self._bases_of(name))
                    if self.computes_bases:
                        computed.update(self._computed_bases(name, tensor))
                    yield name, tensor

        loaded = super().load_weights(base_weights())  # type: ignore[misc]
        computed |= self._given_bases(changed)
        for name in computed.keys() - arrived:  # not earlier: stored ones may come after their weight
            self._load_basis(name, computed[name])
            arrived.add(name)
        self._check_complete(changed, arrived)
        self._loaded_bases |= arrived
        blocks = {name.removesuffix(_BASIS_SUFFIX).rpartition(".")[0] for name in arrived}
        whole = {block for block in blocks if self._bases_of(f"{block}.{FUSED}.weight") <= self._loaded_bases}
        return loaded | {f"{block}.attn.qkv_noise{_BASIS_SUFFIX}" for block in whole}

    def _check_complete(self, changed: set[str], arrived: set[str]) -> None:
        missing = sorted(changed - arrived)
        if missing and changed == self.basis_names:
            raise ValueError(f"{missing[0]} is not in the checkpoint ({len(missing)} missing); convert the model again")
        if missing:
            raise ValueError(
                f"{missing[0]} did not come with its weight, whose singular directions it holds ({len(missing)} "
                "missing); start the engine again with the new weights converted"
            )

    @property
    def basis_names(self) -> set[str]:
        """What a checkpoint calls the basis vectors of this model."""
        projections = self.particles.noise.bayes_projections
        return {f"{block}.{projection}{_BASIS_SUFFIX}" for block in self._qkv_noise for projection in projections}

    def _bases_of(self, name: str) -> set[str]:
        """The names of the bases of the weight that the tensor `name` of a checkpoint holds, or a part of."""
        module, _, part = name.rpartition(".")
        block, _, projection = module.rpartition(".")
        if block not in self._qkv_noise or part == "bias":
            return set()
        noisy = self.particles.noise.bayes_projections
        return {f"{block}.{name}{_BASIS_SUFFIX}" for name in noisy if projection in (name, FUSED)}

    def _given_bases(self, names: set[str]) -> dict[str, Tensor]:
        """Those of the bases `names` that are not computed: zeros where nothing reads them, or those of the file."""
        if self._is_plain and not self.particles.noisy_samples:
            return {name: torch.zeros(self._shape(name), device="cpu") for name in names}
        if self.basis_path is None or not names - self._loaded_bases:
            return {}
        shapes = {name: self._shape(name) for name in self.basis_names}
        bases = read_basis_file(self.basis_path, self._config, self.particles.noise, shapes)
        return {name: bases[name] for name in names - self._loaded_bases}

    @property
    def needs_stored_bases(self) -> bool:
        """Whether weights must come with their bases: they are not computed, and something reads them."""
        return not (self.computes_bases or (self._is_plain and not self.particles.noisy_samples))

    def expect_first_weights(self, name: str) -> bool:
        """Whether `basis_path` holds the bases of the weights that come next from the folder or hub name `name`.

        It does if those are the model's first ones. ValueError if the folder does not hold these any more.
        """
        is_own = name == self._name or Path(name).resolve() == Path(self._name).resolve()
        if self.basis_path is None or not is_own:
            return False
        if _written(Path(name)) != self._written:
            raise ValueError(
                f"{name}: has other files of weights than at the start, whose bases basis_path holds; start the engine "
                "again with a basis_path of the new ones"
            )
        self._loaded_bases.clear()
        return True

    def _shape(self, basis: str) -> tuple[int, int]:
        """Shape of a basis in a checkpoint."""
        block, _, projection = basis.removesuffix(_BASIS_SUFFIX).rpartition(".")
        return self._qkv_noise[block].checkpoint_shape(projection)

    def _computed_bases(self, name: str, tensor: Tensor) -> dict[str, Tensor]:
        """The bases of what the tensor `name` of a checkpoint holds, by name."""
        names = self._bases_of(name) if self.particles.noisy_samples else set()  # else nothing reads them
        if names:
            check_weight(name, tensor)
        return {basis: self._computed_basis(basis, name, tensor) for basis in names}

    def _computed_basis(self, basis: str, name: str, tensor: Tensor) -> Tensor:
        """Only the first ones are written to the cache: a trainer may send others at every step."""
        noise, projection = self.particles.noise, basis.removesuffix(_BASIS_SUFFIX).rpartition(".")[2]
        weight = tensor[self._fused_rows[projection]] if name.endswith(f"{FUSED}.weight") else tensor
        try:
            store = basis not in self._loaded_bases
            return cached_basis_vectors(weight, noise.basis_idx, noise.bayes_noise, store)
        except ValueError as error:
            raise ValueError(f"{name}: {error}; choose a smaller rank") from error

    def _load_basis(self, name: str, tensor: Tensor) -> None:
        block, _, projection = name.removesuffix(_BASIS_SUFFIX).rpartition(".")
        if block not in self._qkv_noise or projection not in QKV:
            raise ValueError(f"{name}: this model has no such projection; convert the model again")
        if projection not in self.particles.noise.bayes_projections:  # stored for those who want it
            return
        noise = self._qkv_noise[block]
        check_basis(name, tensor, self._shape(name))
        # Through the attribute, as vLLM does: while it reloads weights, another loader is there.
        noise.basis_vectors.weight_loader(noise.basis_vectors, tensor, projection)  # type: ignore[attr-defined]
