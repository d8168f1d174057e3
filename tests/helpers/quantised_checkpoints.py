"""Quantised siblings of tiny checkpoints, in the formats that vLLM's CPU build has kernels for.

The rounding is the plainest: symmetric, to the nearest step, scales from the largest magnitude. So the weights that a
quantised model computes with are known exactly, and are written as a plain checkpoint beside it.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

GROUP = 32  # inputs that share a scale in the 4-bit formats
_AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # of the eight outputs in an int32
_LINEAR = ("q_proj", "k_proj", "v_proj", "qkv_proj", "o_proj", "gate_proj", "up_proj", "gate_up_proj", "down_proj")


class Quantised(NamedTuple):
    """A quantised checkpoint and a plain one that holds the weights it stands for, in float32."""

    path: Path
    dequantised: Path


def quantise(base: Path, folder: Path, scheme: str) -> Quantised:
    """Write the siblings of the checkpoint `base` (one file) to `folder`; `scheme` is a key of SCHEMES."""
    pack, quantization_config = SCHEMES[scheme]
    packed: dict[str, Tensor] = {}
    plain: dict[str, Tensor] = {}
    for name, tensor in load_file(base / "model.safetensors").items():
        prefix, _, kind = name.rpartition(".")
        if kind == "weight" and prefix.endswith(_LINEAR):
            parts, plain[name] = pack(tensor.float())
            packed |= {f"{prefix}.{part}": value.contiguous() for part, value in parts.items()}
        else:
            packed[name] = plain[name] = tensor
    config = json.loads((base / "config.json").read_text())
    quantised = config | {"quantization_config": quantization_config}
    for path, tensors, written in ((folder / scheme, packed, quantised), (folder / f"{scheme}-plain", plain, config)):
        shutil.copytree(base, path, ignore=shutil.ignore_patterns("model.safetensors"))
        save_file(tensors, path / "model.safetensors", {"format": "pt"})
        (path / "config.json").write_text(json.dumps(written))
    return Quantised(folder / scheme, folder / f"{scheme}-plain")


def _rounded(weight: Tensor, bits: int, group: int) -> tuple[Tensor, Tensor]:
    """Integers [out, in] and scales [out, in / group], so that an integer times its scale is nearest to the weight."""
    grouped = weight.unflatten(1, (-1, group))
    scales = (grouped.abs().amax(-1, keepdim=True) / (2 ** (bits - 1) - 1)).to(torch.bfloat16).float()
    return (grouped / scales).round().clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1).flatten(1).int(), scales[..., 0]


def _packed(values: Tensor) -> Tensor:
    """Eight numbers from 0 to 15 of the last dimension in one int32, the first in the lowest bits."""
    shifts = 4 * torch.arange(8)
    words = (values.long().unflatten(-1, (-1, 8)) << shifts).sum(-1)
    return torch.where(words >= 2**31, words - 2**32, words).int()


def _int8(weight: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    integers, scales = _rounded(weight, 8, weight.shape[1])
    return {"weight": integers.to(torch.int8), "weight_scale": scales}, integers * scales


def _fp8(weight: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    scales = weight.abs().amax(1, keepdim=True) / torch.finfo(torch.float8_e4m3fn).max
    rounded = (weight / scales).to(torch.float8_e4m3fn)
    return {"weight": rounded, "weight_scale": scales}, rounded.float() * scales


def _four_bits(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Numbers from 0 to 15 [out, in], of which 8 stands for zero, scales [out, groups], and what they stand for."""
    integers, scales = _rounded(weight, 4, GROUP)
    return integers + 8, scales, (integers.unflatten(1, (-1, GROUP)) * scales[..., None]).flatten(1)


def _w4a16(weight: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    numbers, scales, plain = _four_bits(weight)
    shape = torch.tensor(weight.shape)
    return {"weight_packed": _packed(numbers), "weight_scale": scales, "weight_shape": shape}, plain


def _gptq(weight: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    numbers, scales, plain = _four_bits(weight)
    zeros = torch.full_like(scales.T, 7, dtype=torch.int32)  # this format stores one less
    order = torch.arange(weight.shape[1], dtype=torch.int32) // GROUP
    return {"qweight": _packed(numbers).T, "qzeros": _packed(zeros), "scales": scales.T, "g_idx": order}, plain


def _awq(weight: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    numbers, scales, plain = _four_bits(weight)
    numbers = numbers.T.unflatten(1, (-1, 8))[..., _AWQ_ORDER].flatten(1)
    zeros = torch.full_like(scales.T, 8, dtype=torch.int32)
    return {"qweight": _packed(numbers), "qzeros": _packed(zeros), "scales": scales.T}, plain


def _compressed_tensors(layout: str, weights: dict[str, Any], inputs: dict[str, Any] | None) -> dict[str, Any]:
    group = {"targets": ["Linear"], "weights": weights, "input_activations": inputs, "output_activations": None}
    return {
        "quant_method": "compressed-tensors",
        "format": layout,
        "quantization_status": "compressed",
        "ignore": ["lm_head"],
        "config_groups": {"group_0": group},
    }


def _numbers(bits: int, strategy: str, **more: Any) -> dict[str, Any]:
    return {"num_bits": bits, "type": "int", "strategy": strategy, "symmetric": True, "dynamic": False} | more


_FLOATS = {"type": "float"}


_Pack = Callable[[Tensor], tuple[dict[str, Tensor], Tensor]]
SCHEMES: dict[str, tuple[_Pack, dict[str, Any]]] = {
    "int8": (
        _int8,
        _compressed_tensors("int-quantized", _numbers(8, "channel"), _numbers(8, "token", dynamic=True)),
    ),
    "fp8": (
        _fp8,
        _compressed_tensors(
            "float-quantized", _numbers(8, "channel", **_FLOATS), _numbers(8, "token", **_FLOATS | {"dynamic": True})
        ),
    ),
    "w4a16": (_w4a16, _compressed_tensors("pack-quantized", _numbers(4, "group", group_size=GROUP), None)),
    "gptq": (_gptq, {"quant_method": "gptq", "bits": 4, "group_size": GROUP, "desc_act": False, "sym": True}),
    "awq": (_awq, {"quant_method": "awq", "bits": 4, "group_size": GROUP, "zero_point": True, "version": "gemm"}),
}
