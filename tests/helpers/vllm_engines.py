"""Starting and stopping real vLLM engines in tests."""

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file
from torch import Tensor

from bayesian_transformer.uncertainty import FIELDS

_PUBLISHED = {
    "total": "total_uncertainty",
    "aleatoric": "aleatoric_uncertainty",
    "epistemic": "epistemic_uncertainty",
    "implicit_reward": "bayes_implicit_reward",
}


@contextmanager
def engine(path: Path | str, **options: Any) -> Iterator[Any]:
    """A float32 CPU engine on a checkpoint; its processes are gone when the block ends."""
    from vllm import LLM

    defaults = {"dtype": "float32", "enforce_eager": True, "max_model_len": 512, "max_num_seqs": 16}
    llm = LLM(str(path), **defaults | {"kv_cache_memory_bytes": 1 << 28} | options)
    try:
        yield llm
    finally:
        llm.llm_engine.engine_core.shutdown()
        del llm
        gc.collect()


def table(completion: Any) -> np.ndarray:
    """The uncertainties of a completion as [tokens, 8], columns in the order of FIELDS; checks the alignment."""
    assert len(completion.uncertainties) == len(completion.token_ids)
    rows = []
    for token_id, entry in zip(completion.token_ids, completion.uncertainties, strict=True):
        assert list(entry) == [token_id]
        rows.append([getattr(entry[token_id], _PUBLISHED.get(name, name)) for name in FIELDS])
    return np.array(rows, dtype=np.float64).reshape(-1, len(FIELDS))


def token_prompts(prompts: Sequence[Sequence[int]]) -> list[dict[str, list[int]]]:
    return [{"prompt_token_ids": list(ids)} for ids in prompts]


def load_basis(tfb_path: Path) -> dict[str, Tensor]:
    """The basis vectors of a TFB checkpoint by name, float32, read straight from its files."""
    tensors: dict[str, Tensor] = {}
    for file in tfb_path.glob("*.safetensors"):
        tensors |= load_file(file)
    return {name: tensor.float() for name, tensor in tensors.items() if name.endswith("basis_vectors")}
