"""The package's pyproject.toml and the requirements files, as pip reads them; and what our sources import."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "bayesian_transformer/bayesian_transformer"
REQUIREMENT_FILES = ("requirements.txt", "requirements-cpu.txt", "requirements-scripts.txt", "requirements-dev.txt")
OURS = {"bayesian_transformer", "run", "eval", "benchmarks", "tests"}
_TEXTS = {".py", ".sh", ".md", ".toml", ".txt", ".cff"}


def project() -> dict[str, Any]:
    """The table [project] of the package's pyproject.toml."""
    return tomllib.loads((ROOT / "bayesian_transformer/pyproject.toml").read_text(encoding="utf-8"))["project"]


def extra(name: str) -> dict[str, Requirement]:
    return _by_name(project()["optional-dependencies"][name])


def base() -> dict[str, Requirement]:
    return _by_name(project()["dependencies"])


def required(file: str) -> dict[str, Requirement]:
    """The packages that a requirements file names itself, not those of files and extras that it includes."""
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    texts = [re.sub(r"(^|\s)#.*", "", line).strip() for line in lines]
    return _by_name([text for text in texts if text and not text.startswith("-")])


def _by_name(texts: list[str]) -> dict[str, Requirement]:
    found = [Requirement(text) for text in texts]
    return {canonicalize_name(requirement.name): requirement for requirement in found}


@cache
def _distributions() -> dict[str, list[str]]:
    return {name: [canonicalize_name(found) for found in names] for name, names in packages_distributions().items()}


def imported_by(source: Path) -> set[str]:
    """Top-level names of other packages' modules that a file imports, anywhere in it; not those of Python itself."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add((node.module or "").partition(".")[0])
    return names - OURS - sys.stdlib_module_names


def providers(module: str) -> list[str]:
    """The installed distributions that a top-level module comes from."""
    return _distributions().get(module, [])


def texts() -> Iterator[tuple[Path, str]]:
    """Every source and document of the repository with its text."""
    written = ("results", "models")  # by users, where scripts put them
    top = [path for path in ROOT.iterdir() if not path.name.startswith(".") and path.name not in written]
    for path in sorted(found for start in top for found in (start.rglob("*") if start.is_dir() else [start])):
        if path.is_file() and path.suffix in _TEXTS:
            yield path.relative_to(ROOT), path.read_text(encoding="utf-8")
