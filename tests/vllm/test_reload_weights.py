"""Weights that are loaded again into a running engine, as reinforcement learning and sleep mode do.

The model has an output head of its own: on a CPU vLLM 0.32 itself keeps the old one of a model with tied embeddings.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2ForCausalLM

from bayesian_transformer import tfb
from bayesian_transformer.checkpoint import tensor_files
from bayesian_transformer.scoring import score
from tests.helpers.vllm_engines import engine, table, token_prompts

vllm = pytest.importorskip("vllm")
pytestmark = pytest.mark.engine
OVERRIDES: dict[str, Any] = {"bayes_sigma": 0.3, "num_samples": 4}
PROMPTS = token_prompts([[5, 900, 17, 30_000], [77]])
Tables = list[np.ndarray]


def answers(llm: Any) -> Tables:
    """Token ids and uncertainties of two responses; no cached prefix of the weights before."""
    llm.reset_prefix_cache()
    parameters = [vllm.SamplingParams(temperature=0, max_tokens=8, ignore_eos=True, seed=seed) for seed in (3, 4)]
    completions = [output.outputs[0] for output in llm.generate(PROMPTS, parameters, use_tqdm=False)]
    return [np.column_stack([completion.token_ids, table(completion)]) for completion in completions]


def same(one: Tables, other: Tables) -> bool:
    return all(np.array_equal(first, second) for first, second in zip(one, other, strict=True))


@pytest.fixture(scope="module", params=["right", "left"])
def llm(request: pytest.FixtureRequest, tiny_qwen2_path: Path, make_tfb: Callable[..., Path]) -> Iterator[Any]:
    path = make_tfb(tiny_qwen2_path, request.param)
    with engine(path, in_process=True, max_num_seqs=4, hf_overrides=OVERRIDES) as llm:
        yield llm


@pytest.fixture(scope="module")
def other_base(tmp_path_factory: pytest.TempPathFactory, tiny_qwen2_path: Path) -> Path:
    """A model of the same shape with other weights."""
    model = Qwen2ForCausalLM.from_pretrained(tiny_qwen2_path)
    torch.manual_seed(5)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    path = tmp_path_factory.mktemp("other") / "Other-Qwen2"
    model.save_pretrained(path)
    AutoTokenizer.from_pretrained(tiny_qwen2_path).save_pretrained(path)
    return path


def tensors_of(path: Path) -> dict[str, torch.Tensor]:
    return {
        name: tensor for file in set(tensor_files(path).values()) for name, tensor in load_file(path / file).items()
    }


def reload(llm: Any, weights: dict[str, torch.Tensor]) -> None:
    """As a trainer in the same process does it."""
    llm.collective_rpc("reload_weights", kwargs={"weights_iterator": iter(weights.items())})


# https://github.com/huggingface/trl/issues/4571, https://github.com/vllm-project/vllm/issues/16564
def test_reloading_the_same_weights_changes_no_number(llm: Any) -> None:
    before = answers(llm)
    llm.collective_rpc("reload_weights")
    assert same(answers(llm), before)
    assert before[0][:, 3].min() > 0  # noise was there


def test_other_weights_can_come_and_go(
    llm: Any, other_base: Path, tiny_qwen2_path: Path, make_tfb: Callable[..., Path]
) -> None:
    kind = llm.llm_engine.model_config.hf_config.bayes_noise
    own, other = make_tfb(tiny_qwen2_path, kind), make_tfb(other_base, kind)
    before = answers(llm)
    llm.collective_rpc("reload_weights", kwargs={"weights_path": str(other)})
    changed = answers(llm)
    assert not same(changed, before)
    reload(llm, tensors_of(own))
    assert same(answers(llm), before)
    reload(llm, tensors_of(other))
    assert same(answers(llm), changed)
    llm.collective_rpc("reload_weights", kwargs={"weights_path": str(own)})
    assert same(answers(llm), before)


def test_a_folder_without_bases_is_refused_before_anything_changes(llm: Any, other_base: Path) -> None:
    before = answers(llm)
    with pytest.raises(ValueError, match=r"Other-Qwen2: .*basis_vectors is missing \(4 are\); convert the model"):
        llm.collective_rpc("reload_weights", kwargs={"weights_path": str(other_base)})
    assert same(answers(llm), before)


# https://github.com/sgl-project/sglang/issues/9663
def test_a_part_of_the_weights_can_be_loaded(llm: Any, tiny_qwen2_path: Path, other_base: Path) -> None:
    """As reinforcement learning does it in the worker. On a CPU vLLM can do so with no linear layer, stock or not."""
    before, own, other = answers(llm), tensors_of(tiny_qwen2_path), tensors_of(other_base)
    name = "model.norm.weight"
    for weights, is_same in ((other, False), (own, True)):
        part = [(name, weights[name])]
        assert llm.apply_model(lambda model, part=part: model.load_weights(part)) == [{name}]
        assert same(answers(llm), before) is is_same


def test_weights_in_the_form_of_the_kernels_are_refused(llm: Any) -> None:
    """Their bases would stay those of the weights before."""
    before = answers(llm)
    with pytest.raises(ValueError, match="is_checkpoint_format=False is not supported"):
        llm.collective_rpc("reload_weights", kwargs={"weights_iterator": iter([]), "is_checkpoint_format": False})
    assert same(answers(llm), before)


def test_an_engine_without_weights_takes_them_in_parts(tiny_qwen2_path: Path, make_tfb: Callable[..., Path]) -> None:
    """As a trainer starts one that it sends its weights to."""
    path = make_tfb(tiny_qwen2_path)
    part = [("model.norm.weight", tensors_of(path)["model.norm.weight"])]
    options: dict[str, Any] = {"in_process": True, "max_num_seqs": 4, "hf_overrides": OVERRIDES}
    with engine(path, load_format="dummy", **options) as dummy:
        assert dummy.apply_model(lambda model: model.load_weights(part)) == [{"model.norm.weight"}]


def test_a_new_engine_on_the_weights_has_the_numbers_of_a_reloaded_one(
    other_base: Path, tiny_qwen2_path: Path, make_tfb: Callable[..., Path]
) -> None:
    options: dict[str, Any] = {"in_process": True, "max_num_seqs": 4, "hf_overrides": OVERRIDES}
    with engine(make_tfb(other_base), **options) as fresh:
        expected = answers(fresh)
    with engine(make_tfb(tiny_qwen2_path), **options) as reloaded:
        reloaded.collective_rpc("reload_weights", kwargs={"weights_path": str(make_tfb(other_base))})
        assert same(answers(reloaded), expected)
        projections = {name: weight for name, weight in tensors_of(other_base).items() if "layers.1.self_attn" in name}
        with pytest.raises(
            ValueError, match=r"layers\.1\.self_attn\.q_proj\.basis_vectors did not come with its weight"
        ):
            reload(reloaded, projections)


def test_the_bases_of_a_plain_checkpoint_follow_its_weights(
    tiny_qwen2_path: Path, other_base: Path, make_tfb: Callable[..., Path]
) -> None:
    """However the weights come: made up at first, from a folder, by a trainer, with stored bases or without."""
    options: dict[str, Any] = {"in_process": True, "max_num_seqs": 4}
    with engine(make_tfb(other_base), hf_overrides=OVERRIDES, **options) as fresh:
        expected = answers(fresh)
    overrides = tfb(**OVERRIDES)
    with engine(tiny_qwen2_path, hf_overrides=overrides, load_format="dummy", **options) as llm:
        reload(llm, tensors_of(other_base))
        assert same(answers(llm), expected)
    with engine(tiny_qwen2_path, hf_overrides=overrides, **options) as llm:
        before = answers(llm)
        llm.collective_rpc("reload_weights", kwargs={"weights_path": str(other_base)})
        assert same(answers(llm), expected)
        llm.collective_rpc("reload_weights", kwargs={"weights_path": str(tiny_qwen2_path)})
        assert same(answers(llm), before)
        stored = tensors_of(make_tfb(other_base))
        name = "model.layers.1.self_attn.q_proj.basis_vectors"
        reload(llm, stored | {name: -stored[name]})  # stored ones are used as they are
        assert not same(answers(llm), expected)
        reload(llm, stored)
        assert same(answers(llm), expected)
        assert llm.apply_model(lambda model: model.load_weights([])) == [set()]


def in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let vLLM keep the weights of linear layers as they are, as it does on a GPU, and not pack them for a CPU."""
    monkeypatch.setattr("vllm._custom_ops._supports_onednn", False)
    monkeypatch.setattr("vllm.model_executor.layers.utils.check_cpu_sgl_kernel", lambda *shape: False)


def send(llm: Any, tensors: dict[str, torch.Tensor]) -> None:
    """One tensor a call, as trl's `update_named_param` does."""
    for named in tensors.items():
        llm.apply_model(lambda model, named=named: model.load_weights([named]))


@pytest.mark.parametrize("kind", ["right", "left"])
def test_one_tensor_at_a_time(
    tiny_qwen2_path: Path,
    other_base: Path,
    make_tfb: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    """The bases of a plain checkpoint follow; those of a TFB model are asked for, whatever the order."""
    in_place(monkeypatch)
    options: dict[str, Any] = {"in_process": True, "max_num_seqs": 4}
    own, other, stored = (tensors_of(path) for path in (tiny_qwen2_path, other_base, make_tfb(other_base, kind)))
    with engine(make_tfb(other_base, kind), hf_overrides=OVERRIDES, **options) as llm:
        expected = answers(llm)
        send(llm, {name: tensor for name, tensor in other.items() if "self_attn" not in name})
        assert same(answers(llm), expected)
        name = "model.layers.1.self_attn.v_proj.weight"
        with pytest.raises(ValueError, match=r"layers\.1\.self_attn\.v_proj\.basis_vectors did not come with its w"):
            send(llm, {name: own[name]})
        basis = name.replace("weight", "basis_vectors")
        llm.apply_model(lambda model: model.load_weights([(basis, stored[basis]), (name, stored[name])]))
        assert same(answers(llm), expected)
    with engine(tiny_qwen2_path, hf_overrides=tfb(**OVERRIDES, bayes_noise=kind), **options) as llm:
        before = answers(llm)
        send(llm, own)
        assert same(answers(llm), before)
        send(llm, dict(reversed(other.items())))
        assert same(answers(llm), expected)
    model: Any = AutoModelForCausalLM.from_pretrained(make_tfb(other_base, kind)).eval()
    model.config.update(OVERRIDES)
    tokens = expected[0][:, 0].astype(int).tolist()
    scored = score(model, PROMPTS[0]["prompt_token_ids"], tokens, seed=3).stack().double().numpy()
    np.testing.assert_allclose(expected[0][:, 1:], scored, rtol=1e-3, atol=2e-5)


def test_a_cpu_does_not_sleep(tiny_qwen2_path: Path, make_tfb: Callable[..., Path]) -> None:
    """vLLM's sleep mode needs a GPU; what is asked for all the same changes no number."""
    path = make_tfb(tiny_qwen2_path)
    with pytest.raises(ValueError, match=r"(?i)sleep mode is not supported"), engine(path, enable_sleep_mode=True):
        pass
    with engine(path, in_process=True, max_num_seqs=4, hf_overrides=OVERRIDES) as llm:
        before = answers(llm)
        for level in (1, 2):
            llm.sleep(level=level)
            llm.wake_up()
            assert same(answers(llm), before)
