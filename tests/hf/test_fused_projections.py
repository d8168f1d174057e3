"""A Phi-3, whose checkpoint fuses q, k and v, against the Llama of the same weights, whose checkpoint does not."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, Phi3Config, Phi3ForCausalLM

from bayesian_transformer.scoring import score
from bayesian_transformer.uncertainty import FIELDS
from tests.helpers.reference import worst_error
from tests.helpers.vllm_engines import load_basis

HEADS, KV_HEADS, HEAD = 4, 2, 16
SIZES = {
    "vocab_size": 100,
    "hidden_size": HEADS * HEAD,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "max_position_embeddings": 64,
    "initializer_range": 0.1,
    "rms_norm_eps": 1e-5,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Base checkpoints of one model, as Phi-3 and as Llama."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("twins")
    phi3 = Phi3ForCausalLM(Phi3Config(**SIZES))
    phi3.save_pretrained(folder / "phi3")
    llama = LlamaForCausalLM(LlamaConfig(**SIZES, mlp_bias=False, attention_bias=False))
    weights: dict[str, torch.Tensor] = {}
    for name, tensor in load_file(folder / "phi3" / "model.safetensors").items():
        if name.endswith("qkv_proj.weight"):
            parts = dict(zip("qkv", tensor.split([HEADS * HEAD, KV_HEADS * HEAD, KV_HEADS * HEAD]), strict=True))
            weights |= {name.replace("qkv_proj", f"{part}_proj"): rows for part, rows in parts.items()}
        elif name.endswith("gate_up_proj.weight"):
            gate, up = tensor.chunk(2)
            weights |= {name.replace("gate_up", "gate"): gate, name.replace("gate_up", "up"): up}
        else:
            weights[name] = tensor
    llama.load_state_dict(weights)
    llama.save_pretrained(folder / "llama")
    return folder / "phi3", folder / "llama"


@pytest.mark.parametrize("kind", ["right", "left"])
def test_the_fused_model_has_the_numbers_of_the_other(
    twins: tuple[Path, Path], kind: str, make_tfb: Callable[..., Path]
) -> None:
    fused, plain = (make_tfb(path, kind) for path in twins)
    bases, expected = load_basis(fused), load_basis(plain)
    assert bases.keys() == expected.keys()
    assert all(torch.equal(bases[name], expected[name]) for name in expected)
    models = [AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval() for path in (fused, plain)]
    prompt, response = [5, 6, 7, 8, 9], list(range(20, 40))
    tables = [score(model, prompt, response, seed=3).stack().numpy() for model in models]
    assert tables[1][:, FIELDS.index("epistemic")].min() > 1e-4
    assert worst_error(*(dict(zip(FIELDS, table.T, strict=True)) for table in tables)) <= 1


def test_it_is_saved_and_wrapped_like_any_other(
    twins: tuple[Path, Path], tmp_path: Path, make_tfb: Callable[..., Path]
) -> None:
    path = make_tfb(twins[0])
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    model.save_pretrained(tmp_path / "again")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "again", dtype=torch.float32).eval()
    tables = [score(m, [5, 6], [7, 8, 9], seed=1).stack() for m in (model, again)]
    torch.testing.assert_close(*tables, rtol=1e-5, atol=1e-5)
    names = [projection.name for projection in model.noisy_projections]
    assert names == [f"model.layers.{i}.self_attn.{p}" for i in range(2) for p in ("q_proj", "v_proj")]
    before = [projection.basis.clone() for projection in model.noisy_projections]
    model.compute_basis()
    for projection, basis in zip(model.noisy_projections, before, strict=True):
        torch.testing.assert_close(projection.basis, basis)


def test_a_damaged_basis_is_named(twins: tuple[Path, Path], make_tfb: Callable[..., Path]) -> None:
    with pytest.raises(
        ValueError, match=r"q_proj.basis_vectors has shape \[64, 8\] where config.json asks for \[64, 4\]"
    ):
        AutoModelForCausalLM.from_pretrained(make_tfb(twins[0]), basis_idx=list(range(4)), dtype=torch.float32)
