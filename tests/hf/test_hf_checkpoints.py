"""Loading, saving and checking TFB checkpoints with transformers."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from bayesian_transformer.config import TFBLlamaConfig, TFBQwen2Config
from bayesian_transformer.layers import basis_vectors
from bayesian_transformer.vllm_models.tfb_llama import TFBLlamaForCausalLM, TFBQwen2ForCausalLM

BASIS_SHARD = "model-00002-of-00002.safetensors"
NAME = "model.layers.1.self_attn.v_proj.basis_vectors"


def test_auto_classes_give_the_tfb_models(tiny_llama_tfb_path: Path, tiny_qwen2_tfb_path: Path) -> None:
    expected: list[tuple[Path, Any, Any]] = [
        (tiny_llama_tfb_path, TFBLlamaForCausalLM, TFBLlamaConfig),
        (tiny_qwen2_tfb_path, TFBQwen2ForCausalLM, TFBQwen2Config),
    ]
    for path, model_class, config_class in expected:
        assert type(AutoConfig.from_pretrained(path)) is config_class
        model = AutoModelForCausalLM.from_pretrained(path)
        assert type(model) is model_class
        assert model.num_samples == 10
        text = "The tokens <|im_end|> are 12,\n those"
        assert AutoTokenizer.from_pretrained(path).decode(AutoTokenizer.from_pretrained(path)(text).input_ids) == text


def test_save_and_load_round_trip(tiny_qwen2_tfb_path: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_qwen2_tfb_path)
    model.set_sigma(0.25)
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert again.noise.bayes_sigma == 0.25
    expected, got = model.state_dict(), again.state_dict()
    assert expected.keys() == got.keys()
    assert NAME in got
    assert all(torch.equal(expected[name], got[name]) for name in got)
    before, after = (json.loads((p / "config.json").read_text()) for p in (tiny_qwen2_tfb_path, tmp_path))
    assert after["architectures"] == before["architectures"] == ["VllmTFBQwen2ForCausalLM"]
    assert after["model_type"] == "tfb_qwen2"


@pytest.mark.parametrize(
    ("base", "kind"), [("smollm2_path", "right"), ("tiny_llama_sharded_path", "left"), ("tiny_qwen2_path", "left")]
)
def test_a_converted_checkpoint_is_saved_as_it_was(
    request: pytest.FixtureRequest, make_tfb: Any, tmp_path: Path, base: str, kind: str
) -> None:
    """Tied and untied embeddings, bfloat16 and float32, one file or shards: the same tensors, bit by bit."""
    path = make_tfb(request.getfixturevalue(base), kind)
    AutoModelForCausalLM.from_pretrained(path, dtype="auto").save_pretrained(tmp_path)
    expected, got = ({n: t for f in p.glob("*.safetensors") for n, t in load_file(f).items()} for p in (path, tmp_path))
    assert got.keys() == expected.keys()
    assert all(got[name].dtype == expected[name].dtype and torch.equal(got[name], expected[name]) for name in got)
    noise = [AutoModelForCausalLM.from_pretrained(p).noise for p in (path, tmp_path)]
    assert noise[0] == noise[1]
    assert noise[0].bayes_noise == kind


def test_loading_keeps_the_basis_and_casts_it(tiny_llama_tfb_path: Path) -> None:
    stored = load_file(tiny_llama_tfb_path / BASIS_SHARD)[NAME]
    for dtype in (torch.float32, torch.bfloat16):
        model = AutoModelForCausalLM.from_pretrained(tiny_llama_tfb_path, dtype=dtype)
        assert torch.equal(model.get_buffer(NAME), stored.to(dtype))


def test_a_fresh_model_computes_its_basis() -> None:
    keys: dict[str, Any] = {
        "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
        "num_key_value_heads": 1, "vocab_size": 50, "bayes_noise": "left", "basis_idx": [1, 3],
    }  # fmt: skip
    model = AutoModelForCausalLM.from_config(TFBLlamaConfig(**keys))
    model.compute_basis()
    projection = model.model.layers[0].self_attn.v_proj
    assert torch.equal(projection.basis_vectors, basis_vectors(projection.weight, [1, 3], "left"))
    model.config.basis_idx = list(range(33))
    with pytest.raises(ValueError, match=r"v_proj\.weight: rank 33 .*smaller rank"):
        model.compute_basis()


def damaged(source: Path, target: Path, change: Any) -> Path:
    """A copy of a checkpoint whose basis shard went through `change`."""
    shutil.copytree(source, target)
    tensors = load_file(target / BASIS_SHARD)
    change(tensors)
    save_file(tensors, target / BASIS_SHARD, metadata={"format": "pt"})
    index = json.loads((target / "model.safetensors.index.json").read_text())
    index["weight_map"] = {
        name: shard for name, shard in index["weight_map"].items() if shard != BASIS_SHARD or name in tensors
    }
    (target / "model.safetensors.index.json").write_text(json.dumps(index))
    return target


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(NAME), "is missing"),
        (lambda t: t.update({NAME: t[NAME][:, :5].contiguous()}), r"has shape \[64, 5\] where .* \[64, 8\]"),
        (lambda t: t.update({NAME: t[NAME][:32].contiguous()}), r"has shape \[32, 8\]"),
        (lambda t: t[NAME].fill_(float("nan")), "finite"),
        (lambda t: t.update({NAME: (t[NAME] * 100).to(torch.int8)}), "dtype I8 is not supported"),
    ],
)
def test_bad_basis_is_named(tiny_llama_tfb_path: Path, tmp_path: Path, change: Any, message: str) -> None:
    path = damaged(tiny_llama_tfb_path, tmp_path / "model", change)
    with pytest.raises(ValueError, match=message) as caught:
        AutoModelForCausalLM.from_pretrained(path)
    assert NAME in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"), [("bayes_noise", "up"), ("bayes_sigma", -1.0), ("num_samples", 0), ("basis_idx", [])]
)
def test_bad_config_value_is_named(tiny_llama_tfb_path: Path, key: str, value: Any) -> None:
    with pytest.raises(ValueError, match=key):
        AutoModelForCausalLM.from_pretrained(tiny_llama_tfb_path, **{key: value})


def test_a_rank_that_the_config_lacks_can_be_given(tiny_llama_path: Path, make_tfb: Any, tmp_path: Path) -> None:
    """As the error about a basis of another shape advises."""
    path = Path(shutil.copytree(make_tfb(tiny_llama_path, "right", 4), tmp_path / "tfb"))
    config = json.loads((path / "config.json").read_text())
    del config["basis_idx"]
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="basis_idx"):
        TFBLlamaForCausalLM.from_pretrained(path)
    assert TFBLlamaForCausalLM.from_pretrained(path, basis_idx=[0, 1, 2, 3]).noise.rank == 4


def test_set_sigma_refuses_nonsense(tiny_llama_tfb_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_llama_tfb_path)
    with pytest.raises(ValueError, match="bayes_sigma"):
        model.set_sigma(float("inf"))
    assert model.noise.bayes_sigma == 0.1


def test_import_does_not_load_vllm() -> None:
    code = "import sys, bayesian_transformer; sys.exit('vllm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
