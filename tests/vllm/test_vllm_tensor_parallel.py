"""Two tensor-parallel ranks give one rank's numbers: basis shards, replicated KV heads, identical noise."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from bayesian_transformer import tfb
from bayesian_transformer.noise_config import PROJECTIONS, QKV
from bayesian_transformer.uncertainty import FIELDS
from tests.helpers.tiny_families import save_family
from tests.helpers.vllm_engines import engine, table, token_prompts

vllm = pytest.importorskip("vllm")
pytestmark = pytest.mark.engine


def one_kv_head_model(path: Path) -> Path:
    """A random Llama whose single KV head two ranks must share."""
    shape = {"hidden_size": 128, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=512, num_key_value_heads=1, initializer_range=0.2, dtype="float32", **shape)
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(path)
    return path


@pytest.mark.parametrize("kind", ["right", "left"])
@pytest.mark.parametrize("kv_heads", [1, 2])
def test_two_ranks_equal_one(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    make_tfb: Any,
    kv_heads: int,
    kind: str,
) -> None:
    base = one_kv_head_model(tmp_path / "Tiny-MQA") if kv_heads == 1 else request.getfixturevalue("tiny_qwen2_path")
    # One rank runs the converted model, and two ranks the plain one if its KV head is shared.
    # Noise on k comes with a shared head in one direction, with heads of each rank's own in the other.
    projections = QKV if (kind == "left") == (kv_heads == 2) else PROJECTIONS
    overrides = tfb(num_samples=4, bayes_noise=kind, bayes_projections=projections)
    stored = make_tfb(base, kind, bayes_projections=projections)
    paths = {1: stored, 2: base if kv_heads == 1 else stored}
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")  # one NUMA node has no place for two bound workers
    options: dict[str, Any] = {
        "hf_overrides": overrides,
        "skip_tokenizer_init": True,
        "kv_cache_memory_bytes": 1 << 26,
    }
    prompts = token_prompts([list(range(3 + i, 40 + i)) for i in range(5)])
    parameters = [vllm.SamplingParams(temperature=0, max_tokens=12, seed=i, detokenize=False) for i in range(5)]
    numbers = []
    for ranks in (1, 2):
        with engine(paths[ranks], in_process=True, tensor_parallel_size=ranks, **options) as llm:
            outputs = llm.generate(prompts, parameters, use_tqdm=False)
        numbers.append([(list(o.outputs[0].token_ids), table(o.outputs[0])) for o in outputs])
    for (tokens, one), (other_tokens, two) in zip(*numbers, strict=True):
        assert other_tokens == tokens
        np.testing.assert_allclose(two, one, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("name", ["phi3 with a window", "gemma2"])
def test_two_ranks_of_a_family_equal_one(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fused weights, windows, soft caps; the bases are computed from whole weights, of which each rank takes a part."""
    base = save_family(name, tmp_path / "base")
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    options: dict[str, Any] = {
        "hf_overrides": tfb(num_samples=4),
        "skip_tokenizer_init": True,
        "kv_cache_memory_bytes": 1 << 26,
        "max_model_len": 128,
        "block_size": 32,
    }
    prompts = token_prompts([list(range(3, 80)), [9, 8, 7]])  # longer than the windows
    parameters = [
        vllm.SamplingParams(temperature=0, max_tokens=8, ignore_eos=True, seed=i, detokenize=False) for i in (0, 1)
    ]
    numbers = []
    for ranks in (1, 2):
        with engine(base, in_process=True, tensor_parallel_size=ranks, **options) as llm:
            outputs = llm.generate(prompts, parameters, use_tqdm=False)
        numbers.append([(list(o.outputs[0].token_ids), table(o.outputs[0])) for o in outputs])
    for (tokens, one), (other_tokens, two) in zip(*numbers, strict=True):
        assert one[:, FIELDS.index("epistemic")].min() > 1e-5  # the noise is felt
        assert other_tokens == tokens
        np.testing.assert_allclose(two, one, rtol=1e-3, atol=2e-5)
