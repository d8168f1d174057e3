"""Checkpoints that tests share: the embedded model, and tiny random Llama and Qwen2 models with a real tokenizer.

They are built once per session. Heads are 32 wide, the smallest that vLLM's CPU attention takes. Also the data sets
that the tests of the shell scripts share.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import torch
from transformers import (
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from bayesian_transformer.conversion import convert_checkpoint
from bayesian_transformer.embedded import base_model, tfb_model
from bayesian_transformer.noise_config import PROJECTIONS

# Each test process keeps to its own share of the cores: two engines would otherwise bind their threads to the same one.
if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    shares = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[int(worker.removeprefix("gw")) :: shares] or cores)

MakeTFB = Callable[..., Path]

_TINY = {
    "vocab_size": 49152,  # of the embedded model's tokenizer
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "initializer_range": 0.1,  # large enough for attention and logits to vary
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
    "dtype": "float32",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What runs where, and in which order.

    A file stays in one test process, as its tests share what is slow to make, unless a test names another group. What
    starts engines comes first: at the end, when one process is done, small groups are left for the other.
    """
    for item in items:
        if not any(item.iter_markers("xdist_group")):
            item.add_marker(pytest.mark.xdist_group(item.location[0]))
        # The engine tests compare with float32 references, which vLLM's attention on a GPU does not compute in.
        if torch.cuda.is_available() and item.get_closest_marker("engine"):
            item.add_marker(pytest.mark.skip(reason="needs vLLM's CPU build"))
    items.sort(key=lambda item: item.get_closest_marker("engine") is None)


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    """Base checkpoint of the embedded SmolLM2-135M-Instruct (bfloat16, tied embeddings, single file)."""
    return base_model()


@pytest.fixture(scope="session")
def smollm2_tokenizer(smollm2_path: Path) -> PreTrainedTokenizerBase:
    """Tokenizer of the embedded model, byte-level."""
    return AutoTokenizer.from_pretrained(smollm2_path)


@pytest.fixture(scope="session")
def smollm2_tfb_path() -> Path:
    """The embedded model as a TFB checkpoint: right noise, rank 8."""
    return tfb_model()


@pytest.fixture(scope="session")
def tiny_llama_path(tmp_path_factory: pytest.TempPathFactory, smollm2_path: Path) -> Path:
    """Random 2-layer Llama, float32, tied embeddings, grouped-query attention, single file."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**_TINY, tie_word_embeddings=True))
    return _save(model, tmp_path_factory.mktemp("tiny") / "Tiny-Llama", smollm2_path)


@pytest.fixture(scope="session")
def tiny_llama_sharded_path(tmp_path_factory: pytest.TempPathFactory, tiny_llama_path: Path) -> Path:
    """The weights of `tiny_llama_path` in several shards with an index."""
    model = LlamaForCausalLM.from_pretrained(tiny_llama_path)
    return _save(model, tmp_path_factory.mktemp("tiny") / "Tiny-Llama-Sharded", tiny_llama_path, max_shard_size="1MB")


@pytest.fixture(scope="session")
def tiny_qwen2_path(tmp_path_factory: pytest.TempPathFactory, smollm2_path: Path) -> Path:
    """Random 2-layer Qwen2, float32, untied embeddings, q/k/v biases that are not zero, single file."""
    torch.manual_seed(1)
    model = Qwen2ForCausalLM(Qwen2Config(**_TINY, tie_word_embeddings=False))
    for name, parameter in model.named_parameters():
        if name.endswith("_proj.bias"):
            torch.nn.init.normal_(parameter, std=0.5)
    return _save(model, tmp_path_factory.mktemp("tiny") / "Tiny-Qwen2", smollm2_path)


@pytest.fixture(scope="session")
def make_tfb(tmp_path_factory: pytest.TempPathFactory) -> MakeTFB:
    """Function (base path, bayes_noise="right", rank=8, bayes_projections=PROJECTIONS) -> TFB checkpoint.

    Each is converted once per session.
    """
    made: dict[tuple[Path, str, int, tuple[str, ...]], Path] = {}

    def make(
        base: Path, bayes_noise: str = "right", rank: int = 8, bayes_projections: tuple[str, ...] = PROJECTIONS
    ) -> Path:
        key = (base, bayes_noise, rank, bayes_projections)
        if key not in made:
            output = tmp_path_factory.mktemp("tfb") / f"TFB-{base.name}"
            keys: dict[str, Any] = {"bayes_noise": bayes_noise, "bayes_projections": bayes_projections}
            made[key] = convert_checkpoint(base, output, rank=rank, **keys)
        return made[key]

    return make


@pytest.fixture(scope="session")
def tiny_llama_tfb_path(tiny_llama_path: Path, make_tfb: MakeTFB) -> Path:
    """`tiny_llama_path` as a TFB checkpoint: right noise, rank 8."""
    return make_tfb(tiny_llama_path)


@pytest.fixture(scope="session")
def tiny_qwen2_tfb_path(tiny_qwen2_path: Path, make_tfb: MakeTFB) -> Path:
    """`tiny_qwen2_path` as a TFB checkpoint: right noise, rank 8."""
    return make_tfb(tiny_qwen2_path)


@pytest.fixture
def data_sets(tmp_path: Path) -> Path:
    """A folder with the data sets ten (10 problems, a blank line, no newline at the end) and small_test (3)."""
    folder = tmp_path / "data"
    folder.mkdir()
    rows = [json.dumps({"unique_id": str(i), "problem": f"What is {i} + 1?", "answer": str(i + 1)}) for i in range(10)]
    (folder / "ten.jsonl").write_text("\n".join([*rows[:5], "", *rows[5:]]))
    (folder / "small_test.jsonl").write_text("\n".join(rows[:3]) + "\n")
    return folder


def _save(model: PreTrainedModel, path: Path, tokenizer_path: Path, max_shard_size: str = "1GB") -> Path:
    model.save_pretrained(path, max_shard_size=max_shard_size)
    AutoTokenizer.from_pretrained(tokenizer_path).save_pretrained(path)
    return path
