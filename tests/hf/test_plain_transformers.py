"""A plain checkpoint in transformers has the numbers of the converted one."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config

from bayesian_transformer.hf.loading import load_model
from bayesian_transformer.hf.plain_checkpoints import load_plain
from bayesian_transformer.scoring import score
from tests.helpers.tiny_families import save_family

PROMPT, RESPONSE = [5, 6, 7], list(range(20, 30))


def numbers(model: object) -> torch.Tensor:
    return score(model, PROMPT, RESPONSE, seed=3).stack()  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["right", "left"])
@pytest.mark.parametrize("name", ["phi3", "gemma"])  # one fused projection; tied embeddings
def test_without_a_conversion_the_numbers_are_the_same(
    name: str, kind: str, tmp_path: Path, make_tfb: Callable[..., Path]
) -> None:
    base = save_family(name, tmp_path / "base")
    AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16).save_pretrained(base)
    plain = load_plain(base, torch.float32, num_samples=4, bayes_sigma=0.2, rank=5, bayes_noise=kind)
    stored = make_tfb(base, kind, 5)
    converted = AutoModelForCausalLM.from_pretrained(stored, dtype=torch.float32, num_samples=4, bayes_sigma=0.2)
    for one, other in zip(plain.noisy_projections, converted.noisy_projections, strict=True):
        assert one.name == other.name
        assert torch.equal(one.basis, other.basis)  # both are rounded to the dtype in the file, and then widened
    assert torch.equal(numbers(plain.eval()), numbers(converted.eval()))  # type: ignore[attr-defined]


def test_it_can_be_saved_as_a_tfb_model(tiny_llama_path: Path, tmp_path: Path) -> None:
    model = load_plain(tiny_llama_path)
    model.save_pretrained(tmp_path / "saved")  # type: ignore[attr-defined]
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "saved").eval()
    assert type(again) is type(model)
    assert torch.equal(numbers(again), numbers(model.eval()))  # type: ignore[attr-defined]


def test_command_lines_load_it(tiny_qwen2_path: Path, tiny_qwen2_tfb_path: Path) -> None:
    models = [load_model(str(path), "float32", "cpu") for path in (tiny_qwen2_path, tiny_qwen2_tfb_path)]
    assert torch.equal(*map(numbers, models))


def test_what_does_not_fit_is_refused_in_one_line(tiny_llama_path: Path, tmp_path: Path) -> None:
    GPT2Config().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"config.json: model_type 'gpt2' is not supported; it must be one of llama"):
        load_plain(tmp_path)
    with pytest.raises(ValueError, match=r"v_proj.weight: rank 65 exceeds .*; choose a smaller rank$"):
        load_plain(tiny_llama_path, rank=65)
