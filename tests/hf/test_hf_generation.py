"""transformers generation with uncertainties, against the brute-force reference and against plain generate."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    StaticCache,
    StoppingCriteria,
    TextIteratorStreamer,
)

from bayesian_transformer.hf.generation import GenerateUncertaintyOutput, expand_seeds
from bayesian_transformer.uncertainty import FIELDS, Uncertainty
from tests.helpers.reference import reference_uncertainties, worst_error

NUM_SAMPLES = 4


def load(path: Path, **options: Any) -> Any:
    return AutoModelForCausalLM.from_pretrained(path, **{"dtype": torch.float32, "num_samples": NUM_SAMPLES} | options)


def ragged_prompts(lengths: tuple[int, ...], seed: int = 0) -> dict[str, Tensor]:
    """Random prompts, padded on the left."""
    generator = torch.Generator().manual_seed(seed)
    width = max(lengths)
    ids = torch.randint(3, 40000, (len(lengths), width), generator=generator)
    mask = torch.stack([torch.arange(width) >= width - length for length in lengths]).long()
    return {"input_ids": ids.where(mask == 1, 2), "attention_mask": mask}


def check_output(model: Any, prompts: dict[str, Tensor], output: GenerateUncertaintyOutput, seeds: list[int]) -> float:
    """Worst error over the rows of a batch; tokens after the end must be NaN."""
    width, noise, worst = prompts["input_ids"].shape[1], model.noise, 0.0
    assert output.uncertainties is not None
    table = output.uncertainties.stack().numpy()
    assert table.shape == (len(seeds), output.sequences.shape[1] - width, len(FIELDS))
    for row, seed in enumerate(seeds):
        count = int((~np.isnan(table[row, :, 0])).sum())
        prompt = prompts["input_ids"][row][prompts["attention_mask"][row] == 1].tolist()
        new = output.sequences[row, width : width + count].tolist()
        expected = reference_uncertainties(
            model, prompt, new, seed, noise.bayes_sigma, noise.effective_samples, noise.bayes_noise
        )
        got = {name: table[row, :count, column] for column, name in enumerate(FIELDS)}
        worst = max(worst, worst_error(got, expected))
        assert np.isnan(table[row, count:]).all()
    return worst


@pytest.mark.parametrize("kind", ["right", "left"])
@pytest.mark.parametrize("base", ["tiny_llama_path", "tiny_qwen2_path"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_tiny_models_agree_with_brute_force(
    request: pytest.FixtureRequest, make_tfb: Any, base: str, kind: str, attention: str
) -> None:
    path = make_tfb(request.getfixturevalue(base), kind)
    model = load(path, attn_implementation=attention)
    prompts = ragged_prompts((7, 1, 4))
    output = model.generate(**prompts, max_new_tokens=6, output_uncertainties=True, noise_seed=11)
    assert check_output(model, prompts, output, [11, 12, 13]) <= 1
    assert output.uncertainties.epistemic.max() > 1e-3  # the noise is felt


@pytest.mark.parametrize("kind", ["right", "left"])
def test_smollm2_agrees_with_brute_force(smollm2_path: Path, make_tfb: Any, kind: str) -> None:
    path = make_tfb(smollm2_path, kind)
    model, tokenizer = load(path, bayes_sigma=0.1), AutoTokenizer.from_pretrained(path)
    prompts = tokenizer(["What is 12 + 30? Answer:", "Once"], padding=True, padding_side="left", return_tensors="pt")
    output = model.generate(**prompts, max_new_tokens=5, do_sample=False, output_uncertainties=True, noise_seed=[7, -3])
    assert check_output(model, dict(prompts), output, [7, -3]) <= 1


def test_tokens_and_scores_are_those_of_plain_generate(tiny_qwen2_tfb_path: Path) -> None:
    model, prompts = load(tiny_qwen2_tfb_path), ragged_prompts((5, 3))
    settings = GenerationConfig(
        do_sample=True, temperature=0.7, top_p=0.9, max_new_tokens=8, min_new_tokens=8, repetition_penalty=1.2,
        num_return_sequences=2, return_dict_in_generate=True, output_logits=True, output_scores=True, eos_token_id=2,
    )  # fmt: skip
    torch.manual_seed(3)
    plain = model.generate(**prompts, generation_config=settings)
    torch.manual_seed(3)
    output = model.generate(**prompts, generation_config=settings, output_uncertainties=True, noise_seed=5)
    assert torch.equal(plain.sequences, output.sequences)
    for name in ("logits", "scores"):
        assert all(torch.equal(a, b) for a, b in zip(plain[name], output[name], strict=True))
    assert output.past_key_values.get_seq_length() == plain.past_key_values.get_seq_length()
    for ours, theirs in zip(output.past_key_values.layers, plain.past_key_values.layers, strict=True):
        assert torch.equal(ours.keys, theirs.keys)  # only clean K/V enter the cache
        assert torch.equal(ours.values, theirs.values)
    expanded = {name: tensor.repeat_interleave(2, dim=0) for name, tensor in prompts.items()}
    assert check_output(model, expanded, output, [5, 6, 7, 8]) <= 1


def test_switched_off_noise_leaves_the_base_model_exactly(tiny_llama_path: Path, tiny_llama_tfb_path: Path) -> None:
    base = AutoModelForCausalLM.from_pretrained(tiny_llama_path, dtype=torch.float32)
    model, prompts = load(tiny_llama_tfb_path), ragged_prompts((6, 2))
    expected = base(**prompts).logits
    assert torch.equal(model(**prompts).logits, expected)
    model.set_sigma(0.0)
    assert torch.equal(model(**prompts).logits, expected)
    silent = model.generate(**prompts, max_new_tokens=3, output_uncertainties=True).uncertainties
    assert silent.epistemic.abs().max() < 1e-5
    assert silent.implicit_reward.abs().max() < 1e-5
    model.set_sample(False)
    assert torch.equal(model(**prompts).logits, expected)
    off = model.generate(**prompts, max_new_tokens=3, output_uncertainties=True).uncertainties
    assert torch.equal(off.total, off.entropy)
    assert torch.equal(off.epistemic, torch.zeros_like(off.epistemic))


def test_one_weight_sample_computes_no_particle_row(tiny_llama_tfb_path: Path) -> None:
    model = load(tiny_llama_tfb_path, num_samples=1)
    rows: list[int] = []
    model.model.layers[0].self_attn.q_proj.register_forward_hook(lambda m, a, out: rows.append(out.shape[:-1].numel()))
    model.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=3, output_uncertainties=True)
    assert rows == [3, 1, 1]


def test_all_samples_of_a_step_are_one_forward(tiny_llama_tfb_path: Path) -> None:
    model = load(tiny_llama_tfb_path)
    rows: list[tuple[int, ...]] = []
    model.model.layers[0].mlp.register_forward_hook(lambda m, a, out: rows.append(tuple(out.shape[:-1])))
    model.generate(torch.tensor([[5, 6, 7]] * 2), max_new_tokens=2, output_uncertainties=True)
    assert rows == [(2, 3), (2, NUM_SAMPLES - 1), (2, 1), (2, NUM_SAMPLES - 1)]


def test_finished_sequences_are_nan_and_left_out(tiny_llama_tfb_path: Path) -> None:
    model, prompts = load(tiny_llama_tfb_path), ragged_prompts((4, 4, 3))
    width = prompts["input_ids"].shape[1]
    free = model.generate(**prompts, max_new_tokens=6, eos_token_id=None, pad_token_id=0)
    eos = int(free[0, width + 2])  # the first sequence ends at its third token at the latest
    output = model.generate(
        **prompts, max_new_tokens=6, eos_token_id=eos, pad_token_id=eos, output_uncertainties=True, noise_seed=1
    )
    new = output.sequences[:, width:].tolist()
    lengths = [ids.index(eos) + 1 if eos in ids else len(ids) for ids in new]
    assert lengths[0] <= 3
    assert [int((~row.isnan()).sum()) for row in output.uncertainties.total] == lengths
    assert check_output(model, prompts, output, [1, 2, 3]) <= 1
    tokens = output.token_uncertainties(AutoTokenizer.from_pretrained(tiny_llama_tfb_path))
    assert [[next(iter(t)) for t in row] for row in tokens] == [i[:n] for i, n in zip(new, lengths, strict=True)]
    first = tokens[0][0][new[0][0]]
    assert isinstance(first, Uncertainty)
    assert first.total_uncertainty == float(output.uncertainties.total[0, 0])
    assert isinstance(first.decoded_token, str)


class StopAtLength(StoppingCriteria):
    """Ends each sequence at its own total length."""

    def __init__(self, lengths: list[int]) -> None:
        self.lengths = torch.tensor(lengths)

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        return input_ids.shape[1] >= self.lengths


def test_stopping_criteria_and_streamer(tiny_llama_tfb_path: Path) -> None:
    model, prompts = load(tiny_llama_tfb_path), ragged_prompts((3, 3))
    output = model.generate(
        **prompts, max_new_tokens=9, eos_token_id=2, pad_token_id=2, min_new_tokens=9,
        stopping_criteria=[StopAtLength([5, 7])], output_uncertainties=True, noise_seed=4,
    )  # fmt: skip
    assert output.sequences.shape[1] == 7
    assert output.uncertainties.total.isnan().tolist() == [[False, False, True, True], [False] * 4]
    assert check_output(model, prompts, output, [4, 5]) <= 1

    tokenizer = AutoTokenizer.from_pretrained(tiny_llama_tfb_path)
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True)
    streamed = model.generate(
        prompts["input_ids"][:1], max_new_tokens=5, streamer=streamer, output_uncertainties=True, noise_seed=4
    )
    assert "".join(streamer) == tokenizer.decode(streamed.sequences[0, 3:])


@pytest.mark.parametrize(
    "options", [{"prefill_chunk_size": 3}, {"cache_implementation": "static"}, {"use_cache": False}]
)
def test_ways_to_fill_the_cache(tiny_qwen2_tfb_path: Path, options: dict[str, Any]) -> None:
    model, prompts = load(tiny_qwen2_tfb_path), ragged_prompts((8, 5))
    output = model.generate(**prompts, max_new_tokens=4, output_uncertainties=True, noise_seed=2, **options)
    assert check_output(model, prompts, output, [2, 3]) <= 1
    if "cache_implementation" in options:
        assert isinstance(output.past_key_values, StaticCache)


def test_prompt_embeddings_and_continued_cache(tiny_llama_tfb_path: Path) -> None:
    model, prompts = load(tiny_llama_tfb_path), ragged_prompts((6,))
    embeddings = model.get_input_embeddings()(prompts["input_ids"])
    first = model.generate(
        inputs_embeds=embeddings, attention_mask=prompts["attention_mask"], max_new_tokens=3, output_uncertainties=True,
        noise_seed=2, eos_token_id=None,
    )  # fmt: skip
    direct = model.generate(**prompts, max_new_tokens=5, output_uncertainties=True, noise_seed=2, eos_token_id=None)
    assert torch.equal(first.sequences, direct.sequences[:, 6:9])
    torch.testing.assert_close(first.uncertainties.stack(), direct.uncertainties.stack()[:, :3], rtol=1e-3, atol=1e-5)
    rest = model.generate(
        torch.cat([prompts["input_ids"], first.sequences], dim=1), past_key_values=first.past_key_values,
        max_new_tokens=2, output_uncertainties=True, noise_seed=2, eos_token_id=None,
    )  # fmt: skip
    torch.testing.assert_close(rest.uncertainties.stack(), direct.uncertainties.stack()[:, 3:], rtol=1e-3, atol=1e-5)


def test_generation_from_the_mixture(tiny_llama_tfb_path: Path) -> None:
    model = load(tiny_llama_tfb_path, use_tfb_for_generation=True, bayes_sigma=1.0)
    prompts = ragged_prompts((5,))
    output = model.generate(
        **prompts, max_new_tokens=6, output_uncertainties=True, noise_seed=8, output_logits=True, eos_token_id=None
    )
    assert check_output(model, prompts, output, [8]) <= 1
    clean = load(tiny_llama_tfb_path).generate(**prompts, max_new_tokens=6, eos_token_id=None)
    assert not torch.equal(output.sequences, clean)  # strong noise changes greedy tokens
    mixture = torch.stack(output.logits)[:, 0]
    torch.testing.assert_close(mixture.logsumexp(-1), torch.zeros(6), atol=1e-4, rtol=0)  # log of probabilities
    entropy = -(mixture.exp() * mixture).sum(-1)
    torch.testing.assert_close(entropy, output.uncertainties.total[0], rtol=1e-4, atol=1e-4)
    again = model.generate(**prompts, max_new_tokens=6, noise_seed=8, eos_token_id=None)
    assert torch.equal(again, output.sequences)  # also without asking for uncertainties


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_bfloat16_runs_near_float32(smollm2_tfb_path: Path, attention: str) -> None:
    tokenizer, texts = AutoTokenizer.from_pretrained(smollm2_tfb_path), ["The capital of France is", "Two plus"]
    prompts = tokenizer(texts, padding=True, padding_side="left", return_tensors="pt")
    exact, rough = (
        load(smollm2_tfb_path, dtype=dtype, attn_implementation=attention)
        .generate(**prompts, max_new_tokens=1, do_sample=False, output_uncertainties=True, noise_seed=1)
        .uncertainties
        for dtype in (torch.float32, torch.bfloat16)
    )
    torch.testing.assert_close(rough.total, exact.total, rtol=0.05, atol=0.05)
    torch.testing.assert_close(rough.epistemic, exact.epistemic, rtol=0.3, atol=0.01)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_beams": 2}, "beam_search"),
        ({"noise_seed": [1, 2]}, "2 noise seeds for 1 sequences"),
        ({"prompt_lookup_num_tokens": 2}, "assisted_generation"),
        ({"guidance_scale": 1.5}, "guidance_scale"),
        ({"custom_generate": lambda *_, **__: None}, "custom_generate"),
        ({"token_healing": True}, "token_healing"),
    ],
)
def test_refused_settings(tiny_llama_tfb_path: Path, options: dict[str, Any], message: str) -> None:
    model = load(tiny_llama_tfb_path)
    with pytest.raises(ValueError, match=message):
        model.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=2, output_uncertainties=True, **options)
    assert not model._forward_hooks  # nothing is left behind


def test_switches_of_generate_that_cannot_be_off(tiny_llama_tfb_path: Path) -> None:
    """An option beside a whole config wins in transformers; these three must not."""
    model, settings = load(tiny_llama_tfb_path), GenerationConfig(max_new_tokens=2)
    options = {"return_dict_in_generate": False, "use_cache": False, "disable_compile": False}
    output = model.generate(
        torch.tensor([[5, 6, 7]]), settings, output_uncertainties=True, noise_seed=np.int64(4), **options
    )
    prompts = {"input_ids": torch.tensor([[5, 6, 7]]), "attention_mask": torch.ones(1, 3, dtype=torch.long)}
    assert check_output(model, prompts, output, [4]) <= 1
    assert settings.to_diff_dict().keys() == GenerationConfig(max_new_tokens=2).to_diff_dict().keys()  # left alone


def test_seeds_wrap_to_64_bits() -> None:
    assert expand_seeds(list(np.array([2**62 + 3, -1])), 2).tolist() == [2**62 + 3, -1]
    assert expand_seeds(2**64 - 1, 2).tolist() == [-1, 0]
    assert expand_seeds([3, 2**63], 2).tolist() == [3, -(2**63)]
    assert expand_seeds(None, 2).tolist() == expand_seeds(None, 2).tolist()


@pytest.mark.parametrize("one", [3, np.int32(3), np.array(3), torch.tensor(3)])
@pytest.mark.parametrize("many", [(3, 4), np.array([3, 4]), torch.tensor([3, 4]), [torch.tensor(3), np.int64(4)]])
def test_seeds_may_be_tensors(one: Any, many: Any) -> None:
    assert expand_seeds(one, 2).tolist() == expand_seeds(many, 2).tolist() == [3, 4]


@pytest.mark.parametrize("seeds", [3.7, [3.5, 4], "12", torch.tensor(1.0)])
def test_seeds_that_are_no_integers_are_refused(seeds: Any) -> None:
    with pytest.raises(ValueError, match="noise seeds must be integers"):
        expand_seeds(seeds, 2)
