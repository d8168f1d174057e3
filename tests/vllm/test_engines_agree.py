"""vLLM decoding, transformers generation and scoring of the generated text give the same eight quantities per token.

The noise is counter-based, so with the same seeds this is equality up to float32 rounding. The largest differences are
printed (`pytest -rP`) and recorded as properties of the test.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from bayesian_transformer.scoring import score
from bayesian_transformer.uncertainty import FIELDS
from tests.helpers.noisy_engines import CHECKPOINTS, NUM_SAMPLES, SIGMA, NoisyEngine
from tests.helpers.vllm_engines import table, token_prompts

vllm = pytest.importorskip("vllm")
pytestmark = pytest.mark.engine

TOKENS = 24
RELATIVE, ABSOLUTE = 1e-3, 1e-5
QUESTIONS = ("What is 17 + 25?", "Name three rivers of Europe, and say where each begins.", "Why?")
SEEDS = [3, -(2**40) - 1, 2**63 + 5]  # one for each question
NOISY_CASES = [f"{base} auto" for base in CHECKPOINTS]


class Engines(NamedTuple):
    """One TFB checkpoint in all engines, with the same overrides."""

    llm: Any
    model: Any
    tokenizer: Any
    prompts: list[list[int]]

    def decode(self, **sampling: Any) -> list[tuple[list[int], np.ndarray]]:
        """vLLM: the new tokens of each prompt, and their quantities [tokens, 8]."""
        options = {"temperature": 0.0, "max_tokens": TOKENS, "ignore_eos": True} | sampling
        parameters = [vllm.SamplingParams(seed=seed, **options) for seed in SEEDS]
        outputs = self.llm.generate(token_prompts(self.prompts), parameters, use_tqdm=False)
        return [(list(output.outputs[0].token_ids), table(output.outputs[0])) for output in outputs]

    def generate(self) -> list[tuple[list[int], np.ndarray]]:
        """transformers: the same, all prompts as one batch with padding on the left."""
        batch = self.tokenizer.pad({"input_ids": self.prompts}, padding_side="left", return_tensors="pt")
        options = {"max_new_tokens": TOKENS, "do_sample": False, "eos_token_id": None}
        output = self.model.generate(**batch, **options, output_uncertainties=True, noise_seed=SEEDS)
        new = output.sequences[:, batch["input_ids"].shape[1] :].tolist()
        return list(zip(new, output.uncertainties.stack().double().numpy(), strict=True))

    def score(self, responses: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """Offline scoring of given responses: quantities [tokens, 8] each, in chunks of a few positions."""
        texts = zip(self.prompts, responses, SEEDS, strict=True)
        scored = [score(self.model, prompt, new, seed=seed, chunk_rows=7 * NUM_SAMPLES) for prompt, new, seed in texts]
        return [uncertainties.stack().double().numpy() for uncertainties in scored]


@pytest.fixture
def engines(noisy: NoisyEngine) -> Engines:
    path, overrides = noisy.case.tfb, {"num_samples": NUM_SAMPLES, "bayes_sigma": SIGMA}
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, **overrides).eval()
    tokenizer = AutoTokenizer.from_pretrained(path)
    messages = [[{"role": "user", "content": text}] for text in QUESTIONS]
    prompts = [tokenizer.apply_chat_template(m, add_generation_prompt=True, return_dict=False) for m in messages]
    prompts[-1] = prompts[-1][:1]  # a prompt of one token: nothing but the particle's own key to attend to
    return Engines(noisy.llm, model, tokenizer, prompts)


def check(tables: Mapping[str, Sequence[np.ndarray]], record: Callable[[str, object], None]) -> None:
    """Assert that the quantities of each pair of engines agree; print and record the largest differences."""
    joined = {name: np.concatenate(parts) for name, parts in tables.items()}
    for one, other in combinations(joined, 2):
        a, b = joined[one], joined[other]
        assert a.shape == b.shape == (len(SEEDS) * TOKENS, len(FIELDS))
        assert np.isfinite(a).all()
        difference = np.abs(a - b)
        share = difference / np.maximum(RELATIVE * np.abs(b), ABSOLUTE)
        for column, field in enumerate(FIELDS):
            text = f"{difference[:, column].max():.1e} nats, {share[:, column].max():.3f} of the tolerance"
            record(f"{one} - {other}: {field}", text)
            print(f"{one} - {other}: {field:16} {text}")  # noqa: T201
        assert share.max() <= 1


def test_greedy_text_in_all_engines(engines: Engines, record_property: Callable[[str, object], None]) -> None:
    """Every token of every prompt, the first one included."""
    decoded, generated = engines.decode(), engines.generate()
    assert [tokens for tokens, _ in decoded] == [tokens for tokens, _ in generated]
    numbers = [table for _, table in decoded]
    assert min(table[:, FIELDS.index("epistemic")].min() for table in numbers) > 0  # the noise is felt at each token
    scored = engines.score([tokens for tokens, _ in decoded])
    tables = {"vLLM": numbers, "transformers": [table for _, table in generated], "scoring": scored}
    check(tables, record_property)


def test_sampled_text_decoded_and_scored(engines: Engines, record_property: Callable[[str, object], None]) -> None:
    """The quantities are those of the model, whatever shaped the distribution that the tokens were drawn from."""
    decoded = engines.decode(temperature=1.3, top_p=0.95)
    assert [tokens for tokens, _ in decoded] != [tokens for tokens, _ in engines.decode()]
    scored = engines.score([tokens for tokens, _ in decoded])
    check({"vLLM": [table for _, table in decoded], "scoring": scored}, record_property)
