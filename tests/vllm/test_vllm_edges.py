"""Requests at the edges of what vLLM takes, its own extensions, several engines: the numbers are those of scoring."""

import asyncio
import copy
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from bayesian_transformer.embedded import base_model
from bayesian_transformer.scoring import score
from bayesian_transformer.uncertainty import FIELDS
from tests.helpers.vllm_engines import engine, table, token_prompts

pytest.importorskip("vllm")
import vllm
from vllm.exceptions import VLLMValidationError
from vllm.v1.sample.logits_processor import AdapterLogitsProcessor

from bayesian_transformer.vllm_plugin.outputs import _texts

pytestmark = pytest.mark.engine
LENGTH, OVERRIDES = 128, {"num_samples": 3, "bayes_sigma": 0.3}
OPTIONS: dict[str, Any] = {"in_process": True, "max_model_len": LENGTH, "hf_overrides": OVERRIDES}
PROMPT = np.random.default_rng(0).integers(100, 40_000, 30).tolist()


class Banning(AdapterLogitsProcessor):
    """A logits processor of a user: a request may ban one token."""

    def is_argmax_invariant(self) -> bool:
        return False

    def new_req_logits_processor(self, params: Any) -> Any:
        banned = (params.extra_args or {}).get("banned")
        if banned is None:
            return None

        def process(_: list[int], logits: torch.Tensor) -> torch.Tensor:
            logits[banned] = -torch.inf
            return logits

        return process


def parameters(**changes: Any) -> Any:
    return vllm.SamplingParams(**{"temperature": 0, "max_tokens": 6, "ignore_eos": True, "seed": 7} | changes)


def answer(llm: Any, prompt: list[int], **changes: Any) -> Any:
    return llm.generate(token_prompts([prompt]), parameters(**changes), use_tqdm=False)[0].outputs[0]


@pytest.fixture(scope="module")
def model(tiny_llama_tfb_path: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_llama_tfb_path, dtype=torch.float32, **OVERRIDES).eval()


@pytest.fixture(scope="module")
def llm(tiny_llama_tfb_path: Path) -> Iterator[Any]:
    """Two requests of full length do not fit into the cache together, so the more urgent one ends first."""
    extras: dict[str, Any] = {
        "logits_processors": [Banning],
        "scheduling_policy": "priority",
        "num_gpu_blocks_override": 6,
    }
    with engine(tiny_llama_tfb_path, **OPTIONS, block_size=32, disable_log_stats=False, **extras) as llm:
        yield llm


def check(model: Any, prompt: list[int], completion: Any, seed: int = 7) -> None:
    expected = score(model, prompt, list(completion.token_ids), seed=seed).stack().numpy()
    np.testing.assert_allclose(table(completion), expected, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize(
    ("prompt", "changes"),
    [
        ([], {}),
        ([5] * (LENGTH + 1), {}),
        ([10**7], {}),
        ([5], {"max_tokens": 0}),
        ([5], {"temperature": -1.0}),
        ([5], {"n": 0}),
    ],
)
def test_a_refused_request_leaves_the_engine_as_it_was(
    llm: Any, model: Any, prompt: list[int], changes: dict[str, Any]
) -> None:
    with pytest.raises(VLLMValidationError):
        answer(llm, prompt, **changes)
    check(model, PROMPT, answer(llm, PROMPT))


def test_a_context_that_is_full(llm: Any, model: Any) -> None:
    prompt = np.random.default_rng(1).integers(100, 40_000, LENGTH - 1).tolist()
    completion = answer(llm, prompt)
    assert (len(completion.token_ids), completion.finish_reason) == (1, "length")
    check(model, prompt, completion)


@pytest.mark.parametrize("seed", [-(2**63), -2, 0, 2**63 - 1])
def test_seeds_at_the_ends(llm: Any, model: Any, seed: int) -> None:
    """-1 is not among them: to vLLM it means no seed."""
    check(model, PROMPT, answer(llm, PROMPT, seed=seed), seed)


def test_a_logits_processor_of_the_user(llm: Any, model: Any) -> None:
    """It changes what is sampled, and the numbers are of the raw logits."""
    first = answer(llm, PROMPT).token_ids[0]
    completion = answer(llm, PROMPT, extra_args={"banned": first})
    assert first not in completion.token_ids
    check(model, PROMPT, completion)


def test_an_urgent_request_preempts_another(llm: Any, model: Any) -> None:
    core, done = llm.llm_engine, dict[str, Any]()
    core.add_request("slow", token_prompts([PROMPT])[0], parameters(max_tokens=90), priority=5)
    for _ in range(5):
        core.step()
    urgent = np.random.default_rng(2).integers(100, 40_000, 30).tolist()
    core.add_request("urgent", token_prompts([urgent])[0], parameters(max_tokens=90), priority=0)
    while core.has_unfinished_requests():
        done |= {output.request_id: output.outputs[0] for output in core.step() if output.finished}
    preempted = next(metric.value for metric in llm.get_metrics() if metric.name == "vllm:num_preemptions")
    assert preempted > 0
    assert list(done) == ["urgent", "slow"]
    check(model, urgent, done["urgent"])
    check(model, PROMPT, done["slow"])


@pytest.mark.parametrize("way", [copy.deepcopy, lambda output: pickle.loads(pickle.dumps(output))])  # noqa: S301
def test_outputs_can_be_copied_and_sent_to_other_processes(llm: Any, way: Callable[[Any], Any]) -> None:
    (output,) = llm.generate(token_prompts([PROMPT]), parameters(), use_tqdm=False)
    np.testing.assert_array_equal(table(way(output).outputs[0]), table(output.outputs[0]))


def test_a_byte_level_tokenizer_has_no_text_for_an_id_that_it_does_not_know() -> None:
    """vLLM's helper decodes it to nothing, which a token can also be."""
    tokenizer = AutoTokenizer.from_pretrained(base_model())
    assert _texts(tokenizer, [len(tokenizer) + 5]) == [None]
    (word,) = tokenizer(" sum").input_ids
    assert _texts(tokenizer, [word, len(tokenizer) + 5]) == [" sum", None]


def test_where_an_event_loop_runs(llm: Any, model: Any) -> None:
    """As in a notebook."""

    async def cell() -> Any:
        return answer(llm, PROMPT)

    check(model, PROMPT, asyncio.run(cell()))


def test_beam_search_is_that_of_the_base_model(llm: Any, tiny_llama_path: Path, tiny_llama_tfb_path: Path) -> None:
    """It asks for one token at a time with log-probabilities, and drops everything else."""
    options = vllm.sampling_params.BeamSearchParams(beam_width=3, max_tokens=5)

    def beams(llm: Any) -> list[list[int]]:
        (output,) = llm.beam_search(token_prompts([PROMPT]), options)
        return [list(sequence.tokens) for sequence in output.sequences]

    found = beams(llm)
    with engine(tiny_llama_path, in_process=True, max_model_len=LENGTH) as stock:
        assert beams(stock) == found


@pytest.mark.xdist_group("edge engines")
def test_two_engines_in_one_program(tiny_llama_tfb_path: Path, model: Any) -> None:
    options = OPTIONS | {"in_process": False}
    other = options | {"hf_overrides": OVERRIDES | {"num_samples": 1}}
    with engine(tiny_llama_tfb_path, **options) as one, engine(tiny_llama_tfb_path, **other) as two:
        for _ in range(2):
            noisy, plain = answer(one, PROMPT), answer(two, PROMPT)
            check(model, PROMPT, noisy)
            assert list(plain.token_ids) == list(noisy.token_ids)
            assert not table(plain)[:, FIELDS.index("epistemic")].any()


QUIRKS: dict[str, dict[str, Any]] = {
    "head_dim that is not hidden / heads": {"head_dim": 64},
    "llama3 rope": {
        "rope_parameters": {
            "rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        }
    },
    "yarn rope": {
        "rope_parameters": {
            "rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 32
        }
    },
    "one KV head and biases": {"num_key_value_heads": 1, "attention_bias": True},
}  # fmt: skip


@pytest.mark.xdist_group("edge engines")
@pytest.mark.parametrize("quirk", QUIRKS)
def test_models_with_quirks_and_no_tokenizer(tmp_path: Path, make_tfb: Callable[..., Path], quirk: str) -> None:
    torch.manual_seed(4)
    config = LlamaConfig(
        vocab_size=500, hidden_size=128, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=LENGTH, initializer_range=0.15, **QUIRKS[quirk],
    )  # fmt: skip
    base = LlamaForCausalLM(config)
    for name, parameter in base.named_parameters():
        if name.endswith(".bias"):
            torch.nn.init.normal_(parameter, std=0.5)
    base.save_pretrained(tmp_path / "Quirk")
    path, prompt = make_tfb(tmp_path / "Quirk"), np.random.default_rng(3).integers(3, 500, 70).tolist()
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, **OVERRIDES).eval()
    with engine(path, **OPTIONS, skip_tokenizer_init=True) as llm:
        completion = answer(llm, prompt, max_tokens=20, detokenize=False)
    check(model, prompt, completion)
    assert {entry.decoded_token for token in completion.uncertainties for entry in token.values()} == {None}
