"""A tiny checkpoint, and what can be done to its files: the tools of the campaign with malformed checkpoints."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from bayesian_transformer.checkpoint import CONFIG_FILE, INDEX_FILE
from bayesian_transformer.conversion import convert_checkpoint

CONVERT, LOAD, VLLM = STAGES = ("convert", "load", "vllm")
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
Q, UP = "model.layers.0.self_attn.q_proj.weight", "model.layers.1.mlp.up_proj.weight"  # in the first, the second
EMBEDDING, NORM, HEAD = "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"
BIAS = "model.layers.0.self_attn.q_proj.bias"
BASIS_OF_Q = "model.layers.0.self_attn.q_proj.basis_vectors"

Change = Callable[[Path], object]


@dataclass(frozen=True)
class Mutation:
    """One way to damage a checkpoint, and what must come of it at each stage.

    The error must be one line that holds all of `says`: the file, and the tensor or key where there is one.
    """

    name: str
    change: Change
    says: tuple[str, ...] = ()
    accepted: Mapping[str, str] = field(default_factory=dict)  # stage: why it is no error there
    stock: Mapping[str, str] = field(default_factory=dict)  # stage: whose own error it is, in whose words
    stages: tuple[str, ...] = STAGES
    late: bool = False  # vLLM finds out when the engine starts, not when its configuration is made


def accepted(reason: str, *stages: str) -> dict[str, str]:
    """`reason` for some stages, or all."""
    return dict.fromkeys(stages or STAGES, reason)


def make_checkpoints(folder: Path) -> tuple[Path, Path]:
    """A Llama of two layers in two shards, and the TFB checkpoint of it in three."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 64, "hidden_size": 64, "intermediate_size": 96, "max_position_embeddings": 64}
    heads = {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32}
    # With a dtype, as real models have one: to find it, vLLM would read the headers itself, before the plugin is asked.
    more = {"dtype": "float32", "bos_token_id": 1, "eos_token_id": 2, "architectures": ["LlamaForCausalLM"]}
    config = LlamaConfig(**sizes, **heads, **more)
    base = folder / "base"
    config.save_pretrained(base)
    tensors = {name: tensor.contiguous() for name, tensor in LlamaForCausalLM(config).state_dict().items()}
    shards = {name: FIRST if ".layers.0." in name or name == EMBEDDING else SECOND for name in tensors}
    for shard in (FIRST, SECOND):
        own = {name: tensor for name, tensor in tensors.items() if shards[name] == shard}
        save_file(own, base / shard, metadata={"format": "pt"})
    write_json(base / INDEX_FILE, {"metadata": {"total_size": 0}, "weight_map": shards})
    write_json(base / "tokenizer.json", {"model": {}, "added_tokens": []})
    return base, convert_checkpoint(base, folder / "tfb", rank=4)


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value))


def raw(path: Path) -> tuple[dict[str, Any], bytes]:
    """The header and the data of a safetensors file."""
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def header_text(text: Callable[[str], str] | str, file: str = FIRST, length: int | None = None) -> Change:
    """Replace the header as text, with its true length unless another one is given."""

    def change(folder: Path) -> None:
        header, data = raw(folder / file)
        new = (text if isinstance(text, str) else text(json.dumps(header))).encode("utf-8", "surrogateescape")
        size = (len(new) if length is None else length).to_bytes(8, "little")
        (folder / file).write_bytes(size + new + data)

    return change


def header(edit: Callable[[dict[str, Any]], object], file: str = FIRST) -> Change:
    """Edit the header as an object."""

    def change(folder: Path) -> None:
        found, data = raw(folder / file)
        edit(found)
        new = json.dumps(found).encode()
        (folder / file).write_bytes(len(new).to_bytes(8, "little") + new + data)

    return change


def entry(name: str, **keys: Any) -> Change:
    """Replace keys of a tensor's entry in the header of the first shard."""
    return header(lambda found: found[name].update(keys))


def content(edit: Callable[[bytes], bytes], file: str = FIRST) -> Change:
    """Replace the bytes of a file."""
    return lambda folder: (folder / file).write_bytes(edit((folder / file).read_bytes()))


def text(file: str, value: str | bytes) -> Change:
    """Write a file."""
    return lambda folder: (folder / file).write_bytes(value if isinstance(value, bytes) else value.encode())


def tensors(edit: Callable[[dict[str, Tensor]], object], file: str = FIRST) -> Change:
    """Edit the tensors of a file, which is well-formed afterwards, and the index accordingly."""

    def change(folder: Path) -> None:
        found = load_file(folder / file)
        before = set(found)
        edit(found)
        save_file({name: t.contiguous() for name, t in found.items()}, folder / file, metadata={"format": "pt"})
        index = json.loads((folder / INDEX_FILE).read_text())
        for name in before - found.keys():
            del index["weight_map"][name]
        write_json(folder / INDEX_FILE, index | {"weight_map": index["weight_map"] | dict.fromkeys(found, file)})

    return change


def replace(name: str, edit: Callable[[Tensor], Tensor], file: str = FIRST) -> Change:
    """Replace one tensor."""
    return tensors(lambda found: found.update({name: edit(found[name].clone())}), file)


def poison(name: str, value: float, file: str = FIRST) -> Change:
    """Set the last element of a tensor."""

    def edit(tensor: Tensor) -> Tensor:
        tensor.view(-1)[-1] = value
        return tensor

    return replace(name, edit, file)


def json_file(file: str, edit: Callable[[dict[str, Any]], object]) -> Change:
    """Edit a JSON file."""

    def change(folder: Path) -> None:
        value = json.loads((folder / file).read_text())
        edit(value)
        write_json(folder / file, value)

    return change


def config(**keys: Any) -> Change:
    """Replace keys of config.json."""
    return json_file(CONFIG_FILE, lambda found: found.update(keys))


def index(**keys: Any) -> Change:
    """Replace keys of the index."""
    return json_file(INDEX_FILE, lambda found: found.update(keys))


def mapped(name: str, file: Any) -> Change:
    """Let the index say that a tensor is in another file."""
    return json_file(INDEX_FILE, lambda found: found["weight_map"].update({name: file}))


def linked(file: str, target: str) -> Change:
    """Put a link in place of a file."""

    def change(folder: Path) -> None:
        (folder / file).unlink(missing_ok=True)
        (folder / file).symlink_to(target)

    return change


def together(*changes: Change) -> Change:
    """Several changes, one after the other."""
    return lambda folder: [change(folder) for change in changes]
