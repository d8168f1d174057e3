"""`tfb(...)`: what it makes of the config of a plain checkpoint, as vLLM would call it; no engine runs."""

import pickle
from typing import Any

import pytest
from transformers import AutoConfig, PreTrainedConfig

from bayesian_transformer import tfb
from bayesian_transformer.architectures import ARCHITECTURES
from bayesian_transformer.noise_config import NoiseConfig


@pytest.mark.parametrize("model_type", ARCHITECTURES)
@pytest.mark.parametrize("prefix", ["", "tfb_"])
def test_every_family_gets_its_architecture_and_keeps_its_type(model_type: str, prefix: str) -> None:
    overrides = tfb(num_samples=5, bayes_sigma=0.2, rank=4, bayes_noise="left")
    overrides = pickle.loads(pickle.dumps(overrides))  # noqa: S301  (vLLM's processes get it in this way)
    config = overrides(AutoConfig.for_model(prefix + model_type))
    assert config.model_type == prefix + model_type
    assert config.architectures == [ARCHITECTURES[model_type].vllm_architecture]
    noise = NoiseConfig.from_model_config(config)
    assert (noise.num_samples, noise.bayes_sigma, noise.basis_idx) == (5, 0.2, (0, 1, 2, 3))
    assert noise.bayes_noise == "left"


def test_what_is_not_asked_stays() -> None:
    stored = AutoConfig.for_model("tfb_llama", bayes_sigma=0.3, bayes_noise="left", basis_idx=[0, 1], num_samples=7)
    assert NoiseConfig.from_model_config(tfb(num_samples=3)(stored)) == NoiseConfig(0.3, "left", (0, 1), 3)
    assert NoiseConfig.from_model_config(tfb()(AutoConfig.for_model("llama"))) == NoiseConfig()


def test_another_family_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"^model_type 'gpt2' is not supported; it must be one of llama, qwen2, .*$"):
        tfb()(AutoConfig.for_model("gpt2"))


def test_a_model_that_is_read_from_mistrals_own_files_is_told_how_to_start() -> None:
    with pytest.raises(ValueError, match="start it with config_format='hf' and load_format='safetensors'"):
        tfb()(PreTrainedConfig(model_type="transformer"))


def test_the_question_that_vllm_asks_first_is_passed_on() -> None:
    """Its config has a made-up type, of which it wants to know what becomes."""
    config = PreTrainedConfig(architectures=[""], model_type="dummy_llama")
    assert tfb()(config).model_type == "dummy_llama"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rank": 0}, "rank must be an integer >= 1; got 0"),
        ({"rank": 2.0}, "rank must be an integer >= 1; got 2.0"),
        ({"num_samples": 0}, "num_samples must be an integer >= 1; got 0"),
        ({"bayes_sigma": -1}, "bayes_sigma must be a finite number >= 0; got -1"),
        ({"bayes_noise": "up"}, "bayes_noise must be one of right, left; got 'up'"),
    ],
)
def test_a_bad_value_is_refused_at_once(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        tfb(**options)
