"""Scoring of given texts: same numbers as generation and as brute force, whatever the padding and the chunks."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config

from bayesian_transformer import BayesianForCausalLMModel
from bayesian_transformer.scoring import ScoredText, ScoringRequest, encode, score, score_batch, score_texts
from bayesian_transformer.uncertainty import FIELDS, TokenUncertainty
from tests.helpers.reference import reference_uncertainties, worst_error

PROMPTS = [[40, 50, 60, 70, 80], [41], [42, 52]]
RESPONSES = [[90, 91, 92, 93], [94, 95, 96, 97, 98, 99, 100], [101]]
SEEDS = [5, 6, -7]
NUM_SAMPLES = 3


def load(path: Path, **options: Any) -> Any:
    return AutoModelForCausalLM.from_pretrained(path, **{"dtype": torch.float32, "num_samples": NUM_SAMPLES} | options)


def arrays(scored: TokenUncertainty) -> dict[str, Any]:
    return {name: getattr(scored, name).numpy() for name in FIELDS}


def padded(side: str) -> tuple[Tensor, Tensor, Tensor]:
    """PROMPTS and RESPONSES as one batch: ids, attention mask, response mask."""
    width = max(len(p) + len(r) for p, r in zip(PROMPTS, RESPONSES, strict=True)) + 2
    ids, mask = torch.zeros(3, width, dtype=torch.long), torch.zeros(3, width, dtype=torch.long)
    response = torch.zeros(3, width, dtype=torch.bool)
    for row, (p, r) in enumerate(zip(PROMPTS, RESPONSES, strict=True)):
        start = width - len(p) - len(r) if side == "left" else 0
        ids[row, start : start + len(p) + len(r)] = torch.tensor(p + r)
        mask[row, start : start + len(p) + len(r)] = 1
        response[row, start + len(p) : start + len(p) + len(r)] = True
    return ids, mask, response


@pytest.mark.parametrize("kind", ["right", "left"])
@pytest.mark.parametrize("base", ["tiny_llama_path", "tiny_qwen2_path"])
def test_single_scoring_agrees_with_brute_force(
    request: pytest.FixtureRequest, make_tfb: Any, base: str, kind: str
) -> None:
    model = load(make_tfb(request.getfixturevalue(base), kind))
    for prompt, response, seed in zip(PROMPTS, RESPONSES, SEEDS, strict=True):
        expected = reference_uncertainties(model, prompt, response, seed, 0.1, NUM_SAMPLES, kind)
        for positions in (1, 7, 1000):
            scored = score(model, prompt, response, seed=seed, chunk_rows=positions * NUM_SAMPLES)
            assert worst_error(arrays(scored), expected) <= 1


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("positions", [1, 7, 1000])
def test_padding_and_chunks_change_nothing(
    tiny_qwen2_tfb_path: Path, side: str, positions: int, attention: str
) -> None:
    model = load(tiny_qwen2_tfb_path, attn_implementation=attention)
    ids, mask, response = padded(side)
    table = score_batch(model, ids, mask, response, SEEDS, chunk_rows=positions * NUM_SAMPLES * 3)
    assert table.isnan().all(-1).equal(~response)
    assert table.isnan().any(-1).equal(~response)
    for row in range(3):
        alone = score(model, PROMPTS[row], RESPONSES[row], seed=SEEDS[row])
        torch.testing.assert_close(table[row][response[row]], alone.stack(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", ["right", "left"])
def test_scoring_of_generated_text_is_generation(smollm2_path: Path, make_tfb: Any, kind: str) -> None:
    model = load(make_tfb(smollm2_path, kind), num_samples=5)
    tokenizer = AutoTokenizer.from_pretrained(smollm2_path)
    chat = [{"role": "user", "content": "Tell me about bees."}]
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    torch.manual_seed(0)
    output = model.generate(**prompt, max_new_tokens=40, do_sample=True, output_uncertainties=True, noise_seed=77)
    width = prompt["input_ids"].shape[1]
    new = output.sequences[0, width:].tolist()
    generated = {name: getattr(output.uncertainties, name)[0].numpy() for name in FIELDS}
    for positions in (1, 7, 1000):
        scored = score(model, prompt["input_ids"][0].tolist(), new, seed=77, chunk_rows=positions * 5)
        assert worst_error(arrays(scored), generated) <= 1


def test_no_more_logits_than_the_chunk(tiny_llama_tfb_path: Path) -> None:
    model = load(tiny_llama_tfb_path)
    rows: list[int] = []
    model.lm_head.register_forward_hook(lambda m, a, out: rows.append(out.shape[:-1].numel()))
    score(model, [40] * 30, [41] * 20, seed=0, chunk_rows=12)
    assert rows == [4, 8] * 5  # 4 positions at a time, clean and 2 noisy samples; none of the prompt
    rows.clear()
    ids, mask, response = padded("right")
    score_batch(model, ids, mask, response, SEEDS, chunk_rows=1)  # a row for each sequence and sample is the least
    assert max(rows) == 6


def test_the_prompt_comes_in_chunks_too(tiny_llama_tfb_path: Path) -> None:
    model = load(tiny_llama_tfb_path)
    layer: list[int] = []
    head: list[int] = []
    model.model.layers[0].mlp.register_forward_hook(lambda m, a, out: layer.append(out.shape[:-1].numel()))
    model.lm_head.register_forward_hook(lambda m, a, out: head.append(out.shape[:-1].numel()))
    whole = score(model, [40] * 31, [41, 42], seed=0)
    assert max(layer) == 30
    layer.clear()
    head.clear()
    parts = score(model, [40] * 31, [41, 42], seed=0, chunk_rows=12)
    assert (layer, head) == ([12, 12, 6, 2, 4], [2, 4])  # the prompt, then two positions, clean and under two samples
    torch.testing.assert_close(parts.stack(), whole.stack(), rtol=1e-3, atol=1e-5)


def test_columns_between_responses_have_no_logits(tiny_llama_tfb_path: Path) -> None:
    """As in a dialogue, of which the model's turns are scored."""
    model = load(tiny_llama_tfb_path)
    ids = torch.arange(40, 60)[None]
    wanted = torch.zeros(1, 20, dtype=torch.bool)
    wanted[0, [3, 4, 15, 16, 17]] = True
    rows: list[int] = []
    model.lm_head.register_forward_hook(lambda m, a, out: rows.append(out.shape[:-1].numel()))
    table = score_batch(model, ids, torch.ones_like(ids), wanted, [7])
    assert rows == [2, 4, 3, 6]
    assert table.isnan().all(-1).equal(~wanted)
    alone = score(model, ids[0, :3].tolist(), ids[0, 3:18].tolist(), seed=7).stack()
    torch.testing.assert_close(table[wanted], alone[wanted[0, 3:18]], rtol=1e-3, atol=1e-5)


def test_a_batch_of_texts_keeps_to_the_chunk(tiny_llama_tfb_path: Path) -> None:
    model, tokenizer = load(tiny_llama_tfb_path), AutoTokenizer.from_pretrained(tiny_llama_tfb_path)
    rows: list[int] = []
    model.lm_head.register_forward_hook(lambda m, a, out: rows.append(out.shape[:-1].numel()))
    requests = [ScoringRequest("a b c", " d e f g", seed) for seed in range(8)]
    assert len(list(score_texts(model, tokenizer, requests, batch_size=8, chunk_rows=2 * NUM_SAMPLES))) == 8
    assert max(clean + noisy for clean, noisy in zip(rows[::2], rows[1::2], strict=True)) <= 2 * NUM_SAMPLES


def test_overrides_and_silent_model(tiny_llama_tfb_path: Path) -> None:
    model = load(tiny_llama_tfb_path)
    call: dict[str, Any] = {"prompt_ids": PROMPTS[0], "response_ids": RESPONSES[0], "seed": 1}
    changed = score(model, **call, num_samples=6, sigma=0.4)
    model.config.num_samples = 6
    model.set_sigma(0.4)
    assert torch.equal(changed.stack(), score(model, **call).stack())
    assert score(model, **call, sigma=0.0).epistemic.abs().max() < 1e-5
    entropy_only = score(model, **call, num_samples=1)
    assert torch.equal(entropy_only.total, entropy_only.entropy)
    model.set_sample(False)
    assert torch.equal(score(model, **call).total, entropy_only.total)


def test_bfloat16_scoring(smollm2_tfb_path: Path) -> None:
    exact, rough = (
        score(load(smollm2_tfb_path, dtype=dtype), [504, 2988], [314, 6754, 28], seed=1)
        for dtype in (torch.float32, torch.bfloat16)
    )
    torch.testing.assert_close(rough.total, exact.total, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_texts_are_scored_in_order_and_failures_stand_in_place(tiny_llama_tfb_path: Path, batch_size: int) -> None:
    model, tokenizer = load(tiny_llama_tfb_path), AutoTokenizer.from_pretrained(tiny_llama_tfb_path)
    requests = [
        ScoringRequest("What is 2 + 2?", " It is 4.", 3),
        ScoringRequest("Nothing", ""),
        ScoringRequest([{"role": "user", "content": "Hi"}], "Hello, and welcome to a longer text.", 4),
        ScoringRequest("word", " word" * 3000),
        ScoringRequest("Une", " idée ☃"),
    ]
    results = list(score_texts(model, tokenizer, iter(requests), batch_size=batch_size, chunk_rows=30))
    assert [isinstance(result, ScoredText) for result in results] == [True, False, True, False, True]
    assert "empty" in str(results[1])
    assert "2048" in str(results[3])
    for request, result in zip(requests, results, strict=True):
        if isinstance(result, ScoredText):
            prompt, response = encode(tokenizer, request)
            assert result.token_ids == response
            assert tokenizer.decode(result.token_ids) == request.response
            alone = score(model, prompt, response, seed=request.seed)
            torch.testing.assert_close(result.uncertainties.stack(), alone.stack(), rtol=1e-3, atol=1e-5)


def test_requests_are_read_as_they_are_needed(tiny_llama_tfb_path: Path) -> None:
    model, tokenizer = load(tiny_llama_tfb_path), AutoTokenizer.from_pretrained(tiny_llama_tfb_path)
    taken: list[int] = []
    endless = (taken.append(n) or ScoringRequest("a", f" {n}") for n in range(10**9))  # type: ignore[func-returns-value]
    results = score_texts(model, tokenizer, endless, batch_size=2)
    assert isinstance(next(results), ScoredText)
    assert len(taken) == 2


def test_text_that_does_not_round_trip_is_refused(tiny_llama_tfb_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama_tfb_path)
    from tokenizers.normalizers import Lowercase

    tokenizer.backend_tokenizer.normalizer = Lowercase()
    encode(tokenizer, ScoringRequest("A", "lower"))
    with pytest.raises(ValueError, match="do not decode to the same text"):
        encode(tokenizer, ScoringRequest("A", "Upper"))


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (ScoringRequest("a", "\ud800"), "surrogates not allowed"),
        (ScoringRequest("\ud800", "a"), "surrogates not allowed"),
        (ScoringRequest([{"role": "user", "content": "\ud800"}], "a"), "surrogates not allowed"),
        (ScoringRequest([{"role": "robot", "content": "a"}], "a"), "no robots"),
        (ScoringRequest([], "a"), "empty conversation"),
        (ScoringRequest([{"role": "user", "content": "a", "tools": 5}], "a"), "chat template refuses .* no len"),  # type: ignore[dict-item]
    ],
)
def test_what_the_tokenizer_cannot_take_is_refused(
    tiny_llama_tfb_path: Path, request_: ScoringRequest, message: str
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama_tfb_path)
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'robot' %}{{ raise_exception('no robots') }}{% endif %}"
        "{{ m.content }}{% if m.tools is defined %}{{ m.tools | length }}{% endif %}{% endfor %}"
    )
    with pytest.raises(ValueError, match=message):
        encode(tokenizer, request_)


def test_tokens_that_the_model_does_not_know_stand_as_failures(tiny_llama_tfb_path: Path) -> None:
    model, tokenizer = load(tiny_llama_tfb_path), AutoTokenizer.from_pretrained(tiny_llama_tfb_path)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|new|>"]})
    requests = [ScoringRequest("a", " b<|new|>"), ScoringRequest("<|new|>", " b"), ScoringRequest("a", " b")]
    for batch_size in (1, 3):
        *unknown, good = score_texts(model, tokenizer, requests, batch_size=batch_size)
        for result in unknown:
            assert str(result) == "token '<|new|>' has the id 49152, but the model knows only 49152 tokens"
        assert isinstance(good, ScoredText)


def test_texts_longer_than_a_sliding_window_stand_as_failures(tiny_llama_tfb_path: Path) -> None:
    shape: dict[str, Any] = {
        "vocab_size": 49152, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1,
        "num_attention_heads": 4, "num_key_value_heads": 2, "sliding_window": 8,
        "use_sliding_window": True, "max_window_layers": 0,
    }  # fmt: skip
    lm = AutoModelForCausalLM.from_config(Qwen2Config(**shape)).eval()
    model = BayesianForCausalLMModel.wrap(lm, rank=4, num_samples=NUM_SAMPLES)
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama_tfb_path)
    requests = [ScoringRequest("a b", " c" * count) for count in (7, 6)]
    too_long, longest = score_texts(model, tokenizer, requests)
    assert "2 + 7 tokens, more than the 8" in str(too_long)
    assert isinstance(longest, ScoredText)
    assert longest.uncertainties.epistemic.min() > 0


@pytest.mark.parametrize(("kind", "together"), [("right", 3), ("std", 1)])
def test_full_rank_noise_is_kept_for_one_text_at_a_time(tiny_llama_path: Path, kind: str, together: int) -> None:
    lm = AutoModelForCausalLM.from_pretrained(tiny_llama_path)
    model, tokenizer = (
        BayesianForCausalLMModel.wrap(lm, bayes_noise=kind),
        AutoTokenizer.from_pretrained(tiny_llama_path),
    )
    batches: list[int] = []
    lm.lm_head.register_forward_hook(lambda m, a, out: batches.append(len(out)))
    results = list(score_texts(model, tokenizer, [ScoringRequest("a", " b")] * 3, num_samples=NUM_SAMPLES))
    assert [type(result) for result in results] == [ScoredText] * 3
    assert max(batches) == together


def test_bad_arguments(tiny_llama_tfb_path: Path) -> None:
    model = load(tiny_llama_tfb_path)
    with pytest.raises(ValueError, match="at least one token"):
        score(model, [5], [], seed=0)
    with pytest.raises(ValueError, match="2049 tokens, more than the 2048 of the model"):
        score(model, [5] * 2000, [6] * 49, seed=0)
    with pytest.raises(ValueError, match="bayes_sigma"):
        score(model, [5], [6], seed=0, sigma=-1.0)
    with pytest.raises(ValueError, match="num_samples"):
        score(model, [5], [6], seed=0, num_samples=0)
    ids, mask, response = padded("left")
    for token in (-1, 49152):
        with pytest.raises(ValueError, match=r"input_ids must lie in \[0, 49152\)"):
            score(model, [5], [token], seed=0)
    with pytest.raises(ValueError, match="seeds"):
        score_batch(model, ids, mask, response, [1])
    with pytest.raises(ValueError, match="padding or the first token"):
        score_batch(model, ids, mask, mask.bool(), SEEDS)
    with pytest.raises(ValueError, match="marks no token"):
        score_batch(model, ids, mask, torch.zeros_like(response), SEEDS)
