"""`hf_overrides` with which vLLM runs a plain checkpoint of a supported family as a TFB model, without a conversion.

Importing this module imports neither torch nor transformers nor vLLM.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from typing import Any

from .architectures import architecture_of
from .noise_config import NoiseConfig

_OF_PARAMS = "transformer"  # what vLLM calls a model whose config is Mistral's own file
_PROBE = "dummy_"  # vLLM first asks with a config that has nothing but a model_type with this before it


@dataclass(frozen=True, eq=False)
class TFBOverrides:
    """A function on the model's config, as vLLM takes one for `hf_overrides`; it can be pickled."""

    keys: Mapping[str, Any]  # of NoiseConfig, and `basis_path`, to be replaced in the config

    def __call__(self, config: Any) -> Any:
        """`config`, a config of transformers, with the architecture of the TFB model and the keys in it.

        ValueError, in one line, for a model of another family.
        """
        if config.model_type.startswith(_PROBE):
            return config
        if config.model_type == _OF_PARAMS:
            raise ValueError(
                "vLLM has read the params.json of this model; start it with config_format='hf' and load_format="
                "'safetensors'"
            )
        family = architecture_of(config.model_type, vars(config))
        config.update({"architectures": [family.vllm_architecture], **self.keys})
        return config


def tfb(
    *,
    num_samples: int | None = None,
    bayes_sigma: float | None = None,
    rank: int | None = None,
    bayes_noise: str | None = None,
    use_tfb_for_generation: bool | None = None,
    bayes_projections: Sequence[str] | None = None,
    basis_path: str | PathLike[str] | None = None,
) -> TFBOverrides:
    """What makes vLLM run a checkpoint as a TFB model: `LLM("path/to/model", hf_overrides=tfb(num_samples=5))`.

    The numbers are those of the converted model. What is None stays as config.json has it, or else is the default.

    Args:
        num_samples: weight samples per token, the noise-free one included; default 10.
        bayes_sigma: noise scale, >= 0; default 0.1.
        rank: how many singular directions carry noise; default 8.
        bayes_noise: direction of the noise, right (the default) or left.
        use_tfb_for_generation: sample from the mean of all weight samples; default False.
        bayes_projections: which of q_proj, k_proj and v_proj carry noise; default q_proj and v_proj.
        basis_path: file of `tokur convert --bases-only`, whose bases are used as they are; a quantised checkpoint needs
            one. By default they are computed from the weights.

    Raises ValueError, in one line, for a value that cannot be.
    """
    if rank is not None and (isinstance(rank, bool) or not isinstance(rank, int) or rank < 1):
        raise ValueError(f"rank must be an integer >= 1; got {rank!r}")
    asked = {
        "num_samples": num_samples,
        "bayes_sigma": bayes_sigma,
        "basis_idx": None if rank is None else list(range(rank)),
        "bayes_noise": bayes_noise,
        "use_tfb_for_generation": use_tfb_for_generation,
        "bayes_projections": bayes_projections,
    }
    keys = {key: value for key, value in asked.items() if value is not None}
    NoiseConfig().replaced(**keys)  # which checks them
    if basis_path is not None:
        keys["basis_path"] = fspath(basis_path)
    return TFBOverrides(keys)
