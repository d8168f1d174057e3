"""Families that vLLM runs with transformers' classes: compiled, on two ranks, and what is left of it in the process."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from bayesian_transformer import tfb
from bayesian_transformer.conversion import convert_checkpoint
from bayesian_transformer.scoring import score
from bayesian_transformer.uncertainty import FIELDS
from tests.helpers.reference import worst_error
from tests.helpers.tiny_families import VOCABULARY, save_family
from tests.helpers.vllm_engines import engine, table, token_prompts

vllm = pytest.importorskip("vllm")
pytestmark = pytest.mark.engine

NOISE: dict[str, Any] = {"num_samples": 4, "bayes_sigma": 0.1}
OPTIONS: dict[str, Any] = {"skip_tokenizer_init": True, "max_model_len": 256, "kv_cache_memory_bytes": 1 << 26}
PROMPTS = [np.random.default_rng(length).integers(3, VOCABULARY, length).tolist() for length in (40, 1, 77)]


def decode(llm: Any) -> list[tuple[list[int], np.ndarray]]:
    """New tokens and their quantities [tokens, 8] for each of PROMPTS, whose seeds are their numbers."""
    sampling = [
        vllm.SamplingParams(seed=seed, temperature=0.0, max_tokens=8, ignore_eos=True, detokenize=False)
        for seed in range(len(PROMPTS))
    ]
    outputs = llm.generate(token_prompts(PROMPTS), sampling, use_tqdm=False)
    return [(list(output.outputs[0].token_ids), table(output.outputs[0])) for output in outputs]


def assert_as_scored(decoded: list[tuple[list[int], np.ndarray]], tfb_path: Path) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(tfb_path, dtype=torch.float32, **NOISE).eval()
    for seed, (prompt, (tokens, numbers)) in enumerate(zip(PROMPTS, decoded, strict=True)):
        scored = score(model, prompt, tokens, seed=seed).stack().double().numpy()
        columns = (dict(zip(FIELDS, table.T, strict=True)) for table in (scored, numbers))
        assert worst_error(*columns) <= 1
        assert numbers[:, FIELDS.index("epistemic")].min() > 0


def test_compiled(tmp_path: Path) -> None:
    """Chunks of the prefill have more rows than the scheduler may give tokens."""
    base = save_family("olmo3", tmp_path / "base")
    options = OPTIONS | {"enforce_eager": False, "max_num_batched_tokens": 32}
    with engine(base, hf_overrides=tfb(**NOISE), **options) as llm:
        decoded = decode(llm)
    assert_as_scored(decoded, convert_checkpoint(base, tmp_path / "tfb"))


def test_two_ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OLMo 2 normalises q and k as a whole, after the noise; the ranks gather them for it."""
    base = save_family("olmo2", tmp_path / "base")
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")  # one NUMA node has no place for two bound workers
    with engine(base, in_process=True, tensor_parallel_size=2, hf_overrides=tfb(**NOISE), **OPTIONS) as llm:
        decoded = decode(llm)
    assert_as_scored(decoded, convert_checkpoint(base, tmp_path / "tfb"))


def test_transformers_keeps_its_classes(tmp_path: Path) -> None:
    """vLLM changes the class of the decoder it runs, which then cannot be made without vLLM."""
    base = save_family("smollm3", tmp_path / "base")
    with engine(base, in_process=True, hf_overrides=tfb(**NOISE), **OPTIONS):
        AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base))


def test_projections_that_vllm_cannot_fuse_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = save_family("starcoder2", tmp_path / "base")
    monkeypatch.setattr("vllm.model_executor.models.transformers.fusers.QKVFuser.validate", lambda *_: False)
    said = "vLLM could not fuse q, k and v of layer 0 of VllmStarcoder2Model"
    with pytest.raises(ValueError, match=said), engine(base, in_process=True, hf_overrides=tfb(**NOISE), **OPTIONS):
        pass
