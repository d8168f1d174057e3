"""Whether a checkpoint holds the tensors that its config.json asks for, told from the headers of its files alone.

transformers gives what is missing or has another shape random values of the size that config.json says, and vLLM
allocates it before it reads a file. So this comes first. The model is built without storage, by transformers' own
class of the base family.
"""

from collections.abc import Iterator, Mapping, Set
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion

from .architectures import architecture_of
from .basis_file import check_basis_file
from .checkpoint import (
    BASIS,
    CONFIG_FILE,
    FLOAT_NAMES,
    INDEX_FILE,
    StoredTensor,
    is_quantised,
    is_tfb,
    read_config,
    reads_single_file,
    stored_tensors,
)
from .noise_config import NoiseConfig
from .noisy_weights import noisy_tensors, noisy_weights

_MOST_POSITIONS = 1 << 25  # vLLM fills a table of so many rows; the longest models have ten million
# Keys that say how a model is loaded, not what it is made of.
_NOT_OF_THE_MODEL = (
    "model_type", "architectures", "auto_map", "transformers_weights", "quantization_config", "compression_config",
)  # fmt: skip


def check_fit(folder: Path, config: Mapping[str, Any]) -> dict[str, StoredTensor]:
    """The tensors in `folder` that a base model of this config has.

    Args:
        config: config.json of a supported base model or of a TFB model, maybe with keys replaced.

    ValueError, in one line that names file and tensor, for a tensor that is missing or has another shape or a dtype
    that is not floating, the basis vectors of a TFB model among them, and for a config that no model can be made of.
    The packed tensors of a quantised checkpoint are not looked into. The file `basis_path` of the config is.
    """
    if config.get("transformers_weights") is not None:
        raise ValueError(
            f"{folder / CONFIG_FILE}: transformers_weights is not supported; save the model again without that key"
        )
    positions = config.get("max_position_embeddings", 1)
    if not isinstance(positions, int) or not 0 < positions <= _MOST_POSITIONS:
        raise ValueError(
            f"{folder / CONFIG_FILE}: max_position_embeddings must be an integer from 1 to {_MOST_POSITIONS}; "
            f"got {positions!r}"
        )
    tensors = stored_tensors(folder)
    packed = _packed(tensors) if is_quantised(config) else set()
    _check_layers(folder, config, tensors, packed)
    found, shapes = {}, {}
    model = _without_storage(folder, config)
    _check_experts(folder, model, tensors)
    for name, shape, is_shared in _parameters(model):
        shapes[name] = shape
        if name.rpartition(".")[0] in packed:
            continue
        if name in tensors:
            _check_tensor(folder, name, tensors[name], shape)
            found[name] = tensors[name]
        elif not is_shared:
            raise ValueError(_missing(folder, name))
    _check_bases(folder, config, tensors, shapes)
    return found


def _packed(tensors: Mapping[str, StoredTensor]) -> set[str]:
    """The modules of a quantised checkpoint whose weight is not stored as such."""
    modules = {name.rpartition(".")[0] for name in tensors}
    return {module for module in modules if getattr(tensors.get(f"{module}.weight"), "dtype", "") not in FLOAT_NAMES}


def _check_tensor(folder: Path, name: str, tensor: StoredTensor, shape: tuple[int, ...]) -> None:
    where = f"{folder / tensor.file}: tensor {name}"
    if tensor.shape != shape:
        advice = "convert the model again, or set bayes_noise and basis_idx as it was converted"
        raise ValueError(
            f"{where} has shape {list(tensor.shape)} where {CONFIG_FILE} asks for {list(shape)}; "
            f"{advice if name.endswith(BASIS) else 'get the model again'}"
        )
    if tensor.dtype not in FLOAT_NAMES:
        raise ValueError(f"{where}: dtype {tensor.dtype} is not supported; use an unquantised checkpoint")


def _check_bases(
    folder: Path,
    config: Mapping[str, Any],
    tensors: Mapping[str, StoredTensor],
    weights: Mapping[str, tuple[int, ...]],
) -> None:
    """`weights` are the shapes of the weights by name. A base model whose config asks for no bases has none."""
    basis_path = config.get("basis_path")
    if not is_tfb(config) and basis_path is None and "basis_idx" not in config:
        return
    noise = NoiseConfig.from_model_config(SimpleNamespace(**config))
    shapes = {}
    for noisy in noisy_weights(config, noise.bayes_projections):
        all_outputs, inputs = weights[noisy.tensor]
        outputs = len(range(all_outputs)[noisy.rows])
        if (rank := max(noise.basis_idx) + 1) > min(outputs, inputs):
            raise ValueError(
                f"{folder}: {noisy.prefix}.weight: rank {rank} exceeds the smaller side of the {[outputs, inputs]} "
                "matrix; choose a smaller rank"
            )
        shapes[noisy.basis] = (outputs if noise.bayes_noise == "right" else inputs, noise.rank)
    if basis_path is not None and not is_tfb(config):
        check_basis_file(Path(basis_path), config, noise, shapes)
    if not is_tfb(config):
        return
    for name, shape in shapes.items():
        if name not in tensors:
            projections = ",".join(noise.bayes_projections)
            advice = f" (with --bayes-projections {projections})" if noise.later_settings else ""
            raise ValueError(f"{folder}: tensor {name} is missing; convert or download the model again{advice}")
        _check_tensor(folder, name, tensors[name], shape)
    check_same_bases(folder, noise)


def check_same_bases(folder: Path, noise: NoiseConfig) -> None:
    """ValueError if a TFB checkpoint holds the bases of another direction or of other singular vectors than `noise`.

    Their shapes do not always tell: a square weight has bases of the same shape for both directions. A key that
    config.json lacks says nothing; then the shapes alone tell.
    """
    config = read_config(folder)
    if not is_tfb(config):
        return
    stored = NoiseConfig.from_model_config(SimpleNamespace(**config))
    for key, held, asked in (
        ("bayes_noise", stored.bayes_noise, noise.bayes_noise),
        ("basis_idx", list(stored.basis_idx), list(noise.basis_idx)),
    ):
        if key in config and held != asked:
            raise ValueError(
                f"{folder / CONFIG_FILE}: the basis vectors are those of {key} {held!r}, not {asked!r}; "
                "set bayes_noise and basis_idx as it was converted"
            )


def _check_layers(
    folder: Path, config: Mapping[str, Any], tensors: Mapping[str, StoredTensor], packed: Set[str]
) -> None:
    """Before a model of a billion layers is built."""
    layers = config.get("num_hidden_layers")
    if not isinstance(layers, int) or isinstance(layers, bool) or layers < 1:
        raise ValueError(f"{folder / CONFIG_FILE}: num_hidden_layers must be an integer >= 1; got {layers!r}")
    for layer in range(layers):
        for name in noisy_tensors(config, layer):
            if name not in tensors and name.rpartition(".")[0] not in packed:
                raise ValueError(_missing(folder, name))


def _missing(folder: Path, name: str) -> str:
    stale = reads_single_file(folder) and (folder / INDEX_FILE).is_file()
    beside = f"; {INDEX_FILE} is not read beside model.safetensors, nor by transformers" if stale else ""
    return f"{folder}: tensor {name} is missing; the checkpoint does not fit its {CONFIG_FILE}{beside}"


def _without_storage(folder: Path, config: Mapping[str, Any]) -> PreTrainedModel:
    keys = {key: value for key, value in config.items() if key not in _NOT_OF_THE_MODEL}
    base_type = architecture_of(config["model_type"]).base_model_type
    try:
        with torch.device("meta"):
            base = AutoConfig.for_model(base_type, **keys)
            return AutoModelForCausalLM.from_config(base, attn_implementation="eager")
    except Exception as error:
        text, _, _ = str(error).partition("Exception raised from")  # torch's frames of C++, a screen of them
        reason = " ".join(text.split()) or type(error).__name__
        raise ValueError(f"{folder / CONFIG_FILE}: no model can be made of it ({reason}); get it again") from error


def _check_experts(folder: Path, model: PreTrainedModel, tensors: Mapping[str, StoredTensor]) -> None:
    """Before the weights of a billion experts are told apart."""
    if architecture_of(model.config.model_type).experts and model.config.num_experts > len(tensors):
        raise ValueError(
            f"{folder / CONFIG_FILE}: asks for {model.config.num_experts} experts where all files hold {len(tensors)} "
            "tensors; get the model again"
        )


def _parameters(model: PreTrainedModel) -> Iterator[tuple[str, tuple[int, ...], bool]]:
    """Name and shape of what a checkpoint holds, and whether it is another one under a second name.

    Such are tied embeddings. The weights of experts are apart in a checkpoint, and together in a model.
    """
    parameters: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
    first = {name for name, _ in model.named_parameters()}
    shared = parameters.keys() - first
    if architecture_of(model.config.model_type).experts:
        parameters = revert_weight_conversion(model, parameters)
    for name, parameter in parameters.items():
        yield name, tuple(parameter.shape), name in shared
