"""What the plugin asks of vLLM's version, and the three methods that it replaces in every process of a supported one.

The rest that takes the place of something of vLLM's (a model runner's class in worker.py, the attention of a layer in
attention/) belongs to one TFB model, whose classes an unsupported vLLM never gets to know.
"""

import functools
from typing import Any

import vllm
from packaging.version import InvalidVersion, Version

from ..architectures import ARCHITECTURES
from ..extras import supported_vllm

_UNSUPPORTED_MODEL = "bayesian_transformer.vllm_models.unsupported:UnsupportedModel"


def unsupported_reason() -> str | None:
    """One line that says why TFB models cannot run on the installed vLLM, None if they can."""
    found = vllm.__version__
    try:
        supported = supported_vllm()
    except ValueError as error:
        return str(error)
    try:
        is_supported = supported.contains(Version(found), prereleases=True)
    except InvalidVersion:  # a build from a source tree without tags
        is_supported = False
    reason = f"bayesian_transformer supports vllm{supported}; found {found}. Install one of these."
    return None if is_supported else reason


def refuse_tfb_models() -> None:
    """Make an unsupported vLLM say so as soon as a TFB model is loaded. Nothing else in the process changes."""
    for architecture in ARCHITECTURES.values():
        vllm.ModelRegistry.register_model(architecture.vllm_architecture, _UNSUPPORTED_MODEL)
    try:
        from vllm.model_executor.models.config import MODELS_CONFIG_MAP
    except ImportError:  # not in this version: the model says it, though later and in another process
        return
    for architecture in ARCHITECTURES.values():
        MODELS_CONFIG_MAP[architecture.vllm_architecture] = UnsupportedConfig


class UnsupportedConfig:
    """vLLM's per-architecture configuration hook under an unsupported version."""

    @staticmethod
    def verify_and_update_model_config(model_config: Any) -> None:
        raise ValueError(unsupported_reason())

    verify_and_update_config = verify_and_update_model_config


@functools.cache
def substitute() -> None:
    """Put our additions around vLLM's methods: once per process, and around those of other plugins too."""
    from vllm.config import VllmConfig
    from vllm.outputs import RequestOutput
    from vllm.v1.engine.output_processor import RequestState

    from .engine_config import naming_tfb_models
    from .outputs import merging_uncertainties, with_uncertainties

    for owner, method, around in (
        (VllmConfig, "_get_v2_model_runner_unsupported_features", naming_tfb_models),
        (RequestState, "_new_completion_output", with_uncertainties),
        (RequestOutput, "add", merging_uncertainties),
    ):
        setattr(owner, method, around(getattr(owner, method)))
