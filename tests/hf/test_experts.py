"""Mixtures of experts: each noisy row is routed by itself, and checkpoints hold the experts as those on the hub do."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from bayesian_transformer.conversion import convert_checkpoint
from bayesian_transformer.hf.plain_checkpoints import load_plain
from bayesian_transformer.scoring import score
from bayesian_transformer.uncertainty import FIELDS
from tests.helpers.reference import reference_uncertainties, worst_error
from tests.helpers.tiny_families import save_family
from tests.helpers.vllm_engines import load_basis

MODELS = {"qwen2 moe": r"mlp\.experts\.0\.gate_proj", "qwen3 moe": r"mlp\.experts\.0\.gate_proj", "mixtral": "w1"}
SEED, SIGMA, NUM_SAMPLES = 7, 0.3, 4
PROMPT, TOKENS = [5, 9, 300, 17, 44], [8, 123, 77]


@pytest.fixture(params=MODELS)
def base(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return save_family(request.param, tmp_path / "base")


def chosen_experts(model: Any) -> list[torch.Tensor]:
    """Filled with the experts of every row, sorted, each time that a router of `model` runs."""
    chosen: list[torch.Tensor] = []
    routers = [module for name, module in model.named_modules() if name.endswith(".gate")]
    for router in routers:
        router.register_forward_hook(lambda *call: chosen.append(call[2][2].sort(-1).values))
    return chosen


@pytest.mark.parametrize("kind", ["right", "left"])
def test_noisy_rows_go_to_experts_of_their_own(base: Path, kind: str, tmp_path: Path) -> None:
    tfb = convert_checkpoint(base, tmp_path / "tfb", bayes_noise=kind)
    model = AutoModelForCausalLM.from_pretrained(
        tfb, dtype=torch.float32, num_samples=NUM_SAMPLES, bayes_sigma=SIGMA
    ).eval()
    chosen = chosen_experts(model)
    scored = score(model, PROMPT, TOKENS, seed=SEED)
    noisy = [
        rows for rows in chosen if len(rows) == len(TOKENS) * (NUM_SAMPLES - 1)
    ]  # the others are of the clean pass
    samples = [rows.unflatten(0, (len(TOKENS), -1)) for rows in noisy]
    assert any((rows != rows[:, :1]).any() for rows in samples)  # samples of one token differ in their experts
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    expected = reference_uncertainties(plain, PROMPT, TOKENS, SEED, SIGMA, NUM_SAMPLES, kind, basis=load_basis(tfb))
    numbers = dict(zip(FIELDS, scored.stack().numpy().T, strict=True))
    assert worst_error(numbers, expected) <= 1


def test_checkpoints_hold_the_experts_one_by_one(base: Path, tmp_path: Path) -> None:
    stored = load_file(base / "model.safetensors")
    pattern = next(pattern for name, pattern in MODELS.items() if any(re.search(pattern, key) for key in stored))
    assert any(re.search(pattern, key) for key in stored)
    tfb = convert_checkpoint(base, tmp_path / "tfb")
    converted = load_file(tfb / "model-00001-of-00002.safetensors")
    assert converted.keys() == stored.keys()
    assert all(torch.equal(tensor, stored[name]) for name, tensor in converted.items())
    models: list[Any] = [AutoModelForCausalLM.from_pretrained(tfb), load_plain(base)]
    for model in models:
        model.save_pretrained(tmp_path / "again")
        saved = load_file(tmp_path / "again" / "model.safetensors")
        assert {name for name in saved if "basis_vectors" not in name} == stored.keys()
        assert all(torch.equal(saved[name], tensor) for name, tensor in stored.items())


def test_experts_that_lie_together_or_are_too_many_are_refused(base: Path, tmp_path: Path) -> None:
    config = json.loads((base / "config.json").read_text())
    key = "num_experts" if "num_experts" in config else "num_local_experts"
    (base / "config.json").write_text(json.dumps(config | {key: 10**9}))
    with pytest.raises(ValueError, match=r"config.json: asks for 1000000000 experts where all files hold \d+ tensors"):
        convert_checkpoint(base, tmp_path / "tfb")
    (base / "config.json").write_text(json.dumps(config))
    together = AutoModelForCausalLM.from_pretrained(base).state_dict()
    save_file({name: tensor.clone() for name, tensor in together.items()}, base / "model.safetensors")
    with pytest.raises(ValueError, match=r"tensor model\.layers\.\d\.\w+\.experts\.\d.* is missing; the checkpoint"):
        convert_checkpoint(base, tmp_path / "tfb")


def test_the_implementation_of_experts_is_that_of_the_base(base: Path, tmp_path: Path) -> None:
    """Which transformers would not let ours have, as it looks into the source file of the class."""
    tfb = convert_checkpoint(base, tmp_path / "tfb")
    stock, ours = (AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval() for path in (base, tfb))
    assert ours.config._experts_implementation == stock.config._experts_implementation
    ids = torch.tensor([PROMPT])
    with torch.no_grad():
        np.testing.assert_array_equal(ours(ids).logits, stock(ids).logits)
