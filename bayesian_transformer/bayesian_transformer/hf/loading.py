"""Models and tokenizers for the command lines: an error is one line that names the option and the file."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from ..architectures import is_plain
from ..checkpoint import is_tfb, read_config
from ..fitting import check_fit
from ..model import NoisyModelMixin
from ..printable import one_line, printable
from .plain_checkpoints import load_plain


def load_model(path: str, dtype: str, device: str, bayes_projections: Sequence[str] | None = None) -> NoisyModelMixin:
    """A model with noisy projections, in evaluation mode. ClickException if `path` holds something else.

    A plain checkpoint of a supported family gets the noise of `tfb()`. `bayes_projections` replaces the config's.
    """
    changes: dict[str, Any] = {} if bayes_projections is None else {"bayes_projections": [*bayes_projections]}
    try:
        torch.zeros(1, device=device).item()  # meta, a device without values, does not work either
    except (AssertionError, RuntimeError) as error:  # a torch without CUDA raises the former
        raise click.ClickException(f"--device {device}: {_first_line(error)}") from error
    try:
        _check_folder(Path(path), changes)
        if _is_plain(Path(path)):
            model = load_plain(Path(path), getattr(torch, dtype), **changes)
        else:
            model = AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, dtype), **changes)
    except StrictDataclassError as error:
        raise click.ClickException(f"--model-path {path}: config.json: {one_line(error)}") from error
    except (OSError, ValueError) as error:
        known = Path(path).is_dir()
        reason = _first_line(error) if known else "no such folder, nor a model that was downloaded"
        raise click.ClickException(f"--model-path {path}: {reason}") from error
    if not isinstance(model, NoisyModelMixin):
        raise click.ClickException(f"--model-path {path}: is not a TFB model; convert it with convert_to_tfb.py")
    try:
        return model.to(device).eval()  # type: ignore[attr-defined]
    except RuntimeError as error:  # it does not fit there
        raise click.ClickException(f"--device {device}: {_first_line(error)}") from error


def _check_folder(folder: Path, changes: Mapping[str, Any]) -> None:
    """ValueError for what transformers has no words for; a name on the hub is left to it."""
    if folder.is_dir():
        config = read_config(folder)
        if is_tfb(config):
            check_fit(folder, {**config, **changes})
        elif changes and not is_plain(config.get("model_type")):
            raise ValueError(f"has no {', '.join(changes)}, which TFB models and plain checkpoints have")


def _is_plain(folder: Path) -> bool:
    """Whether a folder holds a base checkpoint of a supported family."""
    return folder.is_dir() and is_plain(read_config(folder).get("model_type"))


def load_tokenizer(path: str, option: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a model, which `option` gave. ClickException if there is none or a file of it is damaged."""
    folder = Path(path)
    try:
        for file in sorted(folder.glob("*token*.json")):
            _check_file(file)
        return AutoTokenizer.from_pretrained(path, local_files_only=folder.is_dir())
    except (OSError, ValueError) as error:
        advice = "copy the tokenizer's files of the base model there"
        raise click.ClickException(f"{option} {path}: no usable tokenizer ({_first_line(error)}); {advice}") from error


def _check_file(path: Path) -> None:
    """ValueError if a JSON file of a tokenizer does not hold what transformers takes for granted."""
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path.name}: not valid JSON, {error}") from error
    wanted = {"model", "added_tokens"} if path.name == "tokenizer.json" else set()
    if not isinstance(value, dict) or not wanted <= value.keys():
        raise ValueError(f"{path.name}: lacks what a tokenizer has")


def _first_line(error: BaseException) -> str:
    return printable(str(error).partition("\n")[0].rstrip(": "))
