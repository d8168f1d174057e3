"""Basis vectors that were computed once on this machine: one safetensors file each, below `cache_dir()`.

A file is named by the bytes of the weight and by how the basis was computed. So conversion, vLLM and transformers find
each other's, and a weight that has changed finds none. The cache may be removed at any time.
"""

import fcntl
import hashlib
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .bases import ALGORITHM, basis_vectors
from .checkpoint import BASIS
from .files import atomic_path, cache_dir
from .printable import one_line

logger = logging.getLogger(__name__)

_DIGEST = "sha256"  # in the metadata of a file: that of its basis


def cached_basis_vectors(weight: Tensor, basis_idx: Sequence[int], kind: str, store: bool = True) -> Tensor:
    """What `bases.basis_vectors` returns, from the cache if it is there.

    Of several processes that want the same one computes, and the others wait for it. Whatever is wrong with the cache,
    the basis is computed all the same.

    Args:
        store: False computes without writing what is not there, for weights that will soon change again.
    """
    try:
        path = cache_dir() / "bases" / f"{_key(weight, basis_idx, kind)}.safetensors"
        shape = (weight.shape[0 if kind == "right" else 1], len(basis_idx))
        found = _read(path, weight, shape)
        if found is not None or not store:
            return basis_vectors(weight, basis_idx, kind) if found is None else found
        with _sole_writer(path):
            found = _read(path, weight, shape)
            if found is None:
                found = basis_vectors(weight, basis_idx, kind)
                _write(path, found)
            return found
    except OSError as error:
        _warn(error)
        return basis_vectors(weight, basis_idx, kind)


def _key(weight: Tensor, basis_idx: Sequence[int], kind: str) -> str:
    """A digest of all that a basis depends on."""
    digest = hashlib.sha256(f"{ALGORITHM} {kind} {list(basis_idx)} {weight.dtype} {list(weight.shape)}\n".encode())
    digest.update(_bytes(weight))
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> memoryview:
    """The bytes of a tensor, without a copy where it lies in one piece."""
    return tensor.detach().cpu().flatten().view(torch.uint8).numpy().data  # flat, as strides of size 1 may be any


def _read(path: Path, weight: Tensor, shape: tuple[int, int]) -> Tensor | None:
    """The basis that a file holds, on the device of `weight`; None if there is none or it is damaged."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            basis: Tensor = file.get_tensor(BASIS)
            is_whole = file.metadata().get(_DIGEST) == hashlib.sha256(_bytes(basis)).hexdigest()
            fits = basis.shape == shape and basis.dtype == weight.dtype and bool(basis.isfinite().all())
            is_whole = is_whole and fits
    except (SafetensorError, AttributeError, OSError):  # without metadata it has None of them
        is_whole = False
    if not is_whole:
        logger.warning("%s: damaged, is computed again", path)
    return basis.to(weight.device) if is_whole else None


def _write(path: Path, basis: Tensor) -> None:
    content = basis.cpu()
    digest = hashlib.sha256(_bytes(content)).hexdigest()
    try:
        with atomic_path(path) as temporary:
            save_file({BASIS: content}, temporary, {"format": "pt", _DIGEST: digest})
    except (OSError, SafetensorError) as error:  # the latter is how a full disk is said
        _warn(error)


@contextmanager
def _sole_writer(path: Path) -> Iterator[None]:
    """Wait until no other process is in such a block for this path. A process that dies is in it no longer."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_suffix(".lock")
    with lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)  # who waits for it finds the file; at worst two compute the same


def _warn(error: Exception) -> None:
    _say(f"basis vectors are not cached ({one_line(error)}); set TOKUR_CACHE to a folder that can be written")


@cache
def _say(text: str) -> None:
    """Once, not for every weight of a model."""
    logger.warning("%s", text)
