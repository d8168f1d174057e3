"""One token scored end to end in transformers, from the files of a checkpoint to its eight quantities."""

import copy
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from ...layers import low_rank_noise
from ...noise import site_index, standard_normal
from ...noise_config import PROJECTIONS
from ...quantities import FIELDS
from ...scoring import score
from ...uncertainty import token_uncertainty
from ..finding import Finding
from ..protocol import doing
from .differences import Differences
from .tiny_model import NOISE, write_tiny_model

_PROMPT, _TOKEN, _SEED = [5, 6, 7, 8], 9, 3


def check() -> Finding:
    """On the GPU where there is one, in float32; compared with forwards of the base model on the CPU."""
    from transformers import AutoModelForCausalLM  # knows the TFB models, as our package is imported

    device = "cuda" if torch.cuda.is_available() else "cpu"
    with tempfile.TemporaryDirectory(prefix="tokur-doctor-") as folder:
        path = write_tiny_model(Path(folder), torch.float32)
        doing("loading the TFB model with transformers")
        model = AutoModelForCausalLM.from_pretrained(path, **NOISE).eval()
        base = AutoModelForCausalLM.from_pretrained(path.with_name("base")).eval()
    doing("computing every weight sample in a forward of its own")
    logits = sample_logits(base, model.state_dict(), model.noise.bayes_noise)
    wanted = token_uncertainty(logits.unsqueeze(1), torch.tensor([_TOKEN])).stack()[0]
    doing(f"scoring a token on {device}")
    got = score(model.to(device), _PROMPT, [_TOKEN], seed=_SEED).stack()[0].cpu()
    differences = Differences()
    for name, ours, theirs in zip(FIELDS, got, wanted, strict=True):
        differences.compare(name, ours, theirs, 1e-4, 1e-4)
    found = dict(zip(FIELDS, got.tolist(), strict=True))
    if not found["epistemic"] > 1e-3:
        differences.wrong.append(f"epistemic: {found['epistemic']:.6g} though there is noise")
    what = f"{device}: TU {found['total']:.3f}, AU {found['aleatoric']:.3f}, EU {found['epistemic']:.3f} nats; parts"
    return differences.finding(what, unit="nats")


@torch.no_grad()
def sample_logits(base: Any, tensors: Mapping[str, Tensor], kind: str) -> Tensor:
    """Logits [S, V] after the prompt, one forward for each weight sample, the noise-free one first.

    `base` is the model without noise, `tensors` those of the TFB checkpoint. The prefix is noise-free in every sample.
    """
    from transformers import DynamicCache

    prefix = DynamicCache(config=base.config)
    base(input_ids=torch.tensor([_PROMPT[:-1]]), past_key_values=prefix, use_cache=True)
    logits = []
    for sample in range(int(NOISE["num_samples"])):
        handles = _add_noise(base, tensors, kind, sample) if sample else []
        output = base(input_ids=torch.tensor([_PROMPT[-1:]]), past_key_values=copy.deepcopy(prefix), use_cache=True)
        logits.append(output.logits[0, -1])
        for handle in handles:
            handle.remove()
    return torch.stack(logits)


def _add_noise(base: Any, tensors: Mapping[str, Tensor], kind: str, sample: int) -> list[RemovableHandle]:
    """Let the outputs of all noisy projections carry the noise of one weight sample at the prompt's last position."""
    handles = []
    for layer, block in enumerate(base.model.layers):
        for name in PROJECTIONS:
            basis = tensors[f"model.layers.{layer}.self_attn.{name}.basis_vectors"]
            counters = torch.tensor([_SEED, len(_PROMPT) - 1, site_index(layer, name), sample])
            module = getattr(block.self_attn, name)
            width = basis.shape[1] if kind == "right" else module.out_features
            z = standard_normal(counters[0], counters[1], counters[2], counters[3], width)

            def add(module: Any, args: Any, output: Tensor, basis: Tensor = basis, z: Tensor = z) -> Tensor:
                return output + low_rank_noise(args[0], basis, z, NOISE["bayes_sigma"], kind)

            handles.append(module.register_forward_hook(add))
    return handles
