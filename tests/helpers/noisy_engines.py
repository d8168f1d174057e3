"""The engines that several test files share: one for each checkpoint, noise direction and choice of kernels."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoModelForCausalLM

from tests.helpers.vllm_engines import load_basis

SIGMA, NUM_SAMPLES = 0.1, 5
# SmolLM2-135M, and small random models: Qwen2 with biases, and Llama.
CHECKPOINTS = [f"{family} {kind}" for family in ("smollm2", "qwen2", "llama") for kind in ("right", "left")]
KERNELS = ("auto", "plain")  # on the fast paths and without them


class Case(NamedTuple):
    """A TFB checkpoint, the base checkpoint it came from, and how many repeats an independent mean affords."""

    base: Path
    tfb: Path
    kind: str
    repeats: int

    def reference_model(self) -> tuple[Any, dict[str, torch.Tensor]]:
        """The base model in plain transformers, and the basis vectors by name: nothing of ours computes."""
        model = AutoModelForCausalLM.from_pretrained(self.base, dtype=torch.float32).eval()
        return model, load_basis(self.tfb)


class NoisyEngine(NamedTuple):
    """An engine in this process with noise SIGMA and NUM_SAMPLES weight samples."""

    llm: Any
    case: Case
