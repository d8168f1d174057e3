"""Reading checkpoints: their config, which safetensors file holds which tensor, whether a weight is usable.

Which files hold the weights is decided in `stored_tensors` alone, as transformers decides it.
"""

import hashlib
import json
import logging
from codecs import BOM_UTF8
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .architectures import ARCHITECTURES
from .files import parse_document, read_document

logger = logging.getLogger(__name__)

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
CONFIG_FILE = "config.json"
BASIS = "basis_vectors"
_SAMPLED_BYTES = 4096
_CHECKED_ELEMENTS = 1 << 24  # at a time, which bounds the memory
_MOST_JSON_BYTES = 1 << 25  # far above the index of the largest model
_FLOAT_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
FLOAT_NAMES = ("F32", "F16", "BF16", "F64")  # what safetensors calls them


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies, and what the header of its file says of it."""

    file: str  # its name in the folder
    dtype: str  # as safetensors calls it: F32, BF16
    shape: tuple[int, ...]
    begin: int  # first byte in the file
    end: int  # one past the last


def check_weight(name: str, tensor: Tensor) -> None:
    """Raise ValueError naming the tensor unless it is floating (not quantised) and finite."""
    if tensor.dtype not in _FLOAT_DTYPES:
        raise ValueError(f"{name}: dtype {tensor.dtype} is not supported; use an unquantised checkpoint")
    if not all(torch.isfinite(part).all() for part in tensor.flatten().split(_CHECKED_ELEMENTS)):
        raise ValueError(f"{name}: holds NaN or infinite values; the checkpoint is damaged, get it again")


def read_config(model_path: Path) -> dict[str, Any]:
    """config.json of a checkpoint folder; ValueError says what is wrong with it."""
    if not model_path.is_dir():
        raise ValueError(f"{model_path}: no such folder; give the local folder of a downloaded model")
    return _read_object(model_path / CONFIG_FILE, "give the folder of a Hugging Face model")


def is_tfb(config: Mapping[str, Any]) -> bool:
    """Whether a config.json belongs to a TFB checkpoint."""
    return config.get("model_type") in [architecture.model_type for architecture in ARCHITECTURES.values()]


def is_quantised(config: Mapping[str, Any]) -> bool:
    """Whether a config.json belongs to a checkpoint whose weights are packed integers or eight-bit floats."""
    return bool(quantization(config))


def quantization(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a config.json says of how the weights are quantised; {} if they are not."""
    return config.get("quantization_config") or config.get("compression_config") or {}


def check_link(path: Path) -> None:
    """ValueError if `path` is a link that leads nowhere or round in a circle, as an interrupted download leaves one."""
    if path.is_symlink() and not path.exists():
        raise ValueError(f"{path}: a broken link (to {path.readlink()}); get the file again, or remove the link")


def tensor_files(model_path: Path) -> dict[str, str]:
    """Tensor name -> name of the safetensors file that holds it; see `stored_tensors`."""
    return {name: tensor.file for name, tensor in stored_tensors(model_path).items()}


def stored_tensors(model_path: Path) -> dict[str, StoredTensor]:
    """The tensors of a checkpoint folder by name, in the files that transformers would read.

    model.safetensors comes first, and is then the only file. Without it the index names the files, all of whose tensors
    are read. ValueError if there are no safetensors, or if the index or a file is missing or wrong.
    """
    single, index = model_path / SINGLE_FILE, model_path / INDEX_FILE
    for path in (single, index):
        check_link(path)
    if single.is_file():
        if index.is_file() and _weight_files(index) != {SINGLE_FILE}:
            _warn(f"{single}: is read alone, as transformers does; remove what is out of date, it or {INDEX_FILE}")
        return _tensors_of(single)
    if index.is_file():
        return _indexed_tensors(model_path, index)
    if any(model_path.glob("*.safetensors")):
        raise ValueError(f"{index}: missing, though there are safetensors shards; get the file from the model's page")
    raise ValueError(
        f"{model_path}: no {SINGLE_FILE} or {INDEX_FILE}; pickled weights (*.bin) are not read, "
        "save the model with safetensors first (model.save_pretrained does)"
    )


def reads_single_file(model_path: Path) -> bool:
    """Whether `stored_tensors` reads model.safetensors alone."""
    return (model_path / SINGLE_FILE).is_file()


@cache
def _warn(text: str) -> None:
    """Say it once: a folder is read several times."""
    logger.warning("%s", text)


def _weight_files(index: Path) -> set[str] | None:
    """The files that an index names which nothing depends on; None if it is damaged."""
    try:
        return set(_weight_map(index).values())
    except ValueError:
        return None


def _weight_map(index: Path) -> dict[str, str]:
    weight_map = _read_object(index, "get it again").get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ValueError(f"{index}: weight_map must give a file name for each tensor; get the file again")
    for tensor, name in weight_map.items():
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise ValueError(
                f"{index}: {tensor} is said to be in {name!r}, which is not the name of a safetensors file in this "
                "folder; get the file again"
            )
    return weight_map


def _indexed_tensors(model_path: Path, index: Path) -> dict[str, StoredTensor]:
    weight_map = _weight_map(index)
    tensors: dict[str, StoredTensor] = {}
    for shard in sorted(set(weight_map.values())):
        path = model_path / shard
        check_link(path)
        if not path.is_file():
            raise ValueError(f"{path}: missing, though {INDEX_FILE} names it; get the shard again")
        found = _tensors_of(path)
        if absent := {name for name, file in weight_map.items() if file == shard} - found.keys():
            raise ValueError(f"{path}: tensor {min(absent)} is missing, though {INDEX_FILE} names it")
        if twice := found.keys() & tensors.keys():
            raise ValueError(f"{path}: tensor {min(twice)} is in {tensors[min(twice)].file} too; get the shards again")
        tensors |= found
    if not isinstance(_read_object(index, "get it again").get("metadata"), dict):
        raise ValueError(f"{index}: has no metadata, which transformers needs; get the file again")
    return tensors


def _tensors_of(path: Path) -> dict[str, StoredTensor]:
    """The tensors of a safetensors file, whose header says the truth about their places."""
    try:
        with safe_open(path, framework="pt"):  # checks sizes and offsets
            pass
        with path.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            header = parse_document(stream.read(size), "get the file again")
    except (OSError, SafetensorError, ValueError) as error:
        raise ValueError(f"{path}: not a readable safetensors file ({error}); get it again") from error
    header.pop("__metadata__", None)
    return {
        name: StoredTensor(path.name, entry["dtype"], tuple(entry["shape"]), *_places(entry, 8 + size))
        for name, entry in header.items()
    }


def _places(entry: Mapping[str, Any], start: int) -> tuple[int, int]:
    begin, end = entry["data_offsets"]
    return start + begin, start + end


def _read_object(path: Path, advice: str) -> dict[str, Any]:
    check_link(path)
    if not path.is_file():
        raise ValueError(f"{path}: missing; {advice}")
    if path.stat().st_size > _MOST_JSON_BYTES:
        raise ValueError(f"{path}: is {path.stat().st_size} bytes long, which no such file is; {advice}")
    with path.open("rb") as file:
        if file.read(len(BOM_UTF8)) == BOM_UTF8:
            raise ValueError(f"{path}: begins with a byte order mark, which transformers refuses; save it without")
    found = read_document(path, advice)
    for key, value in found.items():
        try:
            json.dumps(value, allow_nan=False)
        except ValueError as error:
            raise ValueError(f"{path}: {key} holds NaN or an infinity, which JSON has not; {advice}") from error
    return found


def weights_digest(model_path: Path) -> str:
    """A digest that differs where the weights of two checkpoints do, made in a moment also for a large model.

    It covers the name, dtype and shape of every tensor, the basis vectors, which follow from all of q_proj and v_proj,
    and the first bytes of each other tensor: training changes most elements of what it touches. How the checkpoint is
    cut into files makes no difference.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(stored_tensors(model_path).items()):
        size = tensor.end - tensor.begin
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        with (model_path / tensor.file).open("rb") as stream:
            stream.seek(tensor.begin)
            digest.update(stream.read(size if name.endswith(BASIS) else min(size, _SAMPLED_BYTES)))
    return digest.hexdigest()[:16]
