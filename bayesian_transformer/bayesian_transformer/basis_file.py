"""A file with the basis vectors of a model and nothing else: with it a quantised sibling of the model carries noise.

It is one safetensors file. docs/formats.md describes it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .architectures import architecture_of
from .bases import ALGORITHM
from .checkpoint import FLOAT_NAMES, check_link
from .files import atomic_path, parse_document
from .layers import check_basis
from .noise_config import QKV, NoiseConfig
from .noisy_weights import noisy_weights

SUFFIX = ".safetensors"
VERSION = 1
_KEY = "tokur_bases"  # in the metadata of the file; its value is JSON
_ADVICE = "make the file again from the unquantised model (tokur convert --bases-only)"

Shape = tuple[int, int]


def write_basis_file(path: Path, bases: Mapping[str, Tensor], config: Mapping[str, Any], noise: NoiseConfig) -> None:
    """Write `bases`, by name, to `path`; it appears there when it is complete.

    Args:
        config: of the unquantised model, its `model_type` and sizes.
        noise: direction and singular vectors of the bases.
    """
    made = json.dumps(_made_for(config, noise) | {"algorithm": ALGORITHM})
    with atomic_path(path) as temporary:
        save_file(dict(bases), temporary, {"format": "pt", _KEY: made})


def check_basis_file(path: Path, config: Mapping[str, Any], noise: NoiseConfig, shapes: Mapping[str, Shape]) -> None:
    """ValueError, naming file and tensor, unless the file holds bases of this model and noise; its values are not read.

    Args:
        config: of the model that the bases are wanted for, its `model_type` and sizes.
        shapes: those of the bases by name.
    """
    made, stored = _read_header(path)
    for key, value in _made_for(config, noise).items():
        if made.get(key) != value:
            of_noise = key in ("bayes_noise", "basis_idx")
            advice = "set bayes_noise and basis_idx (rank) as in the file" if of_noise else _ADVICE
            raise ValueError(f"{path}: holds bases of {key} {made.get(key)!r}, not {value!r}; {advice}")
    for name, shape in shapes.items():
        if name not in stored:
            projections = ",".join(noise.bayes_projections)
            raise ValueError(f"{path}: tensor {name} is missing; {_ADVICE} with --bayes-projections {projections}")
        found_shape, dtype = stored[name]
        if found_shape != shape or dtype not in FLOAT_NAMES:
            raise ValueError(
                f"{path}: tensor {name} is {dtype} {list(found_shape)} where the model asks for floats {list(shape)}; "
                f"{_ADVICE}"
            )
    # Those of projections that carry no noise now may be there too.
    if more := sorted(stored.keys() - {noisy.basis for noisy in noisy_weights(config, QKV)}):
        raise ValueError(f"{path}: tensor {more[0]:.200} is not of this model; {_ADVICE}")


def read_basis_file(
    path: Path, config: Mapping[str, Any], noise: NoiseConfig, shapes: Mapping[str, Shape]
) -> dict[str, Tensor]:
    """The bases in the file by name, on the CPU; ValueError as in `check_basis_file`, and for values not finite."""
    check_basis_file(path, config, noise, shapes)
    with safe_open(path, framework="pt") as file:
        bases: dict[str, Tensor] = {name: file.get_tensor(name) for name in shapes}
    for name, basis in bases.items():
        check_basis(f"{path}: tensor {name}", basis, shapes[name])
    return bases


def _made_for(config: Mapping[str, Any], noise: NoiseConfig) -> dict[str, Any]:
    """What the bases in a file must be made for, as its metadata says it."""
    return {
        "version": VERSION,
        "model_type": architecture_of(config["model_type"]).base_model_type,
        "num_hidden_layers": config["num_hidden_layers"],
        "hidden_size": config["hidden_size"],
        "bayes_noise": noise.bayes_noise,
        "basis_idx": list(noise.basis_idx),
    }


def _read_header(path: Path) -> tuple[dict[str, Any], dict[str, tuple[tuple[int, ...], str]]]:
    """What the file says of its making, and shape and dtype of each of its tensors."""
    check_link(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file; give the one that tokur convert --bases-only has written")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
            stored = {name: (tuple(part.get_shape()), part.get_dtype()) for name, part in slices.items()}
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path}: not a readable safetensors file ({error}); {_ADVICE}") from error
    if _KEY not in metadata:
        raise ValueError(f"{path}: is no file of bases, as it has no {_KEY} in its metadata; {_ADVICE}")
    try:
        return parse_document(metadata[_KEY].encode(), _ADVICE), stored
    except ValueError as error:
        raise ValueError(f"{path}: {_KEY} in its metadata: {error}") from error
