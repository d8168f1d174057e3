"""One token scored end to end in transformers, from the files of a checkpoint to its eight quantities."""

import tempfile
from pathlib import Path

import torch

from ...quantities import FIELDS
from ...scoring import score
from ..finding import Finding
from ..protocol import doing
from .differences import Differences
from .tiny_model import NOISE, write_tiny_model

_PROMPT, _TOKEN, _SEED = [5, 6, 7, 8], 9, 3


def check() -> Finding:
    """On the GPU where there is one, in float32; compared with what a plain forward of the base model gives."""
    from transformers import AutoModelForCausalLM  # knows the TFB models, as our package is imported

    device = "cuda" if torch.cuda.is_available() else "cpu"
    with tempfile.TemporaryDirectory(prefix="tokur-doctor-") as folder:
        path = write_tiny_model(Path(folder), torch.float32)
        doing("loading the TFB model with transformers")
        model = AutoModelForCausalLM.from_pretrained(path, **NOISE).to(device).eval()
        base = AutoModelForCausalLM.from_pretrained(path.with_name("base")).eval()
    doing(f"scoring a token on {device}")
    row = score(model, _PROMPT, [_TOKEN], seed=_SEED).stack()[0].cpu()
    got = dict(zip(FIELDS, row, strict=True))
    with torch.no_grad():
        logprobs = base(torch.tensor([_PROMPT])).logits[0, -1].double().log_softmax(-1)
    differences = Differences()
    differences.compare("logprob", got["logprob"], logprobs[_TOKEN], 1e-4)
    differences.compare("entropy", got["entropy"], -(logprobs.exp() * logprobs).sum(), 1e-4)
    differences.compare("total", got["total"], got["aleatoric"] + got["epistemic"], 1e-5)
    if not got["epistemic"] > 1e-3:
        differences.wrong.append(f"epistemic: {got['epistemic']:.6g} though there is noise")
    what = f"{device}: TU {got['total']:.3f}, AU {got['aleatoric']:.3f}, EU {got['epistemic']:.3f} nats; parts"
    return differences.finding(what, unit="nats")
