"""The wrapper around any causal LM: same numbers as the TFB models, other architectures, full-rank noise."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BloomConfig,
    DynamicCache,
    FalconConfig,
    Gemma2Config,
    GenerationConfig,
    GPT2Config,
    GPTJConfig,
    MistralConfig,
    MptConfig,
    Phi3Config,
    PreTrainedConfig,
)

from bayesian_transformer import BayesianForCausalLMModel, BayesianLMConfig, token_uncertainty
from bayesian_transformer.hf.noisy_forward import ParticleNoise, particle_logits
from bayesian_transformer.layers import low_rank_noise
from bayesian_transformer.model import load_basis
from bayesian_transformer.noise import standard_normal
from bayesian_transformer.scoring import score, score_batch
from bayesian_transformer.uncertainty import FIELDS
from tests.helpers.reference import reference_uncertainties, worst_error

TINY = {
    "vocab_size": 60, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "initializer_range": 0.3, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
GPT = {"vocab_size": 60, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "initializer_range": 0.3,
       "bos_token_id": 1, "eos_token_id": 2}  # fmt: skip
ARCHITECTURES: dict[str, tuple[PreTrainedConfig, tuple[str, ...]]] = {
    "phi3 (fused qkv)": (Phi3Config(**TINY), ("qkv_proj",)),
    "gpt2 (Conv1D)": (GPT2Config(**GPT), ("c_attn",)),
    "mistral": (MistralConfig(**TINY, sliding_window=None), ("q_proj", "v_proj")),
    "gemma2 (softcap, sliding window)": (Gemma2Config(**TINY, head_dim=8, sliding_window=32), ("q_proj", "v_proj")),
    "gptj (no attention interface)": (GPTJConfig(**GPT, rotary_dim=4), ("q_proj", "v_proj")),
    "bloom (ALiBi)": (
        BloomConfig(vocab_size=60, hidden_size=32, n_layer=2, n_head=4, initializer_range=0.3), ("query_key_value",)
    ),
    "falcon (ALiBi)": (
        FalconConfig(
            vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, alibi=True, initializer_range=0.3
        ),
        ("query_key_value",),
    ),
    "mpt (ALiBi by index)": (MptConfig(vocab_size=60, d_model=32, n_layers=2, n_heads=4), ("Wqkv",)),
}  # fmt: skip


def tiny_model(config: PreTrainedConfig) -> Any:
    torch.manual_seed(4)
    return AutoModelForCausalLM.from_config(copy.deepcopy(config)).eval()


@torch.no_grad()
def brute_force(model: BayesianForCausalLMModel, prompt: list[int], new: list[int], seed: int) -> dict[str, Any]:
    """Like `reference_uncertainties`, for any architecture and any noise: weights are changed instead of outputs.

    Each linear target computes W x + noise, where the noise of right and left is recomputed from its own input.
    """
    lm, noise = model.lm, model.noise
    targets = [m for n, m in lm.named_modules() if n.rpartition(".")[2] in model.config.target_modules]
    text, rows = [*prompt, *new], []
    for position in range(len(prompt) - 1, len(text) - 1):
        clean = lm(torch.tensor([text[: position + 1]]), use_cache=True)
        past = DynamicCache(config=lm.config)
        if position:
            past = lm(torch.tensor([text[:position]]), use_cache=True).past_key_values
        samples = [clean.logits[0, -1]]
        for sample in range(1, noise.effective_samples):
            counter = [torch.tensor(v) for v in (seed, position, 0, sample)]
            handles = [t.register_forward_hook(noise_hook(noise, counter, site)) for site, t in enumerate(targets)]
            step = lm(torch.tensor([[text[position]]]), past_key_values=copy.deepcopy(past), use_cache=True)
            samples.append(step.logits[0, -1])
            for handle in handles:
                handle.remove()
        rows.append(token_uncertainty(torch.stack(samples)[:, None], torch.tensor([text[position + 1]])).stack()[0])
    return dict(zip(FIELDS, torch.stack(rows).T.numpy(), strict=True))


def noise_hook(noise: Any, counter: list[Tensor], site: int) -> Any:
    seed, position, _, sample = counter

    def hook(module: Any, args: tuple[Tensor], output: Tensor) -> Tensor:
        x, weight = args[0], module.weight.T if type(module).__name__ == "Conv1D" else module.weight
        if noise.bayes_noise in ("right", "left"):
            width = module.basis_vectors.shape[1] if noise.bayes_noise == "right" else output.shape[-1]
            z = standard_normal(seed, position, torch.tensor(site), sample, width)
            return output + low_rank_noise(x, module.basis_vectors, z, noise.bayes_sigma, noise.bayes_noise)
        z = standard_normal(seed, torch.tensor(0), torch.tensor(site), sample, weight.numel())
        delta = noise.bayes_sigma * z.view(weight.shape)
        return output + x @ (delta * weight if noise.bayes_noise == "self-scaling" else delta).T

    return hook


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architectures_agree_with_brute_force(name: str) -> None:
    config, targets = ARCHITECTURES[name]
    kind = "left" if name.startswith("phi3") else "right"
    model = BayesianForCausalLMModel.wrap(tiny_model(config), targets, rank=4, num_samples=3, bayes_noise=kind)
    ids = torch.tensor([[5, 9, 11, 7], [0, 0, 8, 6]])
    mask = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1]])
    output = model.generate(
        ids, attention_mask=mask, max_new_tokens=4, output_uncertainties=True, noise_seed=3, eos_token_id=None
    )
    prompts, new = [[5, 9, 11, 7], [8, 6]], output.sequences[:, 4:].tolist()
    assert output.uncertainties.epistemic.max() > 1e-4
    for row in range(2):
        expected = brute_force(model, prompts[row], new[row], 3 + row)
        got = {field: getattr(output.uncertainties, field)[row].numpy() for field in FIELDS}
        assert worst_error(got, expected) <= 1
        scored = score(model, prompts[row], new[row], seed=3 + row)
        assert worst_error({field: getattr(scored, field).numpy() for field in FIELDS}, expected) <= 1
    response = torch.zeros(2, 8, dtype=torch.bool)
    response[:, 4:] = True
    padded = score_batch(model, output.sequences, torch.cat([mask, torch.ones(2, 4)], 1), response, [3, 4])
    torch.testing.assert_close(padded[:, 4:], output.uncertainties.stack(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", ["std", "self-scaling"])
@pytest.mark.parametrize("name", ["mistral", "gpt2 (Conv1D)"])
def test_full_rank_noise_agrees_with_brute_force(name: str, kind: str, tmp_path: Path) -> None:
    config, targets = ARCHITECTURES[name]
    model = BayesianForCausalLMModel.wrap(tiny_model(config), targets, num_samples=3, bayes_noise=kind, bayes_sigma=0.2)
    output = model.generate(
        torch.tensor([[5, 9, 11]] * 2), max_new_tokens=3, output_uncertainties=True, noise_seed=3, eos_token_id=None
    )
    for row in range(2):
        expected = brute_force(model, [5, 9, 11], output.sequences[row, 3:].tolist(), 3 + row)
        assert worst_error({f: getattr(output.uncertainties, f)[row].numpy() for f in FIELDS}, expected) <= 1
        for rows in (3, 1000):
            scored = score(model, [5, 9, 11], output.sequences[row, 3:].tolist(), seed=3 + row, chunk_rows=rows)
            assert worst_error({f: getattr(scored, f).numpy() for f in FIELDS}, expected) <= 1
    response = torch.arange(6).expand(2, 6) >= 3
    batch = score_batch(model, output.sequences, torch.ones(2, 6), response, [3, 4])
    torch.testing.assert_close(batch[:, 3:], output.uncertainties.stack(), rtol=1e-3, atol=1e-5)
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert again.noise == model.noise
    assert torch.equal(score_batch(again, output.sequences, torch.ones(2, 6), response, [3, 4])[:, 3:], batch[:, 3:])
    assert not any(name.endswith("basis_vectors") for name in again.state_dict())


@pytest.mark.parametrize("kind", ["right", "left"])
def test_wrapping_gives_the_numbers_of_the_tfb_model(tiny_qwen2_path: Path, make_tfb: Any, kind: str) -> None:
    tfb_path = make_tfb(tiny_qwen2_path, kind)
    tfb = AutoModelForCausalLM.from_pretrained(tfb_path, num_samples=3)
    base = AutoModelForCausalLM.from_pretrained(tiny_qwen2_path)
    call: dict[str, Any] = {"max_new_tokens": 4, "output_uncertainties": True, "noise_seed": 6}
    prompt = torch.tensor([[50, 60, 70, 80]])
    expected = tfb.generate(prompt, **call)
    computed = BayesianForCausalLMModel.wrap(copy.deepcopy(base), num_samples=3, bayes_noise=kind)
    loaded = BayesianForCausalLMModel.wrap(base, num_samples=3, bayes_noise=kind, basis=load_basis(tfb_path))
    for model in (computed, loaded):
        got = model.generate(prompt, **call)
        assert torch.equal(got.sequences, expected.sequences)
        torch.testing.assert_close(got.uncertainties.stack(), expected.uncertainties.stack(), rtol=1e-4, atol=1e-6)
    reference = reference_uncertainties(base, prompt[0].tolist(), got.sequences[0, 4:].tolist(), 6, 0.1, 3, kind)
    assert worst_error({f: getattr(got.uncertainties, f)[0].numpy() for f in FIELDS}, reference) <= 1


def test_rows_as_a_batch_give_the_same_numbers(tiny_llama_tfb_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way for architectures without an attention interface, tried on one that has it."""
    model = AutoModelForCausalLM.from_pretrained(tiny_llama_tfb_path, num_samples=4)
    parallel = score(model, [5, 6, 7], [8, 9, 10, 11], seed=1)
    monkeypatch.setattr(type(model), "_supports_attention_backend", False)
    batched = score(model, [5, 6, 7], [8, 9, 10, 11], seed=1)
    torch.testing.assert_close(batched.stack(), parallel.stack(), rtol=1e-3, atol=1e-5)


def test_save_and_load_round_trip(tmp_path: Path) -> None:
    lm = tiny_model(Phi3Config(**TINY, tie_word_embeddings=True))
    model = BayesianForCausalLMModel.wrap(lm, ["qkv_proj"], rank=3, num_samples=3, bayes_noise="left", bayes_sigma=0.3)
    ids = torch.tensor([[5, 6, 7]])
    assert torch.equal(model(ids).logits, lm(ids).logits)
    model.save_pretrained(tmp_path)
    assert {p.suffix for p in tmp_path.iterdir()} == {".json", ".safetensors"}
    assert isinstance(AutoConfig.from_pretrained(tmp_path), BayesianLMConfig)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert isinstance(again, BayesianForCausalLMModel)
    assert again.noise == model.noise
    expected, got = model.state_dict(), again.state_dict()
    assert expected.keys() == got.keys()
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    assert torch.equal(again(ids).logits, lm(ids).logits)
    a, b = (m.generate(ids, max_new_tokens=3, output_uncertainties=True, noise_seed=1) for m in (model, again))
    assert torch.equal(a.uncertainties.stack(), b.uncertainties.stack())
    half = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert half.lm.model.layers[0].self_attn.qkv_proj.basis_vectors.dtype == torch.bfloat16


def test_generation_settings_and_attention_survive_saving(tmp_path: Path) -> None:
    """The tokens that end a response are often known to generation_config.json only."""
    lm = tiny_model(Phi3Config(**TINY))
    lm.generation_config.eos_token_id = [2, 7, 9]
    model = BayesianForCausalLMModel.wrap(lm, ["qkv_proj"], rank=3, num_samples=3)
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager")
    assert again.lm.generation_config.eos_token_id == [2, 7, 9]
    assert again.lm.config._attn_implementation == "eager"
    ids = torch.tensor([[5, 6]])
    a, b = (m.generate(ids, max_new_tokens=6, output_uncertainties=True, noise_seed=1) for m in (model, again))
    assert torch.equal(a.sequences, b.sequences)
    torch.testing.assert_close(a.uncertainties.stack(), b.uncertainties.stack(), rtol=1e-3, atol=1e-5, equal_nan=True)


def test_switches_of_the_wrapper() -> None:
    model = BayesianForCausalLMModel.wrap(tiny_model(MistralConfig(**TINY)), rank=3, num_samples=3)
    assert model.num_samples == 3
    call: dict[str, Any] = {"prompt_ids": [5, 6], "response_ids": [7], "seed": 1}
    weak = score(model, **call).epistemic
    model.set_sigma(0.5)
    assert score(model, **call).epistemic > weak > 0
    with pytest.raises(ValueError, match="bayes_sigma"):
        model.set_sigma(-1.0)
    model.set_sample(False)
    assert score(model, **call).epistemic == 0


def test_one_target_may_be_given_as_a_string() -> None:
    model = BayesianForCausalLMModel.wrap(tiny_model(MistralConfig(**TINY)), "q_proj", rank=3)
    assert model.config.target_modules == ["q_proj"]
    assert [p.name.rpartition(".")[2] for p in model.noisy_projections] == ["q_proj"] * 2


def test_generation_config_of_the_wrapper_is_that_of_the_model() -> None:
    model = BayesianForCausalLMModel.wrap(tiny_model(MistralConfig(**TINY)), rank=3, num_samples=3)
    model.generation_config = GenerationConfig(max_new_tokens=3, eos_token_id=None, pad_token_id=0)
    assert model.lm.generation_config is model.generation_config
    ids = torch.tensor([[5, 6]])
    assert model.generate(ids).shape == (1, 5)
    assert model.generate(ids, output_uncertainties=True).uncertainties.total.shape == (1, 3)
    model.config.use_tfb_for_generation = True
    assert model.generate(ids).shape == (1, 5)
    model.generation_config.return_dict_in_generate = True
    assert model.generate(ids).sequences.shape == (1, 5)
    assert model.generate(ids, return_dict_in_generate=False).shape == (1, 5)


def test_a_fresh_wrapper_is_silent_until_it_computes_its_basis() -> None:
    keys: dict[str, Any] = {"text_config": MistralConfig(**TINY), "basis_idx": [0, 1], "num_samples": 3}
    model = AutoModelForCausalLM.from_config(BayesianLMConfig(**keys)).eval()
    call: dict[str, Any] = {"prompt_ids": [5, 6], "response_ids": [7], "seed": 1}
    assert all((projection.basis == 0).all() for projection in model.noisy_projections)
    assert score(model, **call).epistemic.abs() < 1e-6
    model.compute_basis()
    assert score(model, **call).epistemic > 1e-6


def test_attention_without_row_masks_is_refused(tiny_llama_tfb_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_llama_tfb_path)
    noise = ParticleNoise(model.noisy_projections, model.noise, torch.tensor([1]))
    model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(ValueError, match='attn_implementation="sdpa"'):
        particle_logits(model, noise, DynamicCache(), torch.ones(1, 1, dtype=torch.bool), torch.tensor([[5]]))
