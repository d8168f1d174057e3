"""The noise keys of a config.json: what is taken, and what is said about the rest."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from bayesian_transformer.config import NoiseConfig
from tests.helpers.prompt_models import save_model_without_weights


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model_without_weights(tmp_path_factory.mktemp("tiny") / "TFB-tiny", "qwen2")


def noise_of(path: Path, copy: Path, **keys: Any) -> NoiseConfig:
    """What is read of the model in `path` when its config.json has other keys."""
    copy.mkdir()
    content = json.loads((path / "config.json").read_text()) | keys
    (copy / "config.json").write_text(json.dumps(content))
    return NoiseConfig.from_model_config(AutoConfig.from_pretrained(copy))


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("sample", "false", "sample must be true or false; got 'false'"),
        ("sample", None, "sample must be true or false; got None"),
        ("use_tfb_for_generation", 0, "use_tfb_for_generation must be true or false; got 0"),
        ("bayes_sigma", True, "bayes_sigma must be a finite number >= 0; got True"),
        ("bayes_sigma", "0.1", "bayes_sigma must be a finite number >= 0; got '0.1'"),
        ("bayes_sigma", float("nan"), "bayes_sigma must be a finite number >= 0; got nan"),
        ("num_samples", 2.0, "num_samples must be an integer >= 1; got 2.0"),
        ("basis_idx", 5, "basis_idx must list integers >= 0, at least one; got 5"),
        ("basis_idx", [0, "1"], "basis_idx must list integers >= 0, at least one; got [0, '1']"),
        ("basis_idx", None, "basis_idx must list integers >= 0, at least one; got None"),
        ("bayes_projections", "q_proj", "bayes_projections must list some of q_proj, k_proj, v_proj; got 'q_proj'"),
        ("bayes_projections", [], "bayes_projections must list some of q_proj, k_proj, v_proj; got []"),
        ("bayes_projections", ["o_proj"], "bayes_projections must list some of q_proj, k_proj, v_proj; got ['o_proj']"),
        ("bayes_projections", [{}], "bayes_projections must list some of q_proj, k_proj, v_proj; got [{}]"),
        (
            "bayes_projections",
            ["k_proj", "k_proj"],
            "bayes_projections must not repeat a projection; got ['k_proj', 'k_proj']",
        ),
    ],
)
def test_a_wrong_value_is_named_in_one_line(tiny: Path, tmp_path: Path, key: str, value: Any, said: str) -> None:
    with pytest.raises(ValueError, match=f"^{key} ") as caught:
        noise_of(tiny, tmp_path / "copy", **{key: value})
    assert str(caught.value) == said


def test_a_whole_number_is_a_sigma_too(tiny: Path, tmp_path: Path) -> None:
    noise = noise_of(tiny, tmp_path / "copy", bayes_sigma=0, basis_idx=[2, 0], sample=False)
    assert (noise.bayes_sigma, noise.basis_idx, noise.sample) == (0.0, (2, 0), False)
    assert isinstance(noise.bayes_sigma, float)


def test_the_order_of_projections_does_not_matter(tiny: Path, tmp_path: Path) -> None:
    assert noise_of(tiny, tmp_path / "none").bayes_projections == ("q_proj", "v_proj")
    turned = noise_of(tiny, tmp_path / "turned", bayes_projections=["v_proj", "q_proj"])
    assert turned == noise_of(tiny, tmp_path / "default", bayes_projections=["q_proj", "v_proj"])
    assert turned.later_settings == {}
    every = turned.replaced(bayes_projections=["v_proj", "k_proj", "q_proj"])
    assert every.bayes_projections == ("q_proj", "k_proj", "v_proj")
    assert every.later_settings == {"bayes_projections": ["q_proj", "k_proj", "v_proj"]}
