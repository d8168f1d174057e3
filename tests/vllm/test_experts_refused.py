"""What vLLM may do with experts that particle rows cannot follow, and multimodal models, refused by name."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from bayesian_transformer import tfb
from tests.helpers.tiny_families import family_config, save_family
from tests.helpers.vllm_engines import engine

pytest.importorskip("vllm")
pytestmark = pytest.mark.engine


def engine_config(path: Path, **options: Any) -> Any:
    from vllm.engine.arg_utils import EngineArgs

    return EngineArgs(
        model=str(path), max_model_len=128, skip_tokenizer_init=True, hf_overrides=tfb(), **options
    ).create_engine_config()


def folder_of(name: str, folder: Path, **changes: Any) -> Path:
    """config.json alone."""
    config = family_config(name)
    config.update(changes)
    config.save_pretrained(folder)
    return folder


PARALLEL = {"tensor_parallel_size": 2, "enable_expert_parallel": True}


@pytest.mark.parametrize("name", ["qwen2 moe", "qwen3 moe", "mixtral"])
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (PARALLEL, "enable_expert_parallel or enable_eplb with experts"),
        ({"data_parallel_size": 2}, "data_parallel_size > 1 with experts"),
    ],
)
def test_experts_and_data_in_parallel(name: str, options: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(Exception, match=f"TFB models do not support: .*{said}"):
        engine_config(folder_of(name, tmp_path), **options)


def test_another_activation(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="TFB models do not support: hidden_act=gelu with experts"):
        engine_config(folder_of("mixtral", tmp_path, hidden_act="gelu"))


def test_a_dense_model_is_left_alone(tmp_path: Path) -> None:
    engine_config(folder_of("llama", tmp_path, hidden_act="gelu"))


@pytest.mark.parametrize("model_type", ["gemma3", "mistral3", "qwen2_vl", "gpt_oss", "deepseek_v3", "falcon"])
def test_models_of_no_family(model_type: str, tmp_path: Path) -> None:
    AutoConfig.for_model(model_type, architectures=["X"]).save_pretrained(tmp_path)
    with pytest.raises(Exception, match=f"model_type '{model_type}' is not supported; it must be .*architecture.md"):
        engine_config(tmp_path)


@pytest.mark.parametrize("name", ["mixtral", "qwen3 moe"])  # of the latter vLLM widens the experts too
def test_experts_are_not_loaded_again_on_a_cpu(name: str, tmp_path: Path) -> None:
    base = save_family(name, tmp_path / "base")
    options: dict[str, Any] = {"skip_tokenizer_init": True, "max_model_len": 128, "num_gpu_blocks_override": 16}
    with engine(base, in_process=True, hf_overrides=tfb(num_samples=3), **options) as llm:
        for arguments in ({}, {"weights_path": str(base)}):
            with pytest.raises(Exception, match="the weights of experts cannot be loaded again on a CPU"):
                llm.collective_rpc("reload_weights", kwargs=arguments)
        with pytest.raises(Exception, match=r"experts\.0\..*: the weights of experts cannot be loaded again"):
            llm.apply_model(partial(load, folder=base))


def load(model: Any, folder: Path) -> None:
    """As a trainer in the same process does it."""
    from safetensors.torch import load_file

    weights = load_file(folder / "model.safetensors")
    model.load_weights((name, weight) for name, weight in weights.items() if ".experts." in name)
