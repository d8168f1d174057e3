"""A plain checkpoint of a supported family as a TFB model of transformers, without a conversion."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from ..architectures import ARCHITECTURES
from ..checkpoint import BASIS, read_config, tensor_files
from ..conversion import check_architecture, computed_bases
from ..fitting import check_fit
from ..hf_overrides import tfb
from ..model import NoisyModelMixin
from ..noise_config import NoiseConfig


def load_plain(folder: Path, dtype: torch.dtype | str = "auto", **options: Any) -> NoisyModelMixin:
    """The TFB model of the base checkpoint in `folder`, with the numbers of the converted one.

    The basis vectors are computed from the weights in its files, in their dtype, or taken from the cache.

    Args:
        dtype: as in transformers.
        options: of `tfb`.

    Raises ValueError, in one line, for another model and for a checkpoint that does not fit its config.
    """
    config = read_config(folder)
    family = ARCHITECTURES[check_architecture(folder, config)]
    check_fit(folder, config)
    made = tfb(**options)(family.config_class.from_dict(_without_type(config)))
    # The loader of the base class, as ours asks for stored bases; it would report them as missing.
    stock = PreTrainedModel.from_pretrained.__func__  # type: ignore[attr-defined]
    without_bases = type("WithoutBases", (family.model_class,), {"_keys_to_ignore_on_load_missing": [f"{BASIS}$"]})
    model = stock(without_bases, folder, config=made, dtype=dtype)
    model.__class__ = family.model_class
    bases = computed_bases(folder, tensor_files(folder), config, NoiseConfig.from_model_config(made))
    for projection in model.noisy_projections:
        projection.set_basis(bases, model.noise.rank, model.noise.bayes_noise)
    return model


def _without_type(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key != "model_type"}
