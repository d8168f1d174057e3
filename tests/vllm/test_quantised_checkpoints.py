"""Quantised checkpoints with the basis vectors of their unquantised sibling, on the kernels that vLLM has for CPUs."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from bayesian_transformer import tfb
from bayesian_transformer.conversion import convert_bases, convert_checkpoint
from bayesian_transformer.hf.plain_checkpoints import load_plain
from bayesian_transformer.scoring import score
from bayesian_transformer.uncertainty import FIELDS
from tests.helpers.quantised_checkpoints import Quantised, quantise
from tests.helpers.reference import reference_uncertainties
from tests.helpers.tiny_families import save_family
from tests.helpers.vllm_engines import engine, table, token_prompts

vllm = pytest.importorskip("vllm")
pytestmark = pytest.mark.engine

SIGMA, NUM_SAMPLES, TOKENS, RANK = 0.3, 4, 6, 5
NOISE: dict[str, Any] = {"num_samples": NUM_SAMPLES, "bayes_sigma": SIGMA, "rank": RANK}
PROMPTS = [[5, 400, 17], list(range(30, 75))]
OPTIONS: dict[str, Any] = {"in_process": True, "skip_tokenizer_init": True, "max_model_len": 256}
# A scheme, a family and a direction. vLLM's kernels for four bits take 16-bit floats only.
CASES = [
    ("int8", "granite", "right", "float32"),  # which has biases
    ("fp8", "granite", "left", "float32"),
    ("w4a16", "qwen3", "left", "float16"),
    ("gptq", "phi3", "right", "float16"),  # whose q, k and v are one weight
    ("awq", "mistral", "right", "float16"),
]
# Kernels in 16-bit floats, against a reference in float32.
TOLERANCE = dict.fromkeys(FIELDS, 1e-3) | {"implicit_reward": 5e-3, "logprob": 1e-2, "confidence": 5e-3}


class IntegerInputs(nn.Linear):
    """A linear layer with W8A8's inputs: each row rounded to integers of 8 bits, by its own scale."""

    def forward(self, input: Tensor) -> Tensor:
        scale = input.abs().amax(-1, keepdim=True) / 127
        return super().forward((input / scale).round() * scale)


class FloatInputs(nn.Linear):
    """The same with floats of 8 bits."""

    def forward(self, input: Tensor) -> Tensor:
        scale = input.abs().amax(-1, keepdim=True) / 448
        return super().forward((input / scale).to(torch.float8_e4m3fn).float() * scale)


ROUNDED_INPUTS = {"int8": IntegerInputs, "fp8": FloatInputs}


Decoded = list[tuple[list[int], np.ndarray]]  # tokens, and their quantities [tokens, 8]


def set_sigma(model: Any, sigma: float) -> None:
    model.particles.noise = model.particles.noise.replaced(bayes_sigma=sigma)


def ask(llm: Any) -> Decoded:
    """The greedy tokens of PROMPTS; a stock engine gives no quantities."""
    sampling = [
        vllm.SamplingParams(seed=seed, temperature=0.0, max_tokens=TOKENS, ignore_eos=True, detokenize=False)
        for seed in range(len(PROMPTS))
    ]
    outputs = [output.outputs[0] for output in llm.generate(token_prompts(PROMPTS), sampling, use_tqdm=False)]
    return [
        (list(output.token_ids), table(output) if hasattr(output, "uncertainties") else np.empty(0))
        for output in outputs
    ]


def decode(path: Path, **options: Any) -> Decoded:
    with engine(path, **OPTIONS | options) as llm:
        return ask(llm)


def make_bases(base: Path, folder: Path, kind: str = "right") -> Path:
    return convert_bases(base, folder / "bases.safetensors", rank=RANK, bayes_noise=kind)


def overrides(bases: Path, kind: str = "right") -> Any:
    return tfb(**NOISE, bayes_noise=kind, basis_path=bases)


def reference(quantised: Quantised, scheme: str, kind: str, bases: Path, decoded: Decoded, seed: int) -> np.ndarray:
    """What transformers computes in float32 from the dequantised weights for the decoded tokens [all of them, 8].

    With the hooks of the tests' own reference, but for a fused projection, which those do not take apart.
    """
    stored = load_file(bases)
    model: Any = AutoModelForCausalLM.from_pretrained(quantised.dequantised, dtype=torch.float32).eval()
    is_fused = model.config.model_type == "phi3"
    if is_fused:
        model = load_plain(quantised.dequantised, torch.float32, **NOISE, bayes_noise=kind)
        model.eval()
        for projection in model.noisy_projections:
            projection.set_basis(stored, RANK, kind)
    for name, module in model.named_modules():
        if scheme in ROUNDED_INPUTS and isinstance(module, nn.Linear) and name != "lm_head":
            module.__class__ = ROUNDED_INPUTS[scheme]
    tables = []
    for number, (prompt, (tokens, _)) in enumerate(zip(PROMPTS, decoded, strict=True)):
        if is_fused:
            tables.append(score(model, prompt, tokens, seed=seed + number).stack().numpy())
        else:
            columns = reference_uncertainties(model, prompt, tokens, seed + number, SIGMA, NUM_SAMPLES, kind, stored)
            tables.append(np.column_stack([columns[name] for name in FIELDS]))
    return np.concatenate(tables)


@pytest.mark.parametrize(("scheme", "family", "kind", "dtype"), CASES)
def test_the_numbers_are_those_of_the_dequantised_weights(
    scheme: str, family: str, kind: str, dtype: str, tmp_path: Path
) -> None:
    base = save_family(family, tmp_path / "base")
    quantised = quantise(base, tmp_path, scheme)
    bases = make_bases(base, tmp_path, kind)
    with engine(quantised.path, hf_overrides=overrides(bases, kind), dtype=dtype, **OPTIONS) as llm:
        decoded = ask(llm)
        llm.reset_prefix_cache()
        llm.apply_model(partial(set_sigma, sigma=0.0))
        silent = ask(llm)
    expected, other = (reference(quantised, scheme, kind, bases, decoded, key) for key in (0, 100))
    found = np.concatenate([numbers for _, numbers in decoded])
    for name, values, wanted, others in zip(FIELDS, found.T, expected.T, other.T, strict=True):
        error = np.abs(values - wanted)
        # An input may be rounded up here and down there, which is seen in later tokens. Steps of FP8 are wide.
        assert error.max() < TOLERANCE[name] * (5 if scheme == "fp8" else 1), name
        assert scheme != "int8" or np.median(error) < 1e-5, name  # whose kernel computes in float32
        if name in ("epistemic", "implicit_reward"):  # other noise is seen
            assert np.abs(values - others).max() > 5 * TOLERANCE[name]
    stock = decode(quantised.path, dtype=dtype)
    assert [tokens for tokens, _ in silent] == [tokens for tokens, _ in stock]
    assert max(np.abs(numbers[:, FIELDS.index("epistemic")]).max() for _, numbers in silent) < 1e-5


def test_ranks_take_their_shares_of_the_bases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shape = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=512, num_key_value_heads=2, initializer_range=0.1, dtype="float32", **shape)
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(tmp_path / "base")
    quantised = quantise(tmp_path / "base", tmp_path, "w4a16")
    bases = make_bases(tmp_path / "base", tmp_path)
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")  # one NUMA node has no place for two bound workers
    options: dict[str, Any] = {"kv_cache_memory_bytes": 1 << 26, "tensor_parallel_size": 2}
    decoded = decode(quantised.path, hf_overrides=overrides(bases), dtype="float16", **options)
    expected = reference(quantised, "w4a16", "right", bases, decoded, 0)
    found = np.concatenate([numbers for _, numbers in decoded])
    assert (np.abs(found - expected) < [TOLERANCE[name] for name in FIELDS]).all()


def test_stored_bases_of_a_plain_checkpoint_are_the_computed_ones(tmp_path: Path) -> None:
    base = save_family("phi3", tmp_path / "base")
    stored = decode(base, hf_overrides=overrides(make_bases(base, tmp_path)))
    computed = decode(base, hf_overrides=tfb(**NOISE))
    for (tokens, numbers), (other_tokens, other_numbers) in zip(stored, computed, strict=True):
        assert other_tokens == tokens
        assert np.array_equal(other_numbers, numbers)
    assert numbers[:, FIELDS.index("epistemic")].min() > 0


def test_without_noisy_samples_no_bases_are_asked_for(tmp_path: Path) -> None:
    quantised = quantise(save_family("qwen3", tmp_path / "base"), tmp_path, "int8")
    decoded = decode(quantised.path, hf_overrides=tfb(num_samples=1))
    assert all((numbers[:, FIELDS.index("epistemic")] == 0).all() for _, numbers in decoded)


def test_bases_stay_with_the_weights_that_they_were_made_of(tmp_path: Path) -> None:
    base, other = save_family("qwen3", tmp_path / "base"), save_family("qwen3", tmp_path / "other")
    bases = make_bases(base, tmp_path)
    with engine(base, hf_overrides=overrides(bases), **OPTIONS) as llm:
        before = ask(llm)
        llm.collective_rpc("reload_weights")
        llm.reset_prefix_cache()
        again = ask(llm)
        assert all(np.array_equal(one[1], two[1]) for one, two in zip(before, again, strict=True))
        with pytest.raises(ValueError, match=r"other: .*basis_vectors is missing"):
            llm.collective_rpc("reload_weights", kwargs={"weights_path": str(other)})
        weights = [("model.layers.0.self_attn.v_proj.weight", torch.zeros(160, 96))]
        with pytest.raises(ValueError, match=r"v_proj\.basis_vectors did not come with its weight"):
            llm.collective_rpc("reload_weights", kwargs={"weights_iterator": iter(weights)})


def refusal(path: Path, **options: Any) -> str:
    """The one line with which an engine refuses to start."""
    with pytest.raises(ValueError, match="Value error, ") as error, engine(path, **OPTIONS | options):
        pass
    return str(error.value).partition("Value error, ")[2].partition(" [type=")[0]


def test_refusals_name_what_is_wrong(tmp_path: Path) -> None:
    base = save_family("qwen3", tmp_path / "base")
    quantised = quantise(base, tmp_path, "int8").path
    bases = make_bases(base, tmp_path)
    assert "tokur convert --bases-only --model-path" in refusal(quantised, hf_overrides=tfb())
    left = refusal(quantised, hf_overrides=overrides(bases, "left"))
    assert left.startswith(f"{bases}: holds bases of bayes_noise 'right', not 'left'")
    rank = refusal(quantised, hf_overrides=tfb(basis_path=bases, rank=4))
    assert rank.startswith(f"{bases}: holds bases of basis_idx [0, 1, 2, 3, 4], not [0, 1, 2, 3]; set bayes_noise")
    absent = refusal(quantised, hf_overrides=overrides(tmp_path / "none.safetensors"))
    assert (
        absent == f"{tmp_path}/none.safetensors: no such file; give the one that tokur convert --bases-only has written"
    )
    own = {"architectures": ["VllmTFBQwen3ForCausalLM"], "basis_path": 3}  # as JSON has it
    assert refusal(quantised, hf_overrides=own) == "basis_path must be the name of a file; got 3"
    assert "quantization=mxfp8" in refusal(base, hf_overrides=tfb(), quantization="mxfp8", dtype="bfloat16")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("transform_config", {"config_groups": {}}, "transform_config of a quantised checkpoint"),
        (
            "kv_cache_scheme",
            {"num_bits": 8, "type": "float", "strategy": "tensor", "symmetric": True, "dynamic": False},
            "kv_cache_scheme of a quantised checkpoint (choose a kv_cache_dtype of 16 bits)",
        ),
    ],
)
def test_what_a_quantised_checkpoint_does_besides_is_refused(
    key: str, value: dict[str, Any], said: str, tmp_path: Path
) -> None:
    base = save_family("mistral", tmp_path / "base")  # FP8 caches on a CPU take its head size
    path = quantise(base, tmp_path, "int8").path / "config.json"
    config = json.loads(path.read_text())
    config["quantization_config"][key] = value
    path.write_text(json.dumps(config))
    assert said in refusal(path.parent, hf_overrides=overrides(make_bases(base, tmp_path)))


def test_a_quantised_tfb_model_has_bases_of_its_own(tmp_path: Path) -> None:
    base = save_family("mistral", tmp_path / "base")
    path = quantise(base, tmp_path, "int8").path
    bases = make_bases(base, tmp_path)
    expected = decode(path, hf_overrides=overrides(bases))
    config = json.loads((path / "config.json").read_text())
    keys = {"model_type": "tfb_mistral", "architectures": ["VllmTFBMistralForCausalLM"], "basis_idx": list(range(RANK))}
    (path / "config.json").write_text(json.dumps(config | keys))
    save_file(load_file(path / "model.safetensors") | load_file(bases), path / "model.safetensors", {"format": "pt"})
    noise = {"num_samples": NUM_SAMPLES, "bayes_sigma": SIGMA}
    decoded = decode(path, hf_overrides=noise)
    for (tokens, numbers), (other_tokens, other_numbers) in zip(decoded, expected, strict=True):
        assert other_tokens == tokens
        assert np.array_equal(other_numbers, numbers)
    assert "has basis vectors of its own; leave out basis_path" in refusal(
        path, hf_overrides=noise | {"basis_path": str(bases)}
    )
    with pytest.raises(ValueError, match="a quantised TFB model runs in vLLM only; load the unquantised one"):
        AutoModelForCausalLM.from_pretrained(path)


def stored_bases(model: Any) -> list[Tensor]:
    return [layer.self_attn.attn.qkv_noise.basis_vectors.clone() for layer in model.model.layers]


def test_weights_that_vllm_quantises_keep_their_bases(tmp_path: Path) -> None:
    """From a plain checkpoint and from a converted one, and when they are loaded again."""
    base = save_family("mistral", tmp_path / "base")
    options = OPTIONS | {"dtype": "bfloat16"}
    with engine(base, hf_overrides=tfb(**NOISE), **options) as llm:
        (plain,) = llm.apply_model(stored_bases)
    options["quantization"] = "fp8_per_channel"
    with engine(base, hf_overrides=tfb(**NOISE), **options) as llm:
        (bases,) = llm.apply_model(stored_bases)
        decoded = ask(llm)
        llm.collective_rpc("reload_weights")
        llm.reset_prefix_cache()
        again = ask(llm)
    assert all(torch.equal(one, two) and one.any() for one, two in zip(bases, plain, strict=True))
    converted = convert_checkpoint(base, tmp_path / "tfb", rank=RANK)
    stored = decode(converted, hf_overrides={"num_samples": NUM_SAMPLES, "bayes_sigma": SIGMA}, **options)
    assert [tokens for tokens, _ in decoded] == [tokens for tokens, _ in decode(base, **options)]
    for (_, numbers), (_, reloaded), (_, of_stored) in zip(decoded, again, stored, strict=True):
        assert numbers[:, FIELDS.index("epistemic")].min() > 0
        assert np.array_equal(reloaded, numbers)
        assert np.array_equal(of_stored, numbers)
