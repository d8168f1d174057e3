"""The comparisons can fail: a result that is off by little more than rounding is named, and GPU code runs on the CPU.

The Triton kernels run in Triton's interpreter, FlashAttention is a stand-in; neither says anything about a GPU.
"""

import importlib.util
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from bayesian_transformer import uncertainty
from bayesian_transformer.doctor.comparisons import cpp_kernels, kernels, scored_text
from bayesian_transformer.doctor.comparisons.cases import merge_cases, noise_cases
from bayesian_transformer.doctor.comparisons.differences import Differences
from bayesian_transformer.quantities import FIELDS
from bayesian_transformer.vllm_plugin.kernels import cpp, plain
from tests.helpers.python_process import run_python

needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
needs_vllm = pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vllm is not installed")


@pytest.mark.parametrize(
    ("got", "wanted", "agree"),
    [
        ([1.0, 2.0], [1.0, 2.0009], True),
        ([1.0, 2.0], [1.0, 2.0011], False),
        ([torch.nan, torch.inf, -torch.inf], [torch.nan, torch.inf, -torch.inf], True),
        ([torch.nan], [0.0], False),
        ([0.0], [torch.nan], False),
        ([0.0], [torch.inf], False),
        ([torch.inf], [-torch.inf], False),
        ([1.0, 1.0], [1.0], False),
        ([], [], True),
    ],
)
def test_differences(got: list[float], wanted: list[float], agree: bool) -> None:
    differences = Differences()
    differences.compare("something", torch.tensor(got), torch.tensor(wanted), 1e-3)
    finding = differences.finding("all")
    assert finding.verdict == ("ok" if agree else "error")
    assert agree or finding.found.startswith("wrong: something; first something: ")


def test_all_that_is_wrong_is_named_once() -> None:
    differences = Differences()
    for name, value in (("a", 1.0), ("b", 5.0), ("c", 7.0), ("c", 8.0)):
        differences.compare(name, torch.tensor([value]), torch.tensor([1.0]), 0.5)
    assert differences.finding("all").found == "wrong: b, c; first b: 5 instead of 1"


def off(function: Callable[..., None], argument: int, change: Callable[[Tensor], Tensor]) -> Any:
    """A module of noise functions of which each changes one argument first."""

    class Functions:
        def __getattr__(self, name: str) -> Callable[..., None]:
            stock = getattr(plain, name)

            def changed(*arguments: Any) -> None:
                values = [
                    change(a) if name == function.__name__ and i == argument else a for i, a in enumerate(arguments)
                ]
                stock(*values)

            return changed

    return Functions()


@pytest.mark.parametrize(
    ("function", "argument", "named"),
    [
        (plain.draw_noise, 1, "drawn noise"),
        (plain.add_right_noise, 3, "right noise"),
        (plain.add_left_noise, 1, "left noise"),
    ],
)
def test_noise_from_another_seed_or_scale_is_found(function: Callable[..., None], argument: int, named: str) -> None:
    change = (lambda seeds: seeds + 1) if argument == 1 and named == "drawn noise" else (lambda factor: 1.1 * factor)
    differences = Differences()
    kernels.compare_noise(differences, off(function, argument, change), "cpu")
    assert {line.partition(" (")[0] for line in differences.wrong} == {named}


def test_the_plain_formulas_agree_with_themselves() -> None:
    differences = Differences()
    kernels.compare_noise(differences, plain, "cpu")  # type: ignore[arg-type]
    kernels.compare_merge(differences, plain.merge_own_token, "cpu")
    assert not differences.wrong
    assert len({case.qkv.dtype for _, case in noise_cases()}) == len({case.key.dtype for _, case in merge_cases()}) == 3


def test_a_merge_that_ignores_empty_prefixes_is_found() -> None:
    plainly: Callable[..., None] = plain.merge_own_token

    def merge(*arguments: Any) -> None:
        plainly(*arguments[:5], torch.ones_like(arguments[5]), *arguments[6:])

    differences = Differences()
    kernels.compare_merge(differences, merge, "cpu")
    assert len(differences.wrong) == 9


def test_cpp_attention_that_looks_at_the_wrong_tokens_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    differences = Differences()
    cpp_kernels.compare_attention(differences)
    assert not differences.wrong
    attend: Callable[..., None] = cpp.attend
    monkeypatch.setattr(cpp, "attend", lambda *a: attend(*a[:5], a[5] + 1, *a[6:]))  # one token too many
    cpp_kernels.compare_attention(differences)
    assert differences.finding("attention").found.startswith("wrong: attention (float32, heads of 32), ")


def test_one_text_is_scored() -> None:
    finding = scored_text.check()
    assert finding.verdict == "ok", finding
    assert re.search(r"EU 0\.[1-9]", finding.found)


def test_a_text_scored_with_another_model_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    stock = scored_text.score
    monkeypatch.setattr(
        scored_text, "score", lambda model, prompt, token, seed: stock(model, prompt[1:], token, seed=seed)
    )
    finding = scored_text.check()
    assert finding.verdict == "error"
    assert finding.found.startswith(f"wrong: {', '.join(FIELDS)}; first {FIELDS[0]}: ")


@pytest.mark.parametrize("change", [{"seed": 4}, {"sigma": 0.45}, {"num_samples": 4}])
def test_a_text_scored_with_other_noise_is_found(monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]) -> None:
    stock = scored_text.score
    monkeypatch.setattr(
        scored_text, "score", lambda model, prompt, token, seed: stock(model, prompt, token, **{"seed": seed} | change)
    )
    wrong = scored_text.check().details["wrong"]
    assert {line.partition(":")[0] for line in wrong} == {"total", "aleatoric", "epistemic", "implicit_reward"}


@needs_triton
def test_triton_kernels_agree_in_the_interpreter() -> None:
    """And the sum of chunks that are one too few does not: the statistics are looked at in all of the vocabulary."""
    code = """
from bayesian_transformer.doctor.comparisons import cases, triton_kernels
from bayesian_transformer.vllm_plugin.kernels import triton_merge, triton_statistics
cases._LOGITS = tuple((samples, dtype, 5_003) for samples, dtype, _ in cases._LOGITS)
for check in (triton_kernels.statistics, triton_kernels.noise, triton_kernels.merge):
    finding = check("cpu")
    print(finding.verdict, finding.found)
stock, merge = triton_statistics.fused_token_uncertainty, triton_merge.merge
triton_statistics.fused_token_uncertainty = lambda logits, ids: stock(logits[..., :-1], ids)
triton_merge.merge = lambda *a: merge(*a[:6], 1.02 * a[6], a[7])
for check in (triton_kernels.statistics, triton_kernels.merge):
    finding = check("cpu")
    print(finding.verdict, finding.found)
"""
    lines = run_python(code, TRITON_INTERPRET="1").splitlines()
    assert [line.partition(" ")[0] for line in lines] == ["ok", "ok", "ok", "error", "error"], lines
    assert lines[3].startswith("error wrong: statistics (float32, 1 x 5003), ")
    assert "mixture" not in lines[3]
    assert lines[4].startswith("error wrong: merge (")


@pytest.fixture
def gpu_attention(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module with a stand-in for FlashAttention; every difference from it must be found."""
    from vllm.v1.attention.backends import fa_utils

    from bayesian_transformer.doctor.comparisons import gpu_attention
    from tests.helpers.cuda_stand_ins import stand_in_varlen

    monkeypatch.setattr(fa_utils, "flash_attn_varlen_func", stand_in_varlen, raising=False)
    return gpu_attention


@needs_vllm
@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_attention_and_a_decode_step_with_stand_ins(gpu_attention: Any, version: int, dtype: torch.dtype) -> None:
    differences = Differences()
    gpu_attention.compare_attention(differences, version, dtype, 64, "cpu")
    for kind in ("right", "left"):
        gpu_attention.compare_replays(differences, version, dtype, "cpu", lambda step: step, kind)
    assert not differences.wrong
    assert {name.split(", ")[1] for name in differences.shares if "graph" in name} == {"right noise", "left noise"}
    assert {name.partition(" (")[0] for name in differences.shares} == {
        *("attention", "noise in a graph", "attention in a graph", "statistics in a graph")
    }
    assert max(differences.shares.values()) < 0.2  # the tolerance leaves room for a GPU's order of sums


@needs_vllm
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_attention_to_one_token_too_few_is_found(
    gpu_attention: Any, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    from tests.helpers.cuda_stand_ins import stand_in_varlen

    def short(**arguments: Any) -> Any:
        return stand_in_varlen(**arguments | {"seqused_k": (arguments["seqused_k"] - 1).clamp_min(0)})

    monkeypatch.setattr("vllm.v1.attention.backends.fa_utils.flash_attn_varlen_func", short, raising=False)
    differences = Differences()
    gpu_attention.compare_attention(differences, 3, dtype, 64, "cpu")
    assert differences.wrong


@needs_vllm
@pytest.mark.parametrize("version", [2, 3])
def test_a_split_of_a_long_prefix_that_is_lost_is_found(
    gpu_attention: Any, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    """The last of 32, in the coarsest dtype, eagerly and in a graph; no short prefix has that many."""
    from tests.helpers.cuda_stand_ins import stand_in_varlen

    def lossy(**arguments: Any) -> Any:
        lengths = arguments["seqused_k"]
        return stand_in_varlen(**arguments | {"seqused_k": torch.where(lengths > 1_000, lengths - 128, lengths)})

    monkeypatch.setattr("vllm.v1.attention.backends.fa_utils.flash_attn_varlen_func", lossy, raising=False)
    differences = Differences()
    gpu_attention.compare_attention(differences, version, torch.bfloat16, 64, "cpu")
    gpu_attention.compare_replays(differences, version, torch.bfloat16, "cpu", lambda step: step)
    assert {line.partition(" (")[0] for line in differences.wrong} == {"attention", "attention in a graph"}
    assert len(differences.wrong) == 2 * len(gpu_attention._LIMITS) + 2  # each batch has a long prefix


@needs_vllm
@pytest.mark.parametrize("kind", ["right", "left"])
@pytest.mark.parametrize("missing", ["noise", "attention", "statistics"])
def test_a_part_that_is_missing_from_the_graph_is_found(
    gpu_attention: Any, monkeypatch: pytest.MonkeyPatch, missing: str, kind: str
) -> None:
    """What was computed on the host while the step was captured, say."""
    parts = {
        "noise": ("DecodeStep.run", lambda step: None),
        "attention": ("DecodeStep.attend", lambda step: None),
        "statistics": ("kernels.token_uncertainty", lambda logits, ids: uncertainty.token_uncertainty(0 * logits, ids)),
    }

    def capture(step: Callable[[], None]) -> Callable[[], None]:
        name, stand_in = parts[missing]
        monkeypatch.setattr(f"{gpu_attention.__name__}.{name}", stand_in)
        return (lambda: None) if missing == "noise" else step

    differences = Differences()
    gpu_attention.compare_replays(differences, 3, torch.bfloat16, "cpu", capture, kind)
    assert differences.finding("all").found.startswith(f"wrong: {missing} in a graph (bfloat16, {kind} noise, ")
