"""What the wrapper refuses: models that are noisy already, weights without a sound basis, unknown keys."""

import copy
import gc
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, MistralConfig

from bayesian_transformer import BayesianForCausalLMModel
from bayesian_transformer.scoring import score
from tests.hf.test_hf_wrapper import TINY, tiny_model


def test_one_model_has_one_wrapper(tiny_llama_tfb_path: Path, tmp_path: Path) -> None:
    """A second one would replace the basis of the first, whose numbers would change without a word."""
    lm = tiny_model(MistralConfig(**TINY))
    model = BayesianForCausalLMModel.wrap(lm, rank=3, num_samples=3)
    before = score(model, [5, 6], [7], seed=1).stack()
    for noisy in (lm, model, AutoModelForCausalLM.from_pretrained(tiny_llama_tfb_path)):
        with pytest.raises(ValueError, match="carries noise already"):
            BayesianForCausalLMModel.wrap(noisy, rank=3, bayes_noise="left")
    assert torch.equal(score(model, [5, 6], [7], seed=1).stack(), before)
    del model, noisy
    gc.collect()
    again = BayesianForCausalLMModel.wrap(lm, num_samples=3, bayes_noise="std")  # the old one is gone
    assert not any(name.endswith("basis_vectors") for name in again.state_dict())
    BayesianForCausalLMModel.wrap(copy.deepcopy(lm), rank=3)  # a copy is another model


@pytest.mark.parametrize("way", [AutoModelForCausalLM.from_pretrained, copy.deepcopy])
def test_a_wrapper_that_was_loaded_or_copied_counts_too(tmp_path: Path, way: Any) -> None:
    first = BayesianForCausalLMModel.wrap(tiny_model(MistralConfig(**TINY)), rank=3, num_samples=3)
    first.save_pretrained(tmp_path)
    model = way(first if way is copy.deepcopy else tmp_path)
    before = score(model, [5, 6], [7], seed=1).stack()
    del first
    copy.copy(model)  # shares the causal LM, and is gone at once
    gc.collect()
    with pytest.raises(ValueError, match="carries noise already"):
        BayesianForCausalLMModel.wrap(model.lm, rank=3, bayes_noise="left")
    assert torch.equal(score(model, [5, 6], [7], seed=1).stack(), before)


def test_a_failed_attempt_does_not_count() -> None:
    lm = tiny_model(MistralConfig(**TINY))
    with pytest.raises(ValueError, match="choose a smaller rank") as kept:  # as an interactive session keeps it
        BayesianForCausalLMModel.wrap(lm, rank=40)
    assert BayesianForCausalLMModel.wrap(lm, rank=3).noise.rank == 3
    assert kept


@pytest.mark.parametrize(
    ("targets", "options", "message"),
    [
        (["q_proj", "nothing"], {}, "no module called nothing"),
        (["self_attn"], {}, "not linear"),
        (["q_proj"], {"rank": 40}, r"q_proj\.weight: rank 40"),
        (["q_proj"], {"basis": {}}, r"layers\.0\.self_attn\.q_proj\.basis_vectors: missing"),
        (["q_proj"], {"bayes_noise": "up"}, "right, left, std, self-scaling"),
        (
            ["q_proj"],
            {"sigma": 0.5, "num_samples": 3},
            "unknown noise key sigma; the keys are bayes_sigma, bayes_",
        ),
        (["q_proj"], {"target_module": "k_proj"}, "unknown noise key target_module;"),
    ],
)
def test_bad_arguments_are_named(targets: list[str], options: dict[str, Any], message: str) -> None:
    lm = tiny_model(MistralConfig(**TINY))
    with pytest.raises(ValueError, match=message):
        BayesianForCausalLMModel.wrap(lm, targets, **options)


@pytest.mark.parametrize("kind", ["right", "std"])
@pytest.mark.parametrize(("damage", "message"), [("int8", "dtype torch.int8 is not supported"), ("nan", "holds NaN")])
def test_weights_without_a_sound_basis_are_named(damage: str, message: str, kind: str) -> None:
    lm = tiny_model(MistralConfig(**TINY))
    module = lm.model.layers[1].self_attn.v_proj
    if damage == "int8":
        module.weight = torch.nn.Parameter((module.weight * 100).to(torch.int8), requires_grad=False)
    else:
        module.weight.data[0, 0] = torch.nan
    with pytest.raises(ValueError, match=rf"^model\.layers\.1\.self_attn\.v_proj\.weight: {message}") as caught:
        BayesianForCausalLMModel.wrap(lm, rank=3, bayes_noise=kind)
    assert "\n" not in str(caught.value)
    lm = tiny_model(MistralConfig(**TINY))
    model = BayesianForCausalLMModel.wrap(lm, rank=3)
    lm.model.layers[1].self_attn.v_proj.weight.data[0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"v_proj\.weight: holds NaN"):
        model.compute_basis()


@pytest.mark.parametrize(
    ("change", "message"), [(lambda b: (b * 100).to(torch.int8), "int8"), (lambda b: b[:, :2], r"shape \[32, 2\]")]
)
def test_a_given_basis_is_checked_before_it_is_cast(change: Any, message: str) -> None:
    lm = tiny_model(MistralConfig(**TINY))
    model = BayesianForCausalLMModel.wrap(copy.deepcopy(lm), ["q_proj"], rank=3)
    basis = {f"{projection.name}.basis_vectors": change(projection.basis) for projection in model.noisy_projections}
    with pytest.raises(ValueError, match=rf"layers\.0\.self_attn\.q_proj\.basis_vectors: .*{message}"):
        BayesianForCausalLMModel.wrap(lm, ["q_proj"], rank=3, basis=basis)
