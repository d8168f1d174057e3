"""Prompts, stop tokens and names of the experiments."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from bayesian_transformer.bases import ALGORITHM
from bayesian_transformer.checkpoint import weights_digest
from run.utils.config import (
    LLAMA_SYSTEM_PROMPT,
    MODELS,
    PROMPT_FAMILIES,
    TEMPLATE_DATE,
    dataset_name,
    load_model,
    model_name,
    model_path,
)
from tests.helpers.prompt_models import save_model_without_weights

QUESTION = "What is {7} + 8?"


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model_without_weights(tmp_path_factory.mktemp("models") / "not-qwen2-at-all", "llama")


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model_without_weights(tmp_path_factory.mktemp("models") / "tfb-llama-lookalike", "qwen2")


def test_llama_prompt_has_our_system_prompt_and_the_bare_question(llama: Path) -> None:
    prompt = load_model(str(llama)).prompt(QUESTION)
    assert prompt == (
        f"<|begin|><|turn|>system\nToday: {TEMPLATE_DATE}\n{LLAMA_SYSTEM_PROMPT}<|end_of_turn|>"
        f"<|turn|>user\n{QUESTION}<|end_of_turn|><|turn|>assistant\n"
    )


def test_llama_system_prompt_asks_for_steps_and_a_boxed_answer() -> None:
    assert "three or more" in LLAMA_SYSTEM_PROMPT
    assert "numbered" in LLAMA_SYSTEM_PROMPT
    assert "\\boxed{}" in LLAMA_SYSTEM_PROMPT


def test_qwen_prompt_has_the_templates_own_default_and_asks_for_a_box(qwen: Path) -> None:
    prompt = load_model(str(qwen)).prompt(QUESTION)
    assert prompt == (
        "<|turn|>system\nYou are the default.<|end_of_turn|>\n<|turn|>user\n"
        f"{QUESTION} Let's think step by step and output the final answer within \\boxed{{}}.<|end_of_turn|>\n"
        "<|turn|>assistant\n"
    )


def test_given_system_prompt_replaces_and_empty_one_removes(llama: Path, qwen: Path) -> None:
    assert "Today: 26 Jul 2024\nBe brief.<|end" in load_model(str(llama), system_prompt="Be brief.").prompt(QUESTION)
    assert "Today: 26 Jul 2024\n<|end" in load_model(str(llama), system_prompt="").prompt(QUESTION)
    assert "<|turn|>system\nBe brief.<|end" in load_model(str(qwen), system_prompt="Be brief.").prompt(QUESTION)
    assert "You are the default." in load_model(str(qwen), system_prompt="").prompt(QUESTION)


def test_formatted_prompt_is_tokenised_with_one_begin_token(llama: Path) -> None:
    model = load_model(str(llama))
    prompt = model.prompt(QUESTION)
    ids = model.token_ids(prompt)
    assert ids[0] == model.tokenizer.bos_token_id
    assert ids.count(model.tokenizer.bos_token_id) == 1
    assert model.tokenizer(prompt)["input_ids"][:2] == [ids[0], ids[0]]  # what tokenising it naively would give
    assert model.tokenizer.decode(ids) == prompt


def test_stop_tokens_come_from_config_generation_config_and_tokenizer(llama: Path) -> None:
    assert load_model(str(llama)).stop_token_ids == (1, 3)
    assert json.loads((llama / "generation_config.json").read_text())["eos_token_id"] == [3]


def test_stop_tokens_without_generation_config(tmp_path: Path) -> None:
    folder = save_model_without_weights(tmp_path / "m", "llama", eos_token_id=2)
    (folder / "generation_config.json").unlink()
    assert load_model(str(folder)).stop_token_ids == (1, 2)  # 1 is the tokenizer's


def test_noise_settings_follow_overrides(llama: Path) -> None:
    assert (load_model(str(llama)).noise.num_samples, load_model(str(llama)).noise.rank) == (3, 4)
    noise = load_model(str(llama), {"num_samples": 7, "bayes_sigma": 0.0}).noise
    assert (noise.num_samples, noise.bayes_sigma) == (7, 0.0)
    with pytest.raises(ValueError, match="bayes_sigma must be a finite number"):
        load_model(str(llama), {"bayes_sigma": float("nan")})


def test_unusable_models_are_named_with_what_to_do(llama: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere: cannot read .* give a TFB model folder"):
        load_model(str(tmp_path / "nowhere"))
    plain = tmp_path / "plain"
    plain.mkdir()
    for file in llama.iterdir():
        (plain / file.name).write_bytes(file.read_bytes())
    config = json.loads((plain / "config.json").read_text())
    (plain / "config.json").write_text(json.dumps(config | {"model_type": "gpt2"}))
    with pytest.raises(ValueError, match=r"plain: model_type 'gpt2' is not supported; it must be one of llama, "):
        load_model(str(plain))
    (plain / "config.json").write_text(json.dumps(config))
    (plain / "chat_template.jinja").unlink()
    with pytest.raises(ValueError, match="no chat template"):
        load_model(str(plain))


def test_a_plain_checkpoint_runs_as_its_tfb_model(tiny_llama_path: Path, tmp_path: Path, llama: Path) -> None:
    plain = Path(shutil.copytree(tiny_llama_path, tmp_path / "plain"))
    model = load_model(str(plain), {"num_samples": 4})
    assert model.engine_overrides == {"architectures": ["VllmTFBLLamaForCausalLM"]}
    assert (model.noise.num_samples, model.noise.rank) == (4, 8)
    assert model.family is PROMPT_FAMILIES["llama"]
    assert model.weights_digest() == f"{weights_digest(plain)} bases {ALGORITHM}"
    digests = set()
    for content in (b"some bases", b"other bases"):  # of one name
        (plain.parent / "bases.safetensors").write_bytes(content)
        overrides = {"basis_path": str(plain.parent / "bases.safetensors")}
        digests.add(load_model(str(plain), overrides).weights_digest())
    assert len(digests | {model.weights_digest()}) == 3
    assert load_model(str(llama)).engine_overrides == {}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"hidden_size": None}, "'hidden_size'.* expected int, got NoneType"),
        ({"num_attention_heads": 7}, "not a multiple of the number of attention heads"),
    ],
)
def test_a_config_of_wrong_types_is_one_line(llama: Path, tmp_path: Path, changes: dict, reason: str) -> None:
    folder = shutil.copytree(llama, tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(ValueError, match=rf"m: config\.json is wrong \(.*{reason}.*\); correct it") as caught:
        load_model(str(folder))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("config.json", "[" * 100_000, "config.json: not valid JSON"),
        ("config.json", '{"model_type": "tfb_llama", "model_type": "llama"}', "'model_type' occurs twice"),
        ("config.json", '{"model_type": "tfb_llama", "num_attention_heads": 0}', "by zero"),
        ("config.json", '{"model_type": "tfb_llama", "dtype": "float99"}', "float99"),
        ("config.json", '{"model_type": ["tfb_llama"]}', "m: "),
        ("tokenizer.json", "[]", "m: "),
        ("generation_config.json", "{", "m: generation_config.json cannot be read; correct it or remove it"),
    ],
)
def test_damaged_files_are_one_line(llama: Path, tmp_path: Path, name: str, content: str, reason: str) -> None:
    folder = Path(shutil.copytree(llama, tmp_path / "m"))
    (folder / name).write_text(content)
    with pytest.raises(ValueError, match=reason) as caught:
        load_model(str(folder))
    assert str(caught.value).startswith(f"{folder}: ")
    assert "\n" not in str(caught.value)


def test_a_bad_noise_key_is_named_with_its_model(llama: Path) -> None:
    with pytest.raises(ValueError, match=rf"{llama}: num_samples must be .* got .5.; correct config.json"):
        load_model(str(llama), {"num_samples": "5"})


@pytest.mark.parametrize("template", ["{{ raise_exception('no system role') }}", "{{ messages[9].content + 1 }}"])
def test_what_a_chat_template_raises_is_a_value_error(llama: Path, tmp_path: Path, template: str) -> None:
    folder = shutil.copytree(llama, tmp_path / "m")
    (folder / "chat_template.jinja").write_text(template)
    with pytest.raises(ValueError, match="chat template refuses the messages"):
        load_model(str(folder)).prompt("?")


def test_the_prompt_digest_follows_what_surrounds_the_question(llama: Path, qwen: Path) -> None:
    models = [load_model(str(llama)), load_model(str(qwen)), load_model(str(llama), system_prompt="Be brief.")]
    assert len({model.prompt_digest() for model in models}) == 3
    assert load_model(str(llama)).prompt_digest() == models[0].prompt_digest()


def test_weights_of_a_hub_model_are_told_by_its_commit(llama: Path) -> None:
    assert replace(load_model(str(llama)), path="some/name", revision="c0ffee").weights_digest() == "c0ffee"


def test_a_short_name_and_a_path_that_ends_in_it_give_the_same_results_folder() -> None:
    for name in ("gsm8k", "leg_counting", "math500"):
        stored = dataset_name(f"/x/{name}.jsonl")
        assert dataset_name(name) == stored == dataset_name(stored)
    for name in (*MODELS, "My-Model"):
        stored = model_name(f"/x/{name}")
        assert model_name(name) == stored == model_name(stored)


def test_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MODEL_BASE_DIR", "/models")
    assert model_path("qwen3b") == "/models/TFB-Qwen2.5-3B-Instruct"
    assert model_path("some/folder") == "some/folder"
    assert model_name("llama1b") == MODELS["llama1b"] == model_name("/x/TFB-Llama3.2-1B-Instruct/")
    assert model_name("n1h111sm/TFB-Qwen2.5-3B-Instruct") == "TFB-Qwen2.5-3B-Instruct"
    assert dataset_name("a/b/math500.jsonl") == "math500" == dataset_name("math500")
    assert dataset_name("gsm8k") == "gsm8k_test" == dataset_name("datasets/gsm8k_test.jsonl")
    monkeypatch.chdir(tmp_path)
    assert model_name(".") == tmp_path.name
    monkeypatch.delenv("MODEL_BASE_DIR")
    with pytest.raises(ValueError, match="MODEL_BASE_DIR"):
        model_path("qwen3b")
