"""The decode benchmark: its arithmetic by hand, its baseline check, and one tiny run with real engines."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from click.testing import CliRunner
from transformers import AutoConfig

from bayesian_transformer.config import NoiseConfig
from benchmarks.bench_decode import Case, Options, case_record, main
from benchmarks.utils.baseline import baseline_of, regressions
from benchmarks.utils.engines import Engine, Paired, paired_rounds, steps_needed
from benchmarks.utils.printed_table import table
from benchmarks.utils.shapes import SHAPES, Cost, Shape, write_pair

MACHINE = {"bytes_per_second": 1e9, "flops_per_second": 1e10, "threads": 1, "device": "cpu"}
# Parameters of the published checkpoints, tied embeddings counted once.
PUBLISHED = {
    "llama-3.2-1b": 1_235_814_400,
    "qwen2.5-3b": 3_085_938_688,
    "llama-3.1-8b": 8_030_261_248,
    "smollm2-135m": 134_515_008,
    "qwen3-0.6b": 596_049_920,
    "gemma-3-1b": 999_885_952,
    "phi-4-mini": 3_836_021_760,
}


def _shape(tmp_path: Path, name: str, dtype: str = "bfloat16") -> Shape:
    return Shape.from_path(write_pair(name, tmp_path)[0], dtype)


@pytest.mark.parametrize("name", PUBLISHED)
def test_named_shapes_have_the_published_number_of_parameters(name: str, tmp_path: Path) -> None:
    base, _ = write_pair(name, tmp_path)
    config = AutoConfig.from_pretrained(base)
    with torch.device("meta"):
        model = getattr(transformers, config.architectures[0])(config)
    parameters = {id(p): p for p in model.parameters()}.values()
    assert sum(p.numel() for p in parameters) == PUBLISHED[name]
    matrices = sum(p.numel() for p in parameters if p.dim() == 2)
    assert _shape(tmp_path, name).weight_bytes == 2 * matrices


@pytest.mark.parametrize("name", SHAPES)
def test_the_pair_differs_in_the_noise_keys_only(name: str, tmp_path: Path) -> None:
    base, tfb = (json.loads((path / "config.json").read_text()) for path in write_pair(name, tmp_path))
    assert tfb["model_type"] == f"tfb_{base['model_type']}"
    assert NoiseConfig.from_model_config(AutoConfig.from_pretrained(tmp_path / "tfb")).num_samples == 10
    shared = base.keys() - {"model_type", "architectures"}
    assert {key: tfb[key] for key in shared} == {key: base[key] for key in shared}


def test_step_cost_of_the_tiny_shape_by_hand(tmp_path: Path) -> None:
    shape = _shape(tmp_path, "tiny")
    layer = 128 * 128 + 2 * 128 * 64 + 128 * 128 + 3 * 128 * 256  # q, k and v, o, mlp
    weights = 2 * layer + 128 * 512
    basis = 2 * 8 * (128 + 64)
    assert (shape.matmul_weights, shape.basis_elements, shape.kv_token_bytes) == (weights, basis, 2 * 2 * 64 * 2)
    plain = shape.step_cost(sequences=3, context=10)
    assert plain == Cost(weights * 2 + 3 * 10 * 512, 2 * 3 * weights + 4 * 3 * 10 * 128 * 2)
    ours = shape.step_cost(sequences=3, context=10, num_samples=5)
    assert ours.read == (weights + basis) * 2 + 3 * 10 * 512  # the K/V of a request is read once for all its samples
    assert ours.compute == 2 * 15 * weights + 4 * 15 * 10 * 128 * 2 + 2 * 12 * basis


def test_a_window_is_all_that_a_step_reads(tmp_path: Path) -> None:
    """Five layers of six have a window of 512 tokens; a shape that is cut keeps the kinds of its first layers."""
    shape = Shape.from_path(write_pair("gemma-3-1b", tmp_path, layers=6)[0], "bfloat16")
    assert (shape.layers, shape.windowed_layers, shape.window) == (6, 5, 512)
    short, long = (shape.step_cost(sequences=2, context=context) for context in (512, 2048))
    assert long.read - short.read == 2 * (2048 - 512) * 2 * 256 * 2  # one KV head of 256, of the one whole layer
    assert long.compute - short.compute == 4 * 2 * (2048 - 512) * 4 * 256


def test_one_sample_costs_what_plain_costs(tmp_path: Path) -> None:
    shape = _shape(tmp_path, "tiny")
    assert shape.step_cost(4, 20, num_samples=1) == shape.step_cost(4, 20)


def test_the_roofline_is_the_slower_of_memory_and_arithmetic() -> None:
    assert Cost(read=2_000_000_000, compute=10).seconds(MACHINE) == pytest.approx(2.0)
    assert Cost(read=10, compute=30_000_000_000).seconds(MACHINE) == pytest.approx(3.0)


def test_the_ratio_is_the_median_of_rounds_not_the_ratio_of_medians() -> None:
    paired = Paired(ours=[2.0, 8.0, 6.0], other=[1.0, 5.0, 2.0])  # the machine's speed drifts fivefold
    summary = paired.summary()
    assert (summary["ours_seconds"], summary["seconds"]) == (6.0, 2.0)
    assert (summary["ratio"], summary["ratio_min"], summary["ratio_max"]) == pytest.approx((2.0, 1.6, 3.0))


def test_rounds_alternate_who_goes_first() -> None:
    order: list[str] = []

    class Clock(Engine):
        def __init__(self, name: str, seconds: float) -> None:
            self.label, self.seconds = name, seconds

        def call(self, method: str, **arguments: Any) -> dict[str, list[float]]:
            order.append(self.label)
            assert method == "steps"
            steps = [self.seconds] * (arguments["count"] - 1) + [100.0]  # one step that something else disturbed
            return {"core": steps, "total": [2 * s for s in steps]}

    paired = paired_rounds(Clock("ours", 3.0), Clock("plain", 2.0), rounds=3, steps=4)
    assert order == ["ours", "plain", "plain", "ours", "ours", "plain"]
    assert paired["core"].ratios == [1.5] * 3
    assert paired["total"].other == [4.0] * 3


def _record(tmp_path: Path, batch: int = 4, ours: float = 0.03) -> dict[str, Any]:
    timings = {
        "limit": Paired([ours], [0.02]),
        "plain": Paired([ours], [0.01]),
        "plain_with_front_end": Paired([ours], [0.01]),
    }
    return case_record(Case(batch, 5, 128), timings, _shape(tmp_path, "tiny"), MACHINE)


def _result(*cases: dict[str, Any]) -> dict[str, Any]:
    settings = {"model": "tiny", "dtype": "bfloat16", "device": "cpu", "enforce_eager": True}
    return settings | {"cases": list(cases), "machine": MACHINE}


def test_a_case_record_holds_ratios_rates_and_shares(tmp_path: Path) -> None:
    record = _record(tmp_path)
    assert (record["limit"]["ratio"], record["plain"]["ratio"]) == pytest.approx((1.5, 3.0))
    assert record["tokens_per_second"] == pytest.approx({"ours": 4 / 0.03, "plain": 4 / 0.01})
    least = _shape(tmp_path, "tiny").step_cost(4, 128, 5).seconds(MACHINE)
    assert record["roofline"]["ours"]["share"] == pytest.approx(least / 0.03)
    row = table(_result(record)).splitlines()[-1]
    assert "3.000" in row
    assert "1.500" in row


@pytest.mark.parametrize(("ours", "worse"), [(0.029, []), (0.0329, []), (0.0331, ["limit", "plain"])])
def test_the_baseline_check_compares_ratios_beyond_the_tolerance(tmp_path: Path, ours: float, worse: list[str]) -> None:
    file = tmp_path / "baseline.json"
    file.write_text(json.dumps(baseline_of(_result(_record(tmp_path)))))
    lines = regressions(file, _result(_record(tmp_path, ours=ours)), tolerance=0.1)
    assert [line.split(":")[1].split()[0] for line in lines] == [f"ours/{kind}" for kind in worse]
    assert all(line.startswith("B=4 S=5 context=128: ours/") for line in lines)


def test_the_baseline_check_ignores_a_slower_machine(tmp_path: Path) -> None:
    file = tmp_path / "baseline.json"
    file.write_text(json.dumps(baseline_of(_result(_record(tmp_path)))))
    slow = _record(tmp_path)
    for kind in ("limit", "plain"):
        slow[kind] = slow[kind] | {
            "seconds": 10 * slow[kind]["seconds"],
            "ours_seconds": 10 * slow[kind]["ours_seconds"],
        }
    assert regressions(file, _result(slow), tolerance=0.0) == []


def test_a_baseline_of_other_settings_or_cases_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "baseline.json"
    file.write_text(json.dumps(baseline_of(_result(_record(tmp_path)))))
    with pytest.raises(ValueError, match="dtype='bfloat16', this run had 'float32'"):
        regressions(file, _result(_record(tmp_path)) | {"dtype": "float32"}, 0.1)
    with pytest.raises(ValueError, match="none of this run's cases"):
        regressions(file, _result(_record(tmp_path, batch=2)), 0.1)


@pytest.mark.parametrize("content", ["{", "[]", '{"ratios": {}}'])
def test_a_file_that_is_no_baseline_is_named_before_anything_is_measured(content: str, tmp_path: Path) -> None:
    file = tmp_path / "broken.json"
    file.write_text(content)
    result = CliRunner().invoke(main, ["--baseline", str(file)])
    assert result.exit_code == 1
    assert str(file) in result.output
    assert "--write-baseline" in result.output


def test_memory_counts_both_engines_and_every_sequence(tmp_path: Path) -> None:
    shape = _shape(tmp_path, "tiny")
    options = Options("tiny", tmp_path, tmp_path, "dummy", "bfloat16", True, 2, 4, 0, tmp_path)
    assert options.decode_steps >= 2 * steps_needed(2, 4)
    blocks = -(-(1000 + options.decode_steps) // 128)
    assert options.kv_bytes(shape, 7, 1000) == (7 * blocks + 1) * 128 * shape.kv_token_bytes
    small, large = (options.bytes_needed(shape, Case(batch, 5, 1000)) for batch in (1, 64))
    assert large - small == pytest.approx(63 * 6 * blocks * 128 * shape.kv_token_bytes, rel=0.1)


def test_nothing_is_started_when_no_case_fits(tmp_path: Path) -> None:
    options = ["--model-shape", "llama-3.1-8b", "--batch", "1", "--samples", "5", "--context", "128"]
    result = CliRunner().invoke(main, [*options, "--memory-gb", "1"])
    assert result.exit_code == 1
    assert "no case fits into memory" in result.output


def test_a_tfb_model_is_refused_where_the_base_model_is_asked_for(tiny_llama_tfb_path: Path) -> None:
    result = CliRunner().invoke(main, ["--model-path", str(tiny_llama_tfb_path)])
    assert result.exit_code == 1
    assert "is a TFB model; give the base model" in result.output


@pytest.mark.engine
def test_an_engine_that_dies_is_named_with_its_reason(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match=r"the plain engine died in 'start': .*nowhere.*; its log: .*plain\.log"),
        Engine.running("plain", tmp_path / "plain.log", model=str(tmp_path / "nowhere")),
    ):
        pass


@pytest.mark.engine
def test_every_sequence_has_the_same_context_while_it_is_timed(tmp_path: Path) -> None:
    base, _ = write_pair("tiny", tmp_path)
    options = {"dtype": "bfloat16", "enforce_eager": True, "load_format": "dummy", "skip_tokenizer_init": True}
    sizes = {"max_model_len": 128, "max_num_seqs": 9, "max_num_batched_tokens": 160, "kv_cache_memory_bytes": 1 << 26}
    with Engine.running("plain", tmp_path / "plain.log", model=str(base), **options, **sizes) as plain:
        waves = plain.call("fill", sequences=9, context=50, vocab_size=512)
        assert waves == 3
        assert plain.call("contexts") == [50] * 9
        plain.burst(3)
        plain.call("keep", sequences=2)
        assert plain.call("contexts") == [55] * 2
        assert len(plain.call("steps", count=4, discard=1)["core"]) == 4


@pytest.mark.engine
@pytest.mark.parametrize(("weights", "num_samples"), [("random", [3]), ("checkpoint", [1])])
def test_a_run_writes_its_result_and_a_baseline_that_it_meets(
    weights: str, num_samples: list[int], tmp_path: Path, tiny_llama_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKUR_CACHE", str(tmp_path / "cache"))
    model = ["--model-shape", "tiny"] if weights == "random" else ["--model-path", str(tiny_llama_path)]
    sizes = ["--batch", "2", "--context", "32", "--rounds", "2", "--steps", "2"]
    sizes += [f"--samples={count}" for count in num_samples]
    files = ["--json", str(tmp_path / "result.json"), "--write-baseline", str(tmp_path / "baseline.json")]
    run = CliRunner().invoke(main, [*model, *sizes, *files, "--enforce-eager", "--memory-gb", "1000"])
    assert run.exit_code == 0, run.output
    result = json.loads((tmp_path / "result.json").read_text())
    assert json.loads(run.stdout.splitlines()[-1]) == result
    assert [(case["batch"], case["num_samples"]) for case in result["cases"]] == [(2, count) for count in num_samples]
    assert all(case[kind]["ratio"] > 0 for case in result["cases"] for kind in ("limit", "plain"))
    assert result["machine"]["bytes_per_second"] > 0
    assert regressions(tmp_path / "baseline.json", result, tolerance=0.0) == []
