"""The families without a class of their own in vLLM, which runs transformers' classes for them, with fused projections.

vLLM calls this its transformers backend. The layers have the names that TFBModelMixin looks for.
"""

from functools import cache, cached_property
from typing import Any

from transformers import AutoConfig, AutoModel, PreTrainedConfig
from vllm.model_executor.models.transformers import TransformersForCausalLM

from ..architectures import architecture_of
from ..noisy_weights import FUSED
from ..vllm_plugin.model_mixin import TFBModelMixin


class TransformersTFBModel(TFBModelMixin, TransformersForCausalLM):
    """vLLM's transformers backend with particle rows."""

    @cached_property
    def _from_config_kwargs(self) -> dict[str, Any]:
        """What vLLM hands to AutoModel, which knows no TFB config."""
        stock: dict[str, Any] = super()._from_config_kwargs
        return stock | {"config": decoder_config(stock["config"])}

    def recursive_replace(self) -> None:
        """Put vLLM's layers in place of transformers'; ValueError where q, k and v could not be fused."""
        super().recursive_replace()
        for index, layer in enumerate(self.model.layers):
            if not hasattr(layer.self_attn, FUSED):  # it depends on how the release of transformers is written
                raise ValueError(
                    f"vLLM could not fuse q, k and v of layer {index} of {type(self.model).__name__}, which noise is "
                    "added to; install the release of transformers that this vLLM was made for"
                )


def decoder_config(config: PreTrainedConfig) -> PreTrainedConfig:
    """`config`, a TFB model's or a plain one, as AutoModel takes it to make the decoder."""
    keys = config.to_dict()
    del keys["model_type"]
    made: PreTrainedConfig = _decoder_config_class(architecture_of(config.model_type).base_model_type)(**keys)
    made._attn_implementation = config._attn_implementation
    return made


@cache
def _decoder_config_class(base_model_type: str) -> Any:
    """A config class for which AutoModel makes a subclass of transformers' decoder.

    vLLM changes the class of the decoder for good, so that it can no longer be made without vLLM. As long as that is
    a subclass, transformers goes on working in the same process.
    """
    stock_config = type(AutoConfig.for_model(base_model_type))
    stock_model = AutoModel._model_mapping[stock_config]
    config_class = type(f"Vllm{stock_config.__name__}", (stock_config,), {})
    model_class = type(f"Vllm{stock_model.__name__}", (stock_model,), {"config_class": config_class})
    AutoModel.register(config_class, model_class)
    return config_class
