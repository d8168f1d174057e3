"""Each family of FAMILIES: all that tests/helpers/family_checks.py says of it holds."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

pytest.importorskip("vllm")

from bayesian_transformer.architectures import ARCHITECTURES
from bayesian_transformer.conversion import convert_checkpoint
from tests.helpers.family_checks import CHECKS, NOISE, OPTIONS, Answers, assert_agree, decode, scheduler, scores, see
from tests.helpers.tiny_families import FAMILIES, save_family
from tests.helpers.vllm_engines import engine

pytestmark = pytest.mark.engine


@pytest.mark.parametrize("name", FAMILIES)
def test_all_that_is_said_of_a_family_holds(name: str, tmp_path: Path) -> None:
    seen = see(name, tmp_path)
    for check in CHECKS.values():
        check(seen)


def test_no_family_is_left_out() -> None:
    assert {family.model_type for family in FAMILIES.values()} == ARCHITECTURES.keys()


@pytest.mark.parametrize("together", [False, True])
def test_layers_with_and_without_windows_share_a_block_table_or_not(together: bool, tmp_path: Path) -> None:
    """vLLM keeps a block table for each kind of layer, or one for all, in which no block is given back."""
    base = save_family("gemma3", tmp_path / "base")
    tfb = convert_checkpoint(base, tmp_path / "tfb")
    options = OPTIONS | {"disable_hybrid_kv_cache_manager": together}
    with engine(tfb, hf_overrides=NOISE, **options) as llm:
        assert (len(scheduler(llm).kv_cache_config.kv_cache_groups) == 1) is together
        decoded = decode(llm)
    model = AutoModelForCausalLM.from_pretrained(tfb, dtype=torch.float32, **NOISE).eval()
    assert_agree(Answers(decoded, [scores(model, decoded)]))
