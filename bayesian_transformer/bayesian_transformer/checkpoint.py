"""Reading checkpoints: their config, which safetensors file holds which tensor, whether a weight is usable."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .noise import PROJECTIONS

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
CONFIG_FILE = "config.json"
BASIS = "basis_vectors"
_SAMPLED_BYTES = 4096
_FLOAT_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def projection_name(layer: int, projection: str) -> str:
    """Checkpoint prefix of a noisy projection, for example `model.layers.0.self_attn.q_proj`."""
    return f"model.layers.{layer}.self_attn.{projection}"


def noisy_projections(num_layers: int) -> list[str]:
    """Checkpoint prefixes of all noisy projections, in layer order."""
    return [projection_name(layer, projection) for layer in range(num_layers) for projection in PROJECTIONS]


def check_weight(name: str, tensor: Tensor) -> None:
    """Raise ValueError naming the tensor unless it is floating (not quantised) and finite."""
    if tensor.dtype not in _FLOAT_DTYPES:
        raise ValueError(f"{name}: dtype {tensor.dtype} is not supported; use an unquantised checkpoint")
    if not torch.isfinite(tensor).all():
        raise ValueError(f"{name}: holds NaN or infinite values; the checkpoint is damaged, get it again")


def read_config(model_path: Path) -> dict[str, Any]:
    """config.json of a checkpoint folder; ValueError says what is wrong with it."""
    if not model_path.is_dir():
        raise ValueError(f"{model_path}: no such folder; give the local folder of a downloaded model")
    return _read_object(model_path / CONFIG_FILE, "give the folder of a Hugging Face model")


def tensor_files(model_path: Path) -> dict[str, str]:
    """Tensor name -> name of the safetensors file that holds it; every file and tensor is known to exist.

    Raises ValueError if there are no safetensors, or if the index or one of its shards is missing or wrong.
    """
    index = model_path / INDEX_FILE
    if index.is_file():
        weight_map = _read_object(index, "get it again").get("weight_map")
        if not isinstance(weight_map, Mapping) or not weight_map or not _are_texts(weight_map.values()):
            raise ValueError(f"{index}: weight_map must give a file name for each tensor; get the file again")
        _check_shards(model_path, weight_map)
        return dict(weight_map)
    if (model_path / SINGLE_FILE).is_file():
        return dict.fromkeys(_tensor_names(model_path / SINGLE_FILE), SINGLE_FILE)
    if any(model_path.glob("*.safetensors")):
        raise ValueError(f"{index}: missing, though there are safetensors shards; get the file from the model's page")
    raise ValueError(
        f"{model_path}: no {SINGLE_FILE} or {INDEX_FILE}; pickled weights (*.bin) are not read, "
        "save the model with safetensors first (model.save_pretrained does)"
    )


def _are_texts(values: Iterable[object]) -> bool:
    return all(isinstance(value, str) for value in values)


def _check_shards(model_path: Path, weight_map: Mapping[str, str]) -> None:
    for shard in sorted(set(weight_map.values())):
        if Path(shard).name != shard or not (model_path / shard).is_file():
            raise ValueError(f"{model_path / shard}: missing, though {INDEX_FILE} names it; get the shard again")
        absent = {name for name, file in weight_map.items() if file == shard} - set(_tensor_names(model_path / shard))
        if absent:
            raise ValueError(f"{model_path / shard}: tensor {min(absent)} is missing, though {INDEX_FILE} names it")


def _tensor_names(path: Path) -> list[str]:
    try:
        with safe_open(path, framework="pt") as file:
            return list(file.keys())
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path}: not a readable safetensors file ({error}); get it again") from error


def _read_object(path: Path, advice: str) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"{path}: missing; {advice}")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not valid JSON ({error}); {advice}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path}: expected a JSON object; {advice}")
    return value


def weights_digest(model_path: Path) -> str:
    """A digest that differs where the weights of two checkpoints do, made in a moment also for a large model.

    It covers the name, dtype and shape of every tensor, the basis vectors, which follow from all of q_proj and v_proj,
    and the first bytes of each other tensor: training changes most elements of what it touches. How the checkpoint is
    cut into files makes no difference.
    """
    digest = hashlib.sha256()
    files = tensor_files(model_path)
    headers = {file: _read_header(model_path / file) for file in set(files.values())}
    for name, file in sorted(files.items()):
        data_start, header = headers[file]
        begin, end = header[name]["data_offsets"]
        size = end - begin if name.endswith(BASIS) else min(end - begin, _SAMPLED_BYTES)
        digest.update(f"{name} {header[name]['dtype']} {header[name]['shape']}\n".encode())
        with (model_path / file).open("rb") as stream:
            stream.seek(data_start + begin)
            digest.update(stream.read(size))
    return digest.hexdigest()[:16]


def _read_header(path: Path) -> tuple[int, dict[str, Any]]:
    """Where the data of a readable safetensors file begins, and its header."""
    with path.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        return 8 + size, json.loads(stream.read(size))
