"""Conversion of base checkpoints: what is written, and what is said about input that does not fit."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig

from bayesian_transformer import conversion
from bayesian_transformer.checkpoint import tensor_files
from bayesian_transformer.config import TFBLlamaConfig, TFBQwen2Config
from bayesian_transformer.conversion import convert_checkpoint
from convert_to_tfb import main

BASES = ["tiny_llama_path", "tiny_llama_sharded_path", "tiny_qwen2_path"]
QUERY = "model.layers.1.self_attn.q_proj.weight"


def convert(base: Path, output: Path, *options: str) -> Result:
    return CliRunner().invoke(main, ["--model-path", str(base), "--output-path", str(output), *options])


def tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint, through its index."""
    files = tensor_files(path)
    shards = {shard: load_file(path / shard) for shard in set(files.values())}
    return {name: shards[shard][name] for name, shard in files.items()}


def edit_config(path: Path, **changes: Any) -> None:
    config = json.loads((path / "config.json").read_text()) | changes
    (path / "config.json").write_text(json.dumps(config))


@pytest.fixture
def damaged(tmp_path: Path, tiny_llama_path: Path) -> Path:
    """A copy of a single-file model for a test to damage."""
    return Path(shutil.copytree(tiny_llama_path, tmp_path / "base"))


@pytest.mark.parametrize("base_fixture", BASES)
@pytest.mark.parametrize("kind", ["right", "left"])
@pytest.mark.parametrize("rank", [1, 5])
def test_base_tensors_stay_and_the_basis_spans_the_top_directions(
    base_fixture: str, kind: str, rank: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    base = request.getfixturevalue(base_fixture)
    before = tensors(base)
    result = convert(base, tmp_path / "tfb", "--rank", str(rank), "--bayes-noise", kind)
    assert result.exit_code == 0, result.output
    after = tensors(tmp_path / "tfb")
    added = {name for name in after if name.endswith("basis_vectors")}
    assert set(after) - added == set(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert added == {f"model.layers.{i}.self_attn.{p}.basis_vectors" for i in range(2) for p in ("q_proj", "v_proj")}
    for name in added:
        weight = before[name.replace("basis_vectors", "weight")].double()
        u, _, vt = torch.linalg.svd(weight, full_matrices=False)
        expected = (u if kind == "right" else vt.T)[:, :rank]
        overlap = (expected.T @ after[name].double()).abs()  # singular vectors have a free sign
        torch.testing.assert_close(overlap, torch.eye(rank, dtype=torch.float64), rtol=0, atol=1e-4)


def test_the_written_folder_is_a_complete_checkpoint(tiny_llama_sharded_path: Path, tmp_path: Path) -> None:
    output = convert_checkpoint(tiny_llama_sharded_path, tmp_path / "tfb", rank=4)
    base_shards = {file.name for file in tiny_llama_sharded_path.glob("*.safetensors")}
    shards = {file.name for file in output.glob("*.safetensors")}
    assert len(base_shards) > 1
    assert shards == base_shards | {"model-basis-vectors.safetensors"}
    index = json.loads((output / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in tensors(output).values())
    for shard in shards:
        with safe_open(output / shard, framework="pt") as file:
            assert file.metadata()["format"] == "pt"
    assert (output / "tokenizer.json").read_bytes() == (tiny_llama_sharded_path / "tokenizer.json").read_bytes()


@pytest.mark.parametrize(
    ("base_fixture", "config_class", "architecture"),
    [
        ("tiny_llama_path", TFBLlamaConfig, "VllmTFBLLamaForCausalLM"),
        ("tiny_qwen2_path", TFBQwen2Config, "VllmTFBQwen2ForCausalLM"),
    ],
)
def test_config_has_the_published_keys(
    base_fixture: str, config_class: type, architecture: str, make_tfb: Any, request: pytest.FixtureRequest
) -> None:
    base = request.getfixturevalue(base_fixture)
    output = make_tfb(base)
    written = json.loads((output / "config.json").read_text())
    expected = {
        "model_type": config_class.model_type,  # type: ignore[attr-defined]
        "architectures": [architecture],
        "bayes_sigma": 0.1,
        "bayes_noise": "right",
        "basis_idx": list(range(8)),
        "sample": True,
        "num_samples": 10,
        "lowrank": True,
        "use_tfb_for_generation": False,
        "base_lm_path": str(base.resolve()),
    }
    assert expected.items() <= written.items()
    unchanged = json.loads((base / "config.json").read_text())
    assert {key: written[key] for key in unchanged} == unchanged | {
        key: written[key] for key in expected & unchanged.keys()
    }
    assert isinstance(AutoConfig.from_pretrained(output), config_class)


def test_missing_optional_keys_take_the_defaults(tiny_llama_tfb_path: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(tiny_llama_tfb_path, tmp_path / "old"))
    config = json.loads((path / "config.json").read_text())
    kept = {
        key: value for key, value in config.items() if key not in ("lowrank", "sample", "base_lm_path", "num_samples")
    }
    (path / "config.json").write_text(json.dumps(kept))
    loaded = AutoConfig.from_pretrained(path)
    assert (loaded.lowrank, loaded.sample, loaded.base_lm_path, loaded.num_samples) == (True, True, None, 10)


def remove_weights(path: Path) -> None:
    (path / "model.safetensors").rename(path / "pytorch_model.bin")


def forget_index(path: Path) -> None:
    (path / "model.safetensors").rename(path / "model-00001-of-00002.safetensors")


def forget_shard(path: Path) -> None:
    names = dict.fromkeys(load_file(path / "model.safetensors"), "model-00001-of-00001.safetensors")
    (path / "model.safetensors").unlink()
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))


def climb_out(path: Path) -> None:
    forget_shard(path)
    index = path / "model.safetensors.index.json"
    index.write_text(index.read_text().replace("model-00001", "../model-00001"))


def write_index(content: Any) -> Callable[[Path], object]:
    def damage(path: Path) -> None:
        forget_index(path)  # beside model.safetensors it would not be read
        (path / "model.safetensors.index.json").write_text(json.dumps(content))

    return damage


def edit_tensor(change: Callable[[Tensor], Tensor | None]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        content = load_file(path / "model.safetensors")
        value = change(content.pop(QUERY))
        save_file(content | ({} if value is None else {QUERY: value}), path / "model.safetensors", {"format": "pt"})

    return damage


def with_nan(weight: Tensor) -> Tensor:
    weight[3, 4] = torch.nan
    return weight


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no safetensors": (remove_weights, "pickled weights"),
    "index missing": (forget_index, "model.safetensors.index.json: missing, though there are safetensors shards"),
    "shard missing": (forget_shard, "model-00001-of-00001.safetensors: missing, though"),
    "shard elsewhere": (climb_out, "which is not the name of a safetensors file in this folder"),
    "index no object": (write_index([1]), "model.safetensors.index.json: expected a JSON object"),
    "no weight map": (
        write_index({"weight_map": ["a"]}),
        "index.json: weight_map must give a file name for each tensor",
    ),
    "shard a number": (write_index({"weight_map": {"a": 1}}), "index.json: a is said to be in 1, which is not"),
    "shard a list": (write_index({"weight_map": {"a": []}}), "index.json: a is said to be in [], which is not"),
    "shard null": (write_index({"weight_map": {"a": None}}), "index.json: a is said to be in None, which is not"),
    "torn file": (lambda path: (path / "model.safetensors").write_bytes(b"\0" * 20), "not a readable safetensors file"),
    "no config": (lambda path: (path / "config.json").unlink(), "config.json: missing"),
    "config no JSON": (lambda path: (path / "config.json").write_text("{"), "config.json: not valid JSON"),
    "wrong architecture": (lambda path: edit_config(path, model_type="gpt2"), "'gpt2' is not supported"),
    "architecture a list": (lambda path: edit_config(path, model_type=["llama"]), "['llama'] is not supported"),
    "multimodal": (lambda path: edit_config(path, model_type="gemma3"), "'gemma3' is not supported; it must be one of"),
    "ministral": (
        lambda path: edit_config(path, model_type="mistral", layer_types=["full_attention"] * 2),
        "layer_types make this mistral a ministral",
    ),
    "bidirectional": (
        lambda path: edit_config(path, use_bidirectional_attention=True),
        "use_bidirectional_attention lets tokens see later ones",
    ),
    "already TFB": (lambda path: edit_config(path, model_type="tfb_llama"), "a TFB checkpoint already"),
    "quantised": (lambda path: edit_config(path, quantization_config={"bits": 4}), "unquantised model"),
    "layers": (lambda path: edit_config(path, num_hidden_layers=None), "num_hidden_layers"),
    "too many layers": (lambda path: edit_config(path, num_hidden_layers=3), "model.layers.2.self_attn.q_proj.weight"),
    "tensor missing": (edit_tensor(lambda weight: None), f"tensor {QUERY} is missing"),
    "NaN": (edit_tensor(with_nan), f"{QUERY}: holds NaN"),
    "integers": (edit_tensor(lambda weight: weight.to(torch.int8)), f"{QUERY}: dtype I8"),
    "vector": (
        edit_tensor(lambda weight: weight[0].clone()),
        f"{QUERY} has shape [128] where config.json asks for [128, 128]",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_bad_input_gets_one_line_and_leaves_nothing(damage: str, damaged: Path, tmp_path: Path) -> None:
    change, said = DAMAGES[damage]
    change(damaged)
    result = convert(damaged, tmp_path / "out" / "tfb")
    assert result.exit_code == 1
    assert said in result.output
    assert [line for line in result.output.splitlines() if line.startswith("Error")] == [result.output.splitlines()[-1]]
    assert not list(tmp_path.glob("out/*"))  # hidden ones included


def test_rank_larger_than_the_matrix_is_an_error(tiny_llama_path: Path, tmp_path: Path) -> None:
    result = convert(tiny_llama_path, tmp_path / "tfb", "--rank", "65")
    assert result.exit_code == 1
    assert "v_proj.weight: rank 65 exceeds the smaller side of the [64, 128] matrix; choose a smaller" in result.output
    assert not (tmp_path / "tfb").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--rank", "0"], "rank must be at least 1"),
        (["--architecture", "qwen2"], "use --architecture llama"),
        (["--architecture", "gemma4"], "'gemma4' is not one of 'auto', 'llama'"),
        (["--bayes-noise", "up"], "'up' is not one of"),
    ],
)
def test_bad_options_are_named(options: list[str], said: str, tiny_llama_path: Path, tmp_path: Path) -> None:
    result = convert(tiny_llama_path, tmp_path / "tfb", *options)
    assert result.exit_code != 0
    assert said in result.output


def test_an_existing_output_is_replaced_only_when_asked(tiny_llama_path: Path, tmp_path: Path) -> None:
    output = tmp_path / "tfb"
    output.mkdir()
    (output / "mine.txt").write_text("keep")
    result = convert(tiny_llama_path, output)
    assert result.exit_code == 1
    assert "exists already; choose another --output-path or pass --overwrite" in result.output
    assert (output / "mine.txt").read_text() == "keep"
    assert convert(tiny_llama_path, output, "--overwrite").exit_code == 0
    assert not (output / "mine.txt").exists()
    assert (output / "config.json").exists()
    assert "same folder" in convert(tiny_llama_path, tiny_llama_path, "--overwrite").output


def test_an_interrupted_conversion_leaves_the_old_output(
    tiny_llama_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = convert_checkpoint(tiny_llama_path, tmp_path / "tfb", rank=2)

    def interrupt(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(conversion, "_save_basis", interrupt)
    with pytest.raises(KeyboardInterrupt):
        convert_checkpoint(tiny_llama_path, output, rank=4, overwrite=True)
    assert json.loads((output / "config.json").read_text())["basis_idx"] == [0, 1]
    assert [path.name for path in tmp_path.iterdir()] == ["tfb"]


def test_one_weight_is_read_at_a_time(tiny_qwen2_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    stock = conversion._read_weight

    def record(path: Path, files: dict[str, str], name: str) -> Tensor:
        read.append(name)
        return stock(path, files, name)

    monkeypatch.setattr(conversion, "_read_weight", record)
    monkeypatch.setattr(torch, "load", None)
    convert_checkpoint(tiny_qwen2_path, tmp_path / "tfb")
    assert read == [f"model.layers.{i}.self_attn.{p}.weight" for i in range(2) for p in ("q_proj", "v_proj")]
