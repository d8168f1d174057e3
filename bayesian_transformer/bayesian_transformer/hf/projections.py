"""The linear layers of a transformers model that carry noise, and their basis vectors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ..basis_cache import cached_basis_vectors
from ..checkpoint import BASIS, check_weight
from ..layers import check_basis
from ..noisy_weights import NoisyWeight


@dataclass(frozen=True)
class NoisyProjection:
    """A linear layer that carries noise."""

    name: str
    module: nn.Module
    site: int  # number of the noise site
    outputs: slice = field(default_factory=lambda: slice(None))  # those of the module that are the projection's
    part: nn.Module | None = None  # what holds the basis vectors, if not the module

    @property
    def weight(self) -> Tensor:
        """The weight as [out, in]; the Conv1D of GPT-2 stores the transpose."""
        weight: Tensor = self.module.weight.T if isinstance(self.module, Conv1D) else self.module.weight  # type: ignore[union-attr,assignment]
        return weight[self.outputs]

    @property
    def holder(self) -> nn.Module:
        """The module that has the basis vectors as its buffer."""
        return self.module if self.part is None else self.part

    @property
    def basis(self) -> Tensor:
        return getattr(self.holder, BASIS)

    def check_weight(self) -> None:
        """ValueError that names the weight if it is quantised or holds a value that is not finite."""
        check_weight(f"{self.name}.weight", self.weight)

    def attach_basis(self, rank: int, kind: str) -> None:
        """Give the module a basis buffer of zeros (no noise), [out, rank] for right and [in, rank] for left."""
        self.holder.register_buffer(BASIS, self.weight.new_zeros(self._basis_shape(rank, kind)))

    def compute_basis(self, basis_idx: Sequence[int], kind: str) -> None:
        """Fill the basis with singular vectors of the weight as it is now."""
        self.check_weight()
        try:
            vectors = cached_basis_vectors(self.weight, basis_idx, kind)
        except ValueError as error:
            raise ValueError(f"{self.name}.weight: {error}; choose a smaller rank") from error
        self.holder.register_buffer(BASIS, vectors)

    def set_basis(self, basis: Mapping[str, Tensor], rank: int, kind: str) -> None:
        """Take the basis from a checkpoint's tensors; ValueError names it if it is missing or wrong."""
        name = f"{self.name}.{BASIS}"
        if name not in basis:
            raise ValueError(f"{name}: missing among the basis vectors; give those of a model of this architecture")
        check_basis(name, basis[name], self._basis_shape(rank, kind))
        self.holder.register_buffer(BASIS, basis[name].to(self.weight))

    def check_basis(self, rank: int, kind: str) -> None:
        """ValueError that names the tensor if the basis has a wrong shape, dtype or value."""
        check_basis(f"{self.name}.{BASIS}", self.basis, self._basis_shape(rank, kind))

    def _basis_shape(self, rank: int, kind: str) -> tuple[int, int]:
        return self.weight.shape[0 if kind == "right" else 1], rank


def find_projections(model: nn.Module, targets: Sequence[str]) -> list[NoisyProjection]:
    """The linear layers of `model` whose last name is one of `targets`, in model order. ValueError if one is absent.

    The sites count in that order: with q_proj and v_proj, they have the numbers that they have in a TFB model.
    """
    named = [(name, module) for name, module in model.named_modules() if name.rpartition(".")[2] in targets]
    found = [NoisyProjection(name, module, site) for site, (name, module) in enumerate(named)]
    absent = set(targets) - {projection.name.rpartition(".")[2] for projection in found}
    if absent or not found:
        raise ValueError(f"{type(model).__name__} has no module called {', '.join(sorted(absent)) or '(none given)'}")
    for projection in found:
        if not isinstance(projection.module, nn.Linear | Conv1D):
            raise ValueError(f"target module {projection.name} is a {type(projection.module).__name__}, not linear")
    return found


def stored_projections(model: nn.Module, weights: Sequence[NoisyWeight]) -> list[NoisyProjection]:
    """The projections of `model` that have these weights in a checkpoint, in their order.

    A part of a fused projection has a module next to it, of the part's name and without a weight, so that its basis
    vectors have the name in a checkpoint that those of other models have. It is added where it is not there yet.
    """
    found = []
    for weight in weights:
        name = weight.tensor.removesuffix(".weight")
        part = None if name == weight.prefix else _part(model, weight.prefix)
        found.append(NoisyProjection(weight.prefix, model.get_submodule(name), weight.site, weight.rows, part))
    return found


def _part(model: nn.Module, name: str) -> nn.Module:
    block, _, part = name.rpartition(".")
    parent = model.get_submodule(block)
    if not hasattr(parent, part):
        parent.add_module(part, nn.Module())
    return parent.get_submodule(part)
