"""A model in training: what its passes cannot give is refused in words."""

from typing import Any

import pytest
import torch
from transformers import GPT2Config, LlamaConfig

from bayesian_transformer import BayesianForCausalLMModel
from bayesian_transformer.scoring import score
from tests.hf.test_hf_wrapper import GPT, TINY, tiny_model

CONFIGS: dict[str, Any] = {
    "checkpointing": LlamaConfig(**TINY),
    "dropout": GPT2Config(**GPT),
    "attention dropout": LlamaConfig(**TINY, attention_dropout=0.2),
}
MESSAGES = {"checkpointing": r"gradient checkpointing keeps no K/V.*model\.eval\(\)"}


# https://github.com/huggingface/transformers/issues/21737
@pytest.mark.parametrize("case", CONFIGS)
def test_refused_while_training_only(case: str) -> None:
    lm = tiny_model(CONFIGS[case])
    targets = ["c_attn"] if case == "dropout" else ["q_proj", "v_proj"]
    model = BayesianForCausalLMModel.wrap(lm, targets, rank=3, num_samples=3)
    ids, expected = torch.tensor([[5, 6, 7]]), score(model, [5, 6], [7], seed=1).stack()
    if case == "checkpointing":
        lm.gradient_checkpointing_enable()
    model.train()
    message = MESSAGES.get(case, r"dropout is noise.*model\.eval\(\)")
    with pytest.raises(ValueError, match=message):
        model.generate(ids, max_new_tokens=2, output_uncertainties=True)
    with pytest.raises(ValueError, match=message):
        score(model, [5, 6], [7], seed=1)
    model.eval()
    assert torch.equal(score(model, [5, 6], [7], seed=1).stack(), expected)
    model.generate(ids, max_new_tokens=2, output_uncertainties=True)


def test_training_without_randomness_has_the_same_numbers() -> None:
    model = BayesianForCausalLMModel.wrap(tiny_model(LlamaConfig(**TINY)), rank=3, num_samples=3)
    expected = score(model, [5, 6], [7], seed=1).stack()
    model.train()
    assert torch.equal(score(model, [5, 6], [7], seed=1).stack(), expected)
