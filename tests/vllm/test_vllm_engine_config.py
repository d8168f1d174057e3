"""What the plugin refuses at start, and what it leaves alone; no engine runs."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, LlamaConfig

from bayesian_transformer import tfb
from tests.helpers.prompt_models import save_model_without_weights

pytest.importorskip("vllm")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model_without_weights(tmp_path_factory.mktemp("tiny") / "TFB-tiny", "llama")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama that is not a TFB model."""
    folder = tmp_path_factory.mktemp("plain")
    LlamaConfig(architectures=["LlamaForCausalLM"], num_hidden_layers=1, hidden_size=128).save_pretrained(folder)
    return folder


def engine_config(path: Path, **options: Any) -> Any:
    from vllm.engine.arg_utils import EngineArgs

    return EngineArgs(model=str(path), max_model_len=256, **options).create_engine_config()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"pipeline_parallel_size": 2}, "pipeline_parallel_size > 1"),
        ({"enable_lora": True}, "enable_lora"),
        ({"speculative_config": {"method": "ngram", "num_speculative_tokens": 2}}, "speculative_config"),
        ({"kv_cache_dtype": "fp8"}, "kv_cache_dtype=fp8"),
        ({"kv_offloading_size": 1.0}, "kv_offloading_size"),
        ({"ubatch_size": 2}, "enable_dbo or ubatch_size > 1"),
        ({"hf_overrides": {"dual_chunk_attention_config": {"chunk_size": 8}}}, "dual_chunk_attention_config"),
        ({"hf_overrides": {"sliding_window": 128}}, "a sliding window of 128 tokens in this family"),
        ({"compilation_config": {"mode": 1}}, "compilation mode STOCK_TORCH_COMPILE"),
        ({"enable_prompt_embeds": True}, "enable_prompt_embeds"),
        ({"scheduler_cls": "vllm.v1.core.sched.scheduler.Scheduler"}, "scheduler_cls"),
        ({"worker_cls": "vllm.v1.worker.cpu_worker.CPUWorker"}, "worker_cls"),
        ({"runner": "pooling"}, "pooling"),
    ],
)
def test_unsupported_settings_are_named(tiny: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(Exception, match=rf"TFB models do not support: .*{said}"):
        engine_config(tiny, **options)


def test_a_window_that_holds_the_longest_text_is_left_alone(tiny: Path) -> None:
    engine_config(tiny, hf_overrides={"sliding_window": 256})
    with pytest.raises(Exception, match="a sliding window of 255 tokens"):
        engine_config(tiny, hf_overrides={"sliding_window": 255})


@pytest.mark.parametrize("kind", ["gemma2", "gemma3_text"])
def test_families_whose_numbers_leave_the_range_of_float16(kind: str, tmp_path: Path) -> None:
    folder = save_model_without_weights(tmp_path / "TFB-tiny", kind)
    assert engine_config(folder, dtype="bfloat16").model_config.hf_config.sliding_window == 4096
    with pytest.raises(Exception, match=f"TFB models do not support: dtype=float16 with tfb_{kind}"):
        engine_config(folder, dtype="float16")


@pytest.mark.parametrize("kind", ["qwen3", "gemma"])
def test_biases_that_vllm_leaves_out(kind: str, tmp_path: Path) -> None:
    folder = save_model_without_weights(tmp_path / "TFB-tiny", kind)
    engine_config(folder)
    with pytest.raises(Exception, match=f"TFB models do not support: attention_bias with tfb_{kind}"):
        engine_config(folder, hf_overrides={"attention_bias": True})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": kind}))  # a plain checkpoint
    with pytest.raises(Exception, match=f"TFB models do not support: attention_bias with {kind}"):
        engine_config(folder, hf_overrides={"attention_bias": True})


@pytest.mark.parametrize("rope_type", ["dynamic", "longrope"])
def test_frequencies_that_follow_the_batch(rope_type: str, tmp_path: Path) -> None:
    """OLMo 3 has parameters for each kind of layer. Phi-3, for which vLLM has a class of its own, may have them."""
    factors = {"short_factor": [1.0] * 16, "long_factor": [2.0] * 16} if rope_type == "longrope" else {"factor": 2.0}
    rope = {"rope_type": rope_type, "rope_theta": 1e4, "original_max_position_embeddings": 512, **factors}
    for kind, parameters in (("starcoder2", rope), ("olmo3", {"full_attention": rope})):
        folder = save_model_without_weights(tmp_path / kind, kind)
        engine_config(folder)
        with pytest.raises(Exception, match=f"TFB models do not support: rope_type={rope_type} in a family"):
            engine_config(folder, hf_overrides={"rope_parameters": parameters})
    engine_config(save_model_without_weights(tmp_path / "phi3", "phi3"), hf_overrides={"rope_parameters": rope})


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("bayes_sigma", -0.1, "bayes_sigma must be a finite number >= 0; got -0.1"),
        ("num_samples", 0, "num_samples must be an integer >= 1; got 0"),
        ("bayes_noise", "up", "bayes_noise must be one of right, left; got 'up'"),
        ("basis_idx", [], "basis_idx must list integers"),
        ("basis_idx", [1, 1], "basis_idx must not repeat"),
        ("basis_idx", 5, "basis_idx must list integers >= 0, at least one; got 5"),
        ("use_tfb_for_generation", "false", "use_tfb_for_generation must be true or false; got 'false'"),
    ],
)
def test_bad_noise_keys_are_named(tiny: Path, key: str, value: Any, said: str) -> None:
    with pytest.raises(Exception, match=said):
        engine_config(tiny, hf_overrides={key: value})


JSON_OF_LLAMA = {"architectures": ["VllmTFBLLamaForCausalLM"]}


@pytest.mark.parametrize("hf_overrides", [tfb(num_samples=5), {"num_samples": 5} | JSON_OF_LLAMA])
def test_a_plain_checkpoint_becomes_a_tfb_model(plain: Path, hf_overrides: Any) -> None:
    config = engine_config(plain, hf_overrides=hf_overrides, skip_tokenizer_init=True)
    assert config.parallel_config.worker_cls.startswith("bayesian_transformer.")
    assert config.model_config.hf_config.model_type == "llama"
    assert config.model_config.hf_config.num_samples == 5


@pytest.mark.parametrize("hf_overrides", [tfb(), JSON_OF_LLAMA])
@pytest.mark.parametrize("load_format", ["sharded_state", "tensorizer", "mistral", "runai_streamer_sharded", "pt"])
def test_formats_that_pass_the_bases_by_are_refused(plain: Path, hf_overrides: Any, load_format: str) -> None:
    with pytest.raises(Exception, match=rf"do not support: load_format={load_format} of a plain checkpoint \(convert"):
        engine_config(plain, hf_overrides=hf_overrides, skip_tokenizer_init=True, load_format=load_format)


@pytest.mark.parametrize(
    ("model_type", "changes", "hf_overrides", "said"),
    [
        ("gpt2", {}, tfb(), "model_type 'gpt2' is not supported; it must be one of llama, "),
        ("gpt2", {}, JSON_OF_LLAMA, "model_type 'gpt2' is not supported; it must be one of llama, "),
        ("qwen2", {}, JSON_OF_LLAMA, r"where a qwen2 has \['VllmTFBQwen2ForCausalLM'\]; correct it"),
        ("mistral", {"layer_types": ["full_attention"]}, tfb(), "model_type 'ministral' is not supported"),
    ],
)
def test_what_is_of_no_family_is_refused_by_name(
    tmp_path: Path, model_type: str, changes: dict[str, Any], hf_overrides: Any, said: str
) -> None:
    AutoConfig.for_model(model_type, num_hidden_layers=1, architectures=["X"], **changes).save_pretrained(tmp_path)
    with pytest.raises(Exception, match=said):
        engine_config(tmp_path, hf_overrides=hf_overrides, skip_tokenizer_init=True)


def test_overrides_reach_the_model_and_its_worker_is_ours(tiny: Path) -> None:
    config = engine_config(tiny, hf_overrides={"bayes_sigma": 0.05, "num_samples": 5})
    assert config.model_config.hf_config.bayes_sigma == 0.05
    assert config.model_config.hf_config.num_samples == 5
    assert config.parallel_config.worker_cls.startswith("bayesian_transformer.")
    assert not config.use_v2_model_runner


def test_other_models_keep_their_worker_and_scheduler(plain: Path) -> None:
    config = engine_config(plain, skip_tokenizer_init=True)
    assert not config.parallel_config.worker_cls.startswith("bayesian_transformer.")
    assert config.scheduler_config.scheduler_cls is None
    assert config._get_v2_model_runner_unsupported_features() == []
