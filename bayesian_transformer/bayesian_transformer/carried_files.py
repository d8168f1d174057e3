"""What a conversion carries over from the base model besides its weights: tokenizer, chat templates, settings, texts.

Everything is, but for

- weights of any format, and their indexes: the conversion writes those that it read;
- sub-folders that hold weights, such as `original/` or `onnx/`, with all that is in them: each is another model, or
  this one in another format;
- hidden files and folders, such as `.git`.

So the sub-folders that transformers reads come along: `additional_chat_templates/` of a tokenizer, `custom_generate/`
of a model, the folder of a processor's second tokenizer.

Links to files are followed, also out of the folder: a hub cache consists of them, and what loads the model follows them
too. Links to folders are not: no cache has them, and one to `/` would copy the disk.
"""

import logging
import os
import shutil
from pathlib import Path

from .checkpoint import CONFIG_FILE, check_link

logger = logging.getLogger(__name__)

_WEIGHTS = (
    *(".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".ggml", ".h5", ".msgpack", ".onnx", ".onnx_data"),
    *(".ot", ".tflite", ".mlmodel", ".mlpackage", ".pdparams", ".npz", ".nemo", ".engine"),
)


def carried_files(model_path: Path) -> list[Path]:
    """The files in a model's folder, as paths relative to it, that a conversion copies; config.json is not among them.

    ValueError names a link that leads nowhere. A link to a folder, and what is neither file nor folder, are left out
    with a warning. A file behind a link out of the folder is copied with a warning, as it may be private.
    """
    found = []
    for folder, folders, files in os.walk(model_path, onerror=_raise):
        place = Path(folder)
        folders[:] = [name for name in sorted(folders) if _is_carried(place / name, place == model_path)]
        for path in (place / name for name in sorted(files)):
            if path.name.startswith(".") or _holds_weights(path) or path == model_path / CONFIG_FILE:
                continue
            check_link(path)
            if _leads_out(path, model_path):
                logger.warning("%s: is a link to %s, whose content is copied", path, path.resolve())
            if path.is_file():
                found.append(path.relative_to(model_path))
            else:
                logger.warning("%s: is not a file, and is not copied", path)
    return found


def copy_carried_files(model_path: Path, directory: Path) -> None:
    """Copy them to `directory`, in which their folders are made."""
    for name in carried_files(model_path):
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(model_path / name, directory / name)


def _leads_out(path: Path, model_path: Path) -> bool:
    """Whether a link leads out of the model's folder, and not to the blobs of the hub cache that the folder lies in."""
    homes = [model_path.resolve()]
    homes += [model_path.resolve().parents[1] / "blobs"] if model_path.resolve().parent.name == "snapshots" else []
    return path.is_symlink() and not any(path.resolve().is_relative_to(home) for home in homes)


def _is_carried(folder: Path, is_top: bool) -> bool:
    if folder.name.startswith("."):
        return False
    if folder.is_symlink():
        logger.warning("%s: a link to a folder is not copied; put the folder there if the model needs it", folder)
        return False
    if not is_top:
        return True
    return not any(_holds_weights(Path(name)) for *_, files in os.walk(folder, onerror=_raise) for name in files)


def _holds_weights(path: Path) -> bool:
    return path.suffix in _WEIGHTS or path.name.endswith(".index.json")


def _raise(error: OSError) -> None:
    raise error
