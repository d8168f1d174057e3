"""What the built wheel and sdist hold: every file of the package and nothing else, and complete metadata."""

import re
import tarfile
import zipfile
from email import message_from_bytes
from email.message import Message
from email.policy import compat32
from importlib import import_module
from pathlib import Path

import pytest

import bayesian_transformer
from bayesian_transformer import command_line
from tests.helpers.requirement_files import PACKAGE, ROOT, project

NEEDED = (".cpp", ".css", ".h", ".j2", ".js", ".py", ".typed")


@pytest.fixture(scope="session")
def wheel(built: Path) -> zipfile.ZipFile:
    (path,) = built.glob("*.whl")
    assert path.name == f"bayesian_transformer-{bayesian_transformer.__version__}-py3-none-any.whl"
    return zipfile.ZipFile(path)


@pytest.fixture(scope="session")
def metadata(wheel: zipfile.ZipFile) -> Message:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return message_from_bytes(wheel.read(name), policy=compat32)


def package_files() -> set[str]:
    """The files of the package as they are in the repository, relative to the folder that holds it."""
    files = (path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(PACKAGE.parent)) for path in files}


def test_there_is_something_of_every_kind() -> None:
    assert {Path(name).suffix or Path(name).name for name in package_files()} - {"py.typed"} == set(NEEDED)


def test_the_wheel_holds_the_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    assert {name for name in wheel.namelist() if ".dist-info/" not in name} == package_files()


def test_the_sdist_holds_what_the_wheel_is_built_from(built: Path) -> None:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    # hatchling adds the .gitignore that it went by.
    assert names - {".gitignore"} == package_files() | {"LICENSE", "PKG-INFO", "README.md", "pyproject.toml"}


def test_the_licence_is_the_repositorys(wheel: zipfile.ZipFile, metadata: Message) -> None:
    (name,) = (name for name in wheel.namelist() if name.endswith("licenses/LICENSE"))
    assert wheel.read(name) == (ROOT / "LICENSE").read_bytes()
    assert metadata["License-Expression"] == "MIT"


def test_the_metadata_is_complete(wheel: zipfile.ZipFile, metadata: Message) -> None:
    assert metadata["Version"] == bayesian_transformer.__version__
    assert metadata["Author"]
    assert metadata.get_payload() == (ROOT / "bayesian_transformer/README.md").read_text(encoding="utf-8")
    assert metadata["Description-Content-Type"] == "text/markdown"
    for field in ("Summary", "Keywords", "Classifier", "Project-URL", "Requires-Python"):
        assert metadata[field], field
    assert set(metadata.get_all("Provides-Extra") or ()) == set(project()["optional-dependencies"])
    (name,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    points = wheel.read(name).decode()
    assert "[console_scripts]\ntokur = bayesian_transformer.command_line:main\n" in points
    assert "[vllm.general_plugins]\nbayesian_transformer = bayesian_transformer.vllm_plugin:register\n" in points


def test_the_packages_readme_says_what_is_there() -> None:
    text = (ROOT / "bayesian_transformer/README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"`\[([\w-]+)\]`", text)) == set(project()["optional-dependencies"])
    commands = command_line.main.list_commands(None)  # type: ignore[arg-type]
    assert set(re.findall(r"\btokur (\w+)", text)) <= set(commands)
    (convert,) = re.findall(r"^tokur convert (.*)$", text, re.MULTILINE)
    known = {
        option for parameter in import_module("bayesian_transformer.convert").main.params for option in parameter.opts
    }
    assert set(re.findall(r"--[\w-]+", convert)) <= known
    for module in re.findall(r"`(bayesian_transformer\.[\w.]+)`", text):
        import_module(module)
    for source in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        compile(source, "README.md", "exec")
    assert "](" not in re.sub(r"\]\(https://", "", text)  # a link into the repository leads nowhere from a wheel
