"""Bases of one direction or of some singular vectors are not taken for others, though their shapes may be equal."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

import bayesian_transformer  # noqa: F401 - registers TFB models
from bayesian_transformer.checkpoint import read_config
from bayesian_transformer.conversion import convert_checkpoint
from bayesian_transformer.fitting import check_fit
from bayesian_transformer.noisy_weights import noisy_weights


@pytest.fixture(scope="module")
def square(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every head has a value of its own, so q_proj and v_proj are square, and so both directions have one shape."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=64,
    )  # fmt: skip
    base = tmp_path_factory.mktemp("square") / "base"
    LlamaForCausalLM(config).save_pretrained(base)
    return convert_checkpoint(base, base.parent / "TFB-square", rank=4)


@pytest.mark.parametrize(("key", "asked"), [("bayes_noise", "left"), ("basis_idx", [1, 2, 3, 4])])
def test_other_bases_than_were_stored_are_refused(square: Path, key: str, asked: Any) -> None:
    config = read_config(square)
    check_fit(square, config)
    said = f"the basis vectors are those of {key} {config[key]!r}, not {asked!r}; set bayes_noise and basis_idx as"
    with pytest.raises(ValueError, match=re.escape(said)):
        check_fit(square, config | {key: asked})
    with pytest.raises(ValueError, match=re.escape(said)):
        AutoModelForCausalLM.from_pretrained(square, **{key: asked})


def test_a_fused_weight_needs_a_config_that_says_where_its_parts_lie() -> None:
    with pytest.raises(
        ValueError, match=r"config\.json lacks num_attention_heads, which says where q_proj, k_proj and v_proj"
    ):
        noisy_weights({"model_type": "phi3", "num_hidden_layers": 1, "hidden_size": 64})


def test_what_torch_says_of_a_size_is_cut_before_its_frames(square: Path) -> None:
    config = read_config(square) | {"hidden_size": 10**59}
    with pytest.raises(ValueError, match=r"config\.json: no model can be made of it") as error:
        check_fit(square, config)
    assert len(str(error.value)) < 500
    assert "frame #" not in str(error.value)
