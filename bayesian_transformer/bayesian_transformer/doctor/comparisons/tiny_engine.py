"""A vLLM engine on a tiny random TFB model, compared with transformers: the eight quantities of every token.

On a CPU in float32. On a GPU in float16 eagerly, as it is the finer one, and in bfloat16 with CUDA graphs, as models
are served; there the reference still computes in float32 on the CPU, with the same 16 bit weights.

Never yet run on a GPU: both, but for what they share with the CPU. The tolerances of 16 bit numbers are ten times the
differences that the CPU build shows in them.
"""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...quantities import FIELDS
from ..finding import Finding, error
from ..protocol import doing
from .cases import short
from .differences import Differences, announce
from .tiny_model import LENGTH, NOISE, write_tiny_model

PROMPTS = ([5, 6, 7, 8, 9, 10, 11] * 4, [3], [100, 200, 300])
SEEDS = (3, -(2**40) - 1, 2**62 + 5)
TOKENS = 8
# Absolute, in nats: of the entropies, and of what hangs on the logits of single tokens.
TOLERANCES = {torch.float32: (1e-4, 1e-4), torch.float16: (2e-3, 0.03), torch.bfloat16: (0.015, 0.2)}
_OF_SINGLE_TOKENS = {"implicit_reward", "logprob", "confidence"}


def eager() -> Finding:
    """An engine within this process, without compiled code and graphs."""
    # Another process would import everything once more; a crash here is caught as well as one there.
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    dtype = torch.float16 if torch.cuda.is_available() else torch.float32
    return _check(dtype, enforce_eager=True)


def graphs() -> Finding:
    """An engine as users start it, in a process of its own, with compiled code and CUDA graphs."""
    return _check(torch.bfloat16, compilation_config={"cudagraph_capture_sizes": [1, 2, 4]})


def _check(dtype: torch.dtype, **options: Any) -> Finding:
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    with tempfile.TemporaryDirectory(prefix="tokur-doctor-") as folder:
        path = write_tiny_model(Path(folder), dtype)
        decoded = _decode(path, dtype, options)
        doing("scoring its tokens with transformers")
        expected = _score(path, [tokens for tokens, _ in decoded])
    differences = Differences()
    for request, ((_, got), wanted) in enumerate(zip(decoded, expected, strict=True)):
        compare(differences, f"request {request}", got, wanted, dtype)
    least = min(wanted[:, FIELDS.index("epistemic")].mean().item() for wanted in expected)
    if least < 2 * TOLERANCES[dtype][0]:
        return error(f"the reference has hardly any noise: mean epistemic uncertainty {least:.1e} nats")
    return differences.finding(f"{TOKENS * len(PROMPTS)} tokens in {short(dtype)}, vLLM and transformers", unit="nats")


def compare(differences: Differences, request: str, got: Tensor, wanted: Tensor, dtype: torch.dtype) -> None:
    """Compare quantities [tokens, 8] column by column."""
    for column, name in enumerate(FIELDS):
        tolerance = TOLERANCES[dtype][name in _OF_SINGLE_TOKENS]
        differences.compare(announce(f"{name} of {request}"), got[:, column], wanted[:, column], tolerance)


def _decode(path: Path, dtype: torch.dtype, options: dict[str, Any]) -> list[tuple[list[int], Tensor]]:
    """Tokens that the engine generated for each prompt, and their quantities, float32 [tokens, 8]."""
    doing("importing vllm")
    from vllm import LLM, SamplingParams

    doing("starting the engine")
    llm = LLM(
        str(path),
        dtype=short(dtype),
        max_model_len=LENGTH,
        max_num_seqs=4,
        skip_tokenizer_init=True,
        kv_cache_memory_bytes=1 << 26,  # so little that nothing is measured
        gpu_memory_utilization=0.05,  # what must be free on a GPU; others may use it too
        hf_overrides=NOISE,
        **options,
    )
    try:
        mode = llm.llm_engine.vllm_config.compilation_config.cudagraph_mode
        if not options.get("enforce_eager") and (mode is None or mode.name == "NONE"):
            raise ValueError("the engine works without CUDA graphs, though it was not asked to")
        doing("generating")
        sampling = {"temperature": 0.0, "max_tokens": TOKENS, "ignore_eos": True, "detokenize": False}
        parameters = [SamplingParams(seed=seed, **sampling) for seed in SEEDS]
        prompts = [{"prompt_token_ids": list(prompt)} for prompt in PROMPTS]
        outputs = [output.outputs[0] for output in llm.generate(prompts, parameters, use_tqdm=False)]
    finally:
        llm.llm_engine.engine_core.shutdown()
    return [(list(output.token_ids), _table(output)) for output in outputs]


def _table(output: Any) -> Tensor:
    """The uncertainties of a completion, [tokens, 8]; ValueError if there is not one for each token."""
    uncertainties = getattr(output, "uncertainties", None)
    if uncertainties is None:
        raise ValueError("the engine's outputs carry no uncertainties: the plugin is not at work in it")
    if [list(entry) for entry in uncertainties] != [[token] for token in output.token_ids]:
        raise ValueError("the engine's uncertainties do not belong to its tokens")
    return torch.tensor([entry[token].row() for token, entry in zip(output.token_ids, uncertainties, strict=True)])


def _score(path: Path, responses: Sequence[Sequence[int]]) -> list[Tensor]:
    """The same quantities from transformers, in float32 on the CPU."""
    from transformers import AutoModelForCausalLM

    from ...scoring import score

    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, **NOISE).eval()
    return [
        score(model, prompt, list(response), seed=seed).stack()
        for prompt, response, seed in zip(PROMPTS, responses, SEEDS, strict=True)
    ]
