"""What is tested of each family, as docs/limits.md shows it.

Nothing here is written by hand: the rows are the models that tests/vllm/test_families.py runs, described by their own
configs and parameters, and the list is that of the checks that it applies to each of them.
"""

from collections.abc import Iterator
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig

from bayesian_transformer.architectures import architecture_of
from bayesian_transformer.noise_config import NOISE_KINDS
from tests.helpers.family_checks import CHECKS, LENGTHS
from tests.helpers.tiny_families import FAMILIES, Family, family_config, shortest_window

_TOLD = {  # keys that `_heads` and the like put into words
    "head_dim",
    "hidden_size",
    "num_key_value_heads",
    "num_hidden_layers",
    "tie_word_embeddings",
    "sliding_window",
    "layer_types",
    "attention_bias",
    "rope_parameters",
}


def family_table() -> str:
    """A Markdown table of the models, and the list of what holds of each."""
    rows = [
        f"| {name} | `{architecture_of(family.model_type).vllm_architecture}` | {'; '.join(exercised(name))} | "
        f"{' / '.join(directions(family))} |"
        for name, family in FAMILIES.items()
    ]
    head = ["| tiny model | architecture | what it has | converted / plain |", "| --- | --- | --- | --- |"]
    checks = [f"- {check}" for check in CHECKS]
    return "\n".join([*head, *rows, "", "Each of these holds of each of them:", "", *checks])


def directions(family: Family) -> list[str]:
    """The direction of the noise on the converted model, and the other one, on the plain checkpoint."""
    return [family.bayes_noise, *(kind for kind in NOISE_KINDS if kind != family.bayes_noise)]


def exercised(name: str) -> list[str]:
    """What the model of FAMILIES[name] has that an engine can get wrong."""
    config = family_config(name)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    parameters = [parameter for parameter, _ in model.named_parameters()]
    return [
        _heads(config),
        *_modules(parameters),
        "tied embeddings" if config.tie_word_embeddings else "an output head of its own",
        *_window(name, config),
        *_rope(config),
        *(f"`{key}={value}`" for key, value in FAMILIES[name].config.items() if key not in _TOLD),
    ]


def _heads(config: PreTrainedConfig) -> str:
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    return f"{heads} heads of {size}, {config.num_key_value_heads} of keys and values"


def _modules(parameters: list[str]) -> Iterator[str]:
    """Biases, norms of heads and a fused projection, by the names of all parameters."""
    modules = {name.rpartition(".")[0].rpartition(".")[2] for name in parameters}
    biased = sorted({name.split(".")[-2] for name in parameters if name.endswith(".bias")})
    if biased:
        yield f"biases of {', '.join(biased)}"
    yield from sorted(f"`{name}`" for name in modules & {"q_norm", "k_norm", "qkv_proj"})


def _window(name: str, config: PreTrainedConfig) -> Iterator[str]:
    window, layers = shortest_window(name), config.num_hidden_layers
    if window is not None:
        kinds = getattr(config, "layer_types", None) or ["sliding_attention"] * layers
        reached = "" if 2 * window < max(LENGTHS) else ", not reached"
        yield f"a window of {window} tokens in {kinds.count('sliding_attention')} of {layers} layers{reached}"


def _rope(config: PreTrainedConfig) -> Iterator[str]:
    """The kinds of rotary embedding that are not the default, and whether it turns a part of a head only."""
    parameters: dict[str, Any] = config.rope_parameters
    kinds = [value for value in parameters.values() if isinstance(value, dict)] or [parameters]
    yield from sorted({f"{kind['rope_type']} RoPE" for kind in kinds} - {"default RoPE"})
    yield from (f"RoPE of {part} of a head" for kind in kinds if (part := kind.get("partial_rotary_factor", 1)) != 1)
