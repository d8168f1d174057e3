"""What the plugin does to a process of vLLM's: nothing under another version, and nothing to what others have done."""

import functools
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaConfig

from tests.helpers.prompt_models import save_model_without_weights

pytest.importorskip("vllm")
from vllm import ModelRegistry
from vllm.config import VllmConfig
from vllm.engine.arg_utils import EngineArgs
from vllm.model_executor.models import config as model_configs
from vllm.outputs import RequestOutput
from vllm.v1.engine.output_processor import RequestState

from bayesian_transformer.config import ARCHITECTURES
from bayesian_transformer.vllm_models.unsupported import UnsupportedModel
from bayesian_transformer.vllm_plugin import register, substitutions

V2_FEATURES = "_get_v2_model_runner_unsupported_features"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model_without_weights(tmp_path_factory.mktemp("tiny") / "TFB-tiny", "llama")


@pytest.fixture(params=["0.27.1", "0.34.0", "dev"])
def other_version(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A vLLM of another version, which lacks what the supported ones have; what is registered under it is undone."""
    register()
    for registered in (ModelRegistry.models, model_configs.MODELS_CONFIG_MAP):
        for architecture in ARCHITECTURES.values():
            name = architecture.vllm_architecture
            monkeypatch.setitem(registered, name, registered[name])
    monkeypatch.setattr("vllm.__version__", request.param)
    for module in ("engine_config", "outputs"):
        monkeypatch.setitem(sys.modules, f"bayesian_transformer.vllm_plugin.{module}", None)
    return str(request.param)


def engine_config(path: Path, **options: Any) -> VllmConfig:
    return EngineArgs(model=str(path), max_model_len=256, **options).create_engine_config()


def test_another_version_is_named_by_a_tfb_model_only(tiny: Path, tmp_path: Path, other_version: str) -> None:
    methods = [RequestState._new_completion_output, RequestOutput.add, getattr(VllmConfig, V2_FEATURES)]
    register()
    with pytest.raises(Exception, match=rf"supports vllm.*; found {other_version}\. Install one of these\."):
        engine_config(tiny)
    LlamaConfig(architectures=["LlamaForCausalLM"], num_hidden_layers=1, hidden_size=128).save_pretrained(tmp_path)
    assert engine_config(tmp_path, skip_tokenizer_init=True).parallel_config.worker_cls.startswith("vllm.")
    assert [RequestState._new_completion_output, RequestOutput.add, getattr(VllmConfig, V2_FEATURES)] == methods


def test_a_version_without_configuration_hooks_is_named_by_the_model(
    other_version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(model_configs, "MODELS_CONFIG_MAP")
    register()
    assert {ModelRegistry.models[a.vllm_architecture].class_name for a in ARCHITECTURES.values()} == {
        "UnsupportedModel"
    }
    with pytest.raises(ValueError, match=f"found {other_version}"):
        UnsupportedModel(vllm_config=None)


def test_registering_twice_changes_nothing() -> None:
    register()
    once = RequestState._new_completion_output
    register()
    assert RequestState._new_completion_output is once


def foreign(stock: Callable[..., Any]) -> Callable[..., Any]:
    """What another plugin might put around a method."""

    @functools.wraps(stock)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        result = stock(*args, **kwargs)
        return [*result, "foreign"] if isinstance(result, list) else result

    return wrapper


@pytest.mark.parametrize("ours_first", [True, False])
def test_other_plugins_wrappers_stay_and_ours_too(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, ours_first: bool
) -> None:
    config = engine_config(tiny)
    substitutions.substitute.cache_clear()
    methods = ((VllmConfig, V2_FEATURES), (RequestState, "_new_completion_output"), (RequestOutput, "add"))
    for owner, name in methods:
        monkeypatch.setattr(owner, name, inspect.unwrap(getattr(owner, name)))
    stock = [getattr(owner, name) for owner, name in methods]
    for step in (register, None, register) if ours_first else (None, register, register):
        if step is not None:
            step()
            continue
        for owner, name in methods:
            setattr(owner, name, foreign(getattr(owner, name)))
    assert sorted(config._get_v2_model_runner_unsupported_features()) == ["TFB models", "foreign"]
    for (owner, name), original in zip(methods, stock, strict=True):
        assert getattr(owner, name).__wrapped__.__wrapped__ is original  # ours and the other's, each once
