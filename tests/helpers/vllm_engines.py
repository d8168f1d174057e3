"""Starting and stopping real vLLM engines in tests."""

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file
from torch import Tensor

from bayesian_transformer.uncertainty import FIELDS
from bayesian_transformer.vllm_plugin import kernels


@contextmanager
def engine(path: Path | str, *, in_process: bool = False, kernel_mode: str = "auto", **options: Any) -> Iterator[Any]:
    """A float32 CPU engine on a checkpoint; it is gone when the block ends.

    Args:
        in_process: run the engine in this process, not in one of its own as users have it. It starts several times as
            fast, and computes the same. One at a time: it ends that of `shared_engine`.
        kernel_mode: what TOKUR_KERNELS says.
        options: of vllm.LLM.
    """
    from vllm import LLM

    if in_process:
        close_shared()
        _watch_transformers()
    quickly = _without_searches if in_process else nullcontext
    defaults = {"dtype": "float32", "enforce_eager": True, "max_model_len": 512, "max_num_seqs": 16}
    # While it starts; what other tests start must not see it.
    with pytest.MonkeyPatch.context() as environment, quickly():
        environment.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0" if in_process else "1")
        environment.setenv("TOKUR_KERNELS", kernel_mode)
        try:
            llm = LLM(str(path), **defaults | {"kv_cache_memory_bytes": 1 << 28} | options)
        except Exception:
            if in_process:
                _forget()
            raise
    try:
        yield llm
    finally:
        with quickly():
            llm.llm_engine.engine_core.shutdown()
        del llm
        if in_process:  # else it would take from a shared engine what both would have in this process
            _forget()


_shared: list[tuple[str, Any, Any]] = []  # what it was made with, its context and the engine; at most one


def shared_engine(path: Path, **options: Any) -> Any:
    """An engine in this process that stays for the next test that wants the same, until another one is started."""
    made_with = f"{path} {options}"
    if not _shared or _shared[0][0] != made_with:
        context = engine(path, in_process=True, **options)
        _shared.append((made_with, context, context.__enter__()))
    return _shared[0][2]


def close_shared() -> None:
    """End the engine of `shared_engine`, if there is one."""
    while _shared:
        _, context, _ = _shared.pop()
        context.__exit__(None, None, None)


_changed: list[tuple[Any, tuple[type, ...], dict[str, Any]]] = []  # classes, their bases and attributes as they were


@cache
def _watch_transformers() -> None:
    """Note the classes of transformers that vLLM's transformers backend changes, for good, to those it can compile."""
    from vllm.model_executor.models.transformers.base import Base

    change = Base._decorate_cls_for_torch_compile

    def note_and_change(self: Any, cls: Any, *args: Any, **kwargs: Any) -> None:
        _changed.append((cls, cls.__bases__, dict(vars(cls))))
        change(self, cls, *args, **kwargs)

    Base._decorate_cls_for_torch_compile = note_and_change


def _forget() -> None:
    """Undo what an engine in this process leaves behind, its reading of the environment included."""
    from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

    while _changed:
        cls, bases, attributes = _changed.pop()
        cls.__bases__ = bases
        for name, value in list(vars(cls).items()):
            if name not in attributes:
                delattr(cls, name)
            elif value is not attributes[name]:
                setattr(cls, name, attributes[name])
    with _without_searches():
        cleanup_dist_env_and_memory()
    kernels.mode.cache_clear()
    gc.collect()


@contextmanager
def _without_searches() -> Iterator[None]:
    """Leave out what takes most of the time of starting and ending a tiny model's engine in this process.

    vLLM has the heap searched for garbage nine times, each time half a second for all that torch and vLLM are, and it
    inspects a model's class in a process of its own, so as not to touch CUDA.
    """
    from vllm.model_executor.models import registry

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(gc, "collect", lambda *_: 0)
        patched.setattr(registry, "_run_in_subprocess", lambda inspect: inspect())
        yield


def table(completion: Any) -> np.ndarray:
    """The uncertainties of a completion as [tokens, 8], columns in the order of FIELDS; checks the alignment."""
    assert len(completion.uncertainties) == len(completion.token_ids)
    rows = []
    for token_id, entry in zip(completion.token_ids, completion.uncertainties, strict=True):
        assert list(entry) == [token_id]
        rows.append(entry[token_id].row())
    return np.array(rows, dtype=np.float64).reshape(-1, len(FIELDS))


def token_prompts(prompts: Sequence[Sequence[int]]) -> list[dict[str, list[int]]]:
    return [{"prompt_token_ids": list(ids)} for ids in prompts]


def load_basis(tfb_path: Path) -> dict[str, Tensor]:
    """The basis vectors of a TFB checkpoint by name, float32, read straight from its files."""
    tensors: dict[str, Tensor] = {}
    for file in tfb_path.glob("*.safetensors"):
        tensors |= load_file(file)
    return {name: tensor.float() for name, tensor in tensors.items() if name.endswith("basis_vectors")}
