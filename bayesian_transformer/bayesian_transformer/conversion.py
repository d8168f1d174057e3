"""Turn a base checkpoint into a TFB checkpoint: the same weights plus basis vectors and the TFB keys in config.json.

The weight files are copied as they are, so the base tensors keep their bytes, and one shard with the basis vectors is
added. A single-file model becomes a two-shard one, because loaders ignore the index next to a `model.safetensors`.
Memory stays near the largest noisy weight and its SVD. The output appears under its name only when it is complete.
"""

import json
import logging
import shutil
import tempfile
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from .architectures import ARCHITECTURES, architecture_of
from .basis_cache import cached_basis_vectors
from .basis_file import SUFFIX, write_basis_file
from .carried_files import copy_carried_files
from .checkpoint import (
    BASIS,
    CONFIG_FILE,
    INDEX_FILE,
    SINGLE_FILE,
    StoredTensor,
    check_weight,
    is_quantised,
    is_tfb,
    read_config,
    tensor_files,
)
from .files import naming
from .fitting import check_fit
from .noise_config import DEFAULT_RANK, PROJECTIONS, NoiseConfig
from .noisy_weights import noisy_tensors, noisy_weights
from .printable import one_line

logger = logging.getLogger(__name__)

BASIS_SHARD = "model-basis-vectors.safetensors"
_SINGLE_FILE_SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


def convert_checkpoint(
    model_path: Path,
    output_path: Path,
    architecture: str | None = None,
    rank: int = DEFAULT_RANK,
    bayes_noise: str = "right",
    overwrite: bool = False,
    bayes_projections: Sequence[str] = PROJECTIONS,
) -> Path:
    """Write the TFB checkpoint of the base model in `model_path` to `output_path` and return that path.

    Args:
        architecture: a key of ARCHITECTURES; None takes the one that config.json names.
        rank: how many singular directions carry noise.
        bayes_noise: direction of the noise, see layers.py.
        overwrite: replace an existing output; otherwise it is an error.
        bayes_projections: which of q_proj, k_proj and v_proj get basis vectors.

    Raises ValueError, in one line that says what to do, for anything in the input that does not fit.
    """
    noise = _noise(rank, bayes_noise, bayes_projections)
    config, tensors, files = _read_base(model_path, architecture)
    _check_output(model_path, output_path, files, overwrite)
    # Those are checked when they are read.
    noisy = {noisy.tensor for noisy in noisy_weights(config, noise.bayes_projections)}
    _check_values(model_path, files, tensors.keys() - noisy)
    with new_directory(output_path) as directory:
        copied = _copy_files(model_path, directory, files)
        basis = computed_bases(model_path, files, config, noise)
        _save_basis(directory, files, copied, basis)
        keys = {key: value for key, value in config.items() if key != "bayes_projections"}  # not always replaced
        _write_json(directory / CONFIG_FILE, keys | _tfb_keys(config["model_type"], noise, model_path))
    return output_path


def convert_bases(
    model_path: Path,
    output_path: Path,
    architecture: str | None = None,
    rank: int = DEFAULT_RANK,
    bayes_noise: str = "right",
    overwrite: bool = False,
    bayes_projections: Sequence[str] = PROJECTIONS,
) -> Path:
    """Write the basis vectors of the base model alone to the file `output_path`, see basis_file.py; return that path.

    Arguments and errors as those of `convert_checkpoint`.
    """
    if output_path.suffix != SUFFIX:
        raise ValueError(f"{output_path}: basis vectors alone are one file; give it a name that ends in {SUFFIX}")
    noise = _noise(rank, bayes_noise, bayes_projections)
    config, tensors, files = _read_base(model_path, architecture)
    with _naming(output_path):
        if output_path.exists() and not (overwrite and output_path.is_file()):
            raise ValueError(f"{output_path}: exists already; choose another --output-path or pass --overwrite")
    if output_path.resolve() in {(model_path / file).resolve() for file in files.values()}:
        raise ValueError(f"{output_path}: holds weights of the model; choose another --output-path")
    bases = computed_bases(model_path, files, config, noise)
    hidden_size = tensors[noisy_tensors(config, 0)[0]].shape[1]  # which config.json need not say
    with _naming(output_path):
        write_basis_file(output_path, bases, config | {"hidden_size": hidden_size}, noise)
    return output_path


def _noise(rank: int, bayes_noise: str, bayes_projections: Sequence[str]) -> NoiseConfig:
    if rank < 1:
        raise ValueError(f"rank must be at least 1; got {rank}")
    return NoiseConfig().replaced(
        bayes_noise=bayes_noise, basis_idx=[*range(rank)], bayes_projections=bayes_projections
    )


def _read_base(
    model_path: Path, architecture: str | None
) -> tuple[dict[str, Any], dict[str, StoredTensor], dict[str, str]]:
    """The config of a base checkpoint, its tensors, and their files; ValueError for anything that does not fit."""
    config = read_config(model_path)
    check_architecture(model_path, config, architecture)
    tensors = check_fit(model_path, config)
    return config, tensors, _check_files(model_path, tensors.keys())


def check_architecture(model_path: Path, config: dict[str, Any], architecture: str | None = None) -> str:
    """The key of ARCHITECTURES for the config of a base checkpoint; ValueError if it is not supported."""
    path, model_type = model_path / CONFIG_FILE, config.get("model_type")
    if is_tfb(config):
        raise ValueError(f"{path}: model_type {model_type} says this is a TFB checkpoint already; use it as it is")
    try:
        name = architecture_of(model_type, config).base_model_type
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if architecture not in (None, name):
        raise ValueError(f"{path}: model_type is {model_type}, not {architecture}; use --architecture {model_type}")
    if name == "mistral" and config.get("layer_types"):  # transformers takes it for a Ministral
        raise ValueError(f"{path}: layer_types make this mistral a ministral, which is not supported")
    if config.get("use_bidirectional_attention"):
        raise ValueError(f"{path}: use_bidirectional_attention lets tokens see later ones, which particle rows do not")
    if is_quantised(config):
        raise ValueError(f"{path}: the checkpoint is quantised; convert the unquantised model instead")
    return name


def _check_files(model_path: Path, known: Set[str]) -> dict[str, str]:
    """Tensor name -> file, of a checkpoint that has no basis yet. A warning names a tensor that is not `known`."""
    files = tensor_files(model_path)
    unknown = sorted(name for name in files.keys() - known if ".rotary_emb." not in name)  # older ones have those
    if unknown:
        logger.warning(
            "%s: tensor %.200r and %d more are not of this model; transformers leaves them unread, vLLM refuses them",
            model_path / files[unknown[0]],
            unknown[0],
            len(unknown) - 1,
        )
    for tensor, file in sorted(files.items()):
        if tensor.endswith(f".{BASIS}") or file == BASIS_SHARD:
            raise ValueError(f"{model_path / file}: holds basis vectors already ({tensor}); convert the base model")
    return files


def _check_output(model_path: Path, output_path: Path, files: dict[str, str], overwrite: bool) -> None:
    if output_path.resolve() == model_path.resolve():
        raise ValueError(f"{output_path}: output and model are the same folder; choose another --output-path")
    parent = output_path.absolute().parent
    with _naming(output_path):
        if output_path.exists() and not (overwrite and output_path.is_dir()):
            raise ValueError(f"{output_path}: exists already; choose another --output-path or pass --overwrite")
        parent.mkdir(parents=True, exist_ok=True)
    needed = sum((model_path / shard).stat().st_size for shard in set(files.values()))
    free = shutil.disk_usage(parent).free
    if needed > free:
        raise ValueError(f"{parent}: needs {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; make room or move it")


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turn what goes wrong with files while `path` is made into a ValueError of one line."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = one_line(error)
        raise ValueError(f"{path}: cannot be written ({reason}); mend that or choose another folder") from error


@contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """Yield a temporary folder next to `path` that takes its name, and its place, if the block succeeds.

    ValueError, naming `path`, for what goes wrong with files meanwhile; nothing is left behind then.
    """
    parent = path.absolute().parent
    with _naming(path):
        parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=parent))
        try:
            content, replaced = temporary / "new", temporary / "old"
            content.mkdir()
            yield content
            if path.exists():
                path.rename(replaced)
            content.rename(path)
        finally:
            shutil.rmtree(temporary)


def _copy_files(model_path: Path, directory: Path, files: dict[str, str]) -> dict[str, str]:
    """Copy the shards and what else belongs to the model; return old shard name -> new shard name."""
    copy_carried_files(model_path, directory)
    shards = {shard: shard for shard in files.values()}
    if set(shards) == {SINGLE_FILE}:
        shards = {SINGLE_FILE: _SINGLE_FILE_SHARDS[0]}
    for old, new in shards.items():
        shutil.copyfile(model_path / old, directory / new)
    return shards


def computed_bases(
    model_path: Path, files: dict[str, str], config: dict[str, Any], noise: NoiseConfig
) -> dict[str, Tensor]:
    """Basis vectors of every noisy projection of a base checkpoint by name, reading one weight at a time.

    Args:
        files: as `tensor_files` has them.
    """
    basis = {}
    for noisy in tqdm(noisy_weights(config, noise.bayes_projections), desc="SVD", unit="matrix"):
        weight = _read_weight(model_path, files, noisy.tensor)[noisy.rows]
        try:
            basis[noisy.basis] = cached_basis_vectors(weight, noise.basis_idx, noise.bayes_noise)
        except ValueError as error:
            raise ValueError(f"{noisy.prefix}.weight: {error}; choose a smaller rank") from error
    return basis


def _check_values(model_path: Path, files: dict[str, str], names: Set[str]) -> None:
    """ValueError, naming file and tensor, unless all values of these tensors are finite."""
    for shard in sorted(set(files.values())):
        with safe_open(model_path / shard, framework="pt") as file:
            for name in sorted(name for name in names if files[name] == shard):
                check_weight(f"{model_path / shard}: tensor {name}", file.get_tensor(name))


def _read_weight(model_path: Path, files: dict[str, str], name: str) -> Tensor:
    """A tensor; ValueError, naming file and tensor, unless all its values are finite."""
    where = f"{model_path / files[name]}: tensor {name}"
    try:
        with safe_open(model_path / files[name], framework="pt") as file:
            weight: Tensor = file.get_tensor(name)
    except SafetensorError as error:
        raise ValueError(f"{where} cannot be read ({error})") from error
    check_weight(where, weight)
    return weight


def _save_basis(directory: Path, files: dict[str, str], shards: dict[str, str], basis: dict[str, Tensor]) -> None:
    """Write the shard of basis vectors and an index over all shards."""
    shard = _SINGLE_FILE_SHARDS[1] if set(files.values()) == {SINGLE_FILE} else BASIS_SHARD
    save_file(basis, directory / shard, metadata={"format": "pt"})
    weight_map = {name: shards[file] for name, file in files.items()} | dict.fromkeys(basis, shard)
    sizes = {"total_size": 0, "total_parameters": 0}
    for file in sorted(set(weight_map.values())):
        with safe_open(directory / file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118  (safe_open is not a mapping)
                tensor = tensors.get_tensor(name)
                sizes["total_size"] += tensor.nbytes
                sizes["total_parameters"] += tensor.numel()
    _write_json(directory / INDEX_FILE, {"metadata": sizes, "weight_map": dict(sorted(weight_map.items()))})
    shutil.copymode(directory / INDEX_FILE, directory / shard)  # safetensors makes its files private


def _write_json(path: Path, value: dict[str, Any]) -> None:
    with naming(path):
        path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _tfb_keys(architecture: str, noise: NoiseConfig, model_path: Path) -> dict[str, Any]:
    return {
        "model_type": ARCHITECTURES[architecture].model_type,
        "architectures": [ARCHITECTURES[architecture].vllm_architecture],
        "bayes_sigma": noise.bayes_sigma,
        "bayes_noise": noise.bayes_noise,
        "basis_idx": list(noise.basis_idx),
        "sample": noise.sample,
        "num_samples": noise.num_samples,
        "lowrank": True,
        "init_basis_vectors": True,
        "use_tfb_for_generation": noise.use_tfb_for_generation,
        **noise.later_settings,
        "base_lm_path": str(model_path.resolve()),
    }
