"""Noise on other projections than q and v: transformers and scoring against weights W' that are written out.

Every noisy sample of every token is a forward of its own in float64, in which the noisy weights are replaced by
W' = W + D. For the row x and z from noise.py, D = sigma * (U z) x^T / ||x|| (right noise) or sigma * z (V V^T x)^T /
||V^T x|| (left noise).
"""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, DynamicCache

from bayesian_transformer.checkpoint import read_config
from bayesian_transformer.conversion import convert_checkpoint
from bayesian_transformer.fitting import check_fit
from bayesian_transformer.hf.plain_checkpoints import load_plain
from bayesian_transformer.model import load_basis
from bayesian_transformer.noise import standard_normal
from bayesian_transformer.noise_config import QKV
from bayesian_transformer.scoring import score
from bayesian_transformer.uncertainty import FIELDS, token_uncertainty
from tests.helpers.reference import worst_error
from tests.helpers.tiny_families import save_family

SEED, SIGMA, NUM_SAMPLES = 2**63 + 5, 0.2, 3
PROMPT, RESPONSE = [5, 9, 17, 30], [40, 7, 300, 41, 8]
CASES = [
    ("qwen3", ("q_proj", "k_proj"), "right"),  # norms of q and k
    ("qwen3", ("k_proj",), "left"),
    ("qwen2", ("k_proj",), "right"),  # biases
    ("qwen2", QKV, "left"),
    ("phi3", QKV, "right"),  # one fused projection
    ("phi3", ("q_proj", "k_proj"), "left"),
]


def base_of(family: str, request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if family == "qwen2":
        path: Path = request.getfixturevalue("tiny_qwen2_path")
        return path
    return save_family(family, tmp_path / "base")


def site_of(layer: int, projection: str) -> int:
    """As the specification has it."""
    return {"q_proj": 2 * layer, "v_proj": 2 * layer + 1, "k_proj": 2**30 + layer}[projection]


def with_written_weights(
    module: Any, noisy: list[tuple[slice, Tensor, int]], position: int, sample: int, kind: str
) -> Any:
    """Let a linear layer use W' for its noisy rows; each comes with its basis and its site."""

    def hook(layer: Any, args: tuple[Tensor], output: Tensor) -> Tensor:
        x = args[0][0, -1]
        changed = layer.weight.clone()
        for rows, basis, site in noisy:
            outputs = changed[rows].shape[0]
            width = basis.shape[1] if kind == "right" else outputs
            counters = torch.tensor([SEED - 2**64, position, site, sample])
            z = standard_normal(counters[0], counters[1], counters[2], counters[3], width).double()
            if kind == "right":
                difference = SIGMA * torch.outer(basis @ z, x) / x.norm()
            else:
                difference = SIGMA * torch.outer(z, basis @ (basis.T @ x)) / (basis.T @ x).norm()
            changed[rows] += difference
        return nn.functional.linear(args[0], changed, layer.bias)

    return module.register_forward_hook(hook)


@torch.no_grad()
def written_out(base: Path, bases: dict[str, Tensor], projections: Sequence[str], kind: str) -> dict[str, np.ndarray]:
    """The eight quantities of the tokens of RESPONSE, float64 up to the logits."""
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float64).eval()
    heads, kv_heads = model.config.num_attention_heads, model.config.num_key_value_heads
    size = getattr(model.config, "head_dim", None) or model.config.hidden_size // heads
    ends = np.cumsum([0, heads * size, kv_heads * size, kv_heads * size])
    fused_rows = {name: slice(*ends[i : i + 2]) for i, name in enumerate(QKV)}

    def noisy_modules(attention: Any, layer: int) -> list[tuple[nn.Module, list[tuple[slice, Tensor, int]]]]:
        basis = {p: bases[f"model.layers.{layer}.self_attn.{p}.basis_vectors"].double() for p in projections}
        if hasattr(attention, "qkv_proj"):
            return [(attention.qkv_proj, [(fused_rows[p], basis[p], site_of(layer, p)) for p in projections])]
        return [(getattr(attention, p), [(slice(None), basis[p], site_of(layer, p))]) for p in projections]

    cache = DynamicCache(config=model.config)
    model(input_ids=torch.tensor([PROMPT[:-1]]), past_key_values=cache, use_cache=True)
    text, steps = [*PROMPT, *RESPONSE], []
    for position in range(len(PROMPT) - 1, len(text) - 1):
        token = torch.tensor([[text[position]]])
        logits = []
        for sample in range(1, NUM_SAMPLES):
            handles = [
                with_written_weights(module, noisy, position, sample, kind)
                for layer, block in enumerate(model.model.layers)
                for module, noisy in noisy_modules(block.self_attn, layer)
            ]
            kept = copy.deepcopy(cache)
            logits.append(model(input_ids=token, past_key_values=kept, use_cache=True).logits[0, -1])
            for handle in handles:
                handle.remove()
        clean = model(input_ids=token, past_key_values=cache, use_cache=True)  # only this one enters the cache
        steps.append(torch.stack([clean.logits[0, -1], *logits]))
    table = token_uncertainty(torch.stack(steps, dim=1).float(), torch.tensor(RESPONSE)).stack().numpy()
    return dict(zip(FIELDS, table.T, strict=True))


def by_name(table: Tensor) -> dict[str, np.ndarray]:
    return dict(zip(FIELDS, table.numpy().T, strict=True))


@pytest.mark.parametrize(("family", "projections", "kind"), CASES)
def test_numbers_are_those_of_weights_that_are_written_out(
    family: str, projections: tuple[str, ...], kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    base = base_of(family, request, tmp_path)
    tfb = convert_checkpoint(base, tmp_path / "tfb", rank=5, bayes_noise=kind, bayes_projections=projections[::-1])
    assert read_config(tfb)["bayes_projections"] == [*projections]
    assert {name.split(".")[-2] for name in load_basis(tfb)} == {*projections}
    noise: dict[str, Any] = {"num_samples": NUM_SAMPLES, "bayes_sigma": SIGMA}
    model = AutoModelForCausalLM.from_pretrained(tfb, dtype=torch.float32, **noise).eval()
    scored = score(model, PROMPT, RESPONSE, seed=SEED)
    expected = written_out(base, load_basis(tfb), projections, kind)
    assert scored.epistemic.min() > 1e-5
    assert worst_error(by_name(scored.stack()), expected) <= 1

    plain: Any = load_plain(base, torch.float32, rank=5, bayes_noise=kind, bayes_projections=projections, **noise)
    assert torch.equal(score(plain.eval(), PROMPT, RESPONSE, seed=SEED).stack(), scored.stack())
    new = model.generate(
        torch.tensor([PROMPT]), max_new_tokens=4, do_sample=False, eos_token_id=None, output_uncertainties=True,
        noise_seed=SEED,
    )  # fmt: skip
    again = score(model, PROMPT, new.sequences[0, len(PROMPT) :].tolist(), seed=SEED)
    assert worst_error(by_name(new.uncertainties.stack()[0]), by_name(again.stack())) <= 1


def test_some_of_the_stored_bases_may_be_used(tiny_qwen2_path: Path, make_tfb: Callable[..., Path]) -> None:
    """The others are not: nothing but the projections that are asked for decides the numbers."""
    stored = make_tfb(tiny_qwen2_path, bayes_projections=QKV)
    for asked in (("q_proj", "k_proj"), ("v_proj", "q_proj")):
        model = AutoModelForCausalLM.from_pretrained(stored, bayes_projections=[*asked]).eval()
        alone = AutoModelForCausalLM.from_pretrained(make_tfb(tiny_qwen2_path, bayes_projections=asked)).eval()
        tables = [score(m, PROMPT, RESPONSE, seed=1).stack() for m in (model, alone)]
        assert torch.equal(*tables)
    every = AutoModelForCausalLM.from_pretrained(stored).eval()
    assert not torch.equal(score(every, PROMPT, RESPONSE, seed=1).stack(), tables[0])


def test_a_projection_without_stored_bases_is_refused(tiny_qwen2_tfb_path: Path) -> None:
    said = r"k_proj\.basis_vectors is missing; convert or download the model again \(with --bayes-projections q_proj,k_"
    with pytest.raises(ValueError, match=said):
        AutoModelForCausalLM.from_pretrained(tiny_qwen2_tfb_path, bayes_projections=["k_proj", "q_proj"])
    with pytest.raises(ValueError, match=said):
        check_fit(tiny_qwen2_tfb_path, read_config(tiny_qwen2_tfb_path) | {"bayes_projections": ["q_proj", "k_proj"]})


def test_a_saved_config_names_the_projections_where_they_are_not_the_default(
    tiny_qwen2_tfb_path: Path, tiny_qwen2_path: Path, tmp_path: Path, make_tfb: Callable[..., Path]
) -> None:
    AutoModelForCausalLM.from_pretrained(tiny_qwen2_tfb_path).save_pretrained(tmp_path / "default")
    assert "bayes_projections" not in read_config(tmp_path / "default")
    with_k = AutoModelForCausalLM.from_pretrained(make_tfb(tiny_qwen2_path, bayes_projections=("q_proj", "k_proj")))
    with_k.save_pretrained(tmp_path / "with k")
    assert read_config(tmp_path / "with k")["bayes_projections"] == ["q_proj", "k_proj"]
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "with k")
    tables = [score(model.eval(), PROMPT, RESPONSE, seed=1).stack() for model in (with_k, again)]
    assert torch.equal(*tables)
