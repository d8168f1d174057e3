"""Command lines as users see them: options of the Python programs, help of the shell scripts, environment variables."""

import ast
import re
import runpy
import subprocess
import sys
import tomllib
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NoReturn
from unittest import mock

import click
from click.testing import CliRunner, Result

from tests.outside.compare import REQUIRED
from tests.outside.names import shown

ROOT = Path(__file__).resolve().parents[2]
_SCRIPTS = ("run/*.py", "eval/*.py", "datasets/*.py", "benchmarks/*.py", "convert_to_tfb.py")
_MODULES = ("bayesian_transformer.embedded", "bayesian_transformer.score", "bayesian_transformer.report")
_SOURCES = ("bayesian_transformer", "run", "eval", "datasets", "benchmarks", "convert_to_tfb.py")
_DEVICES = ("cpu", "cuda")  # the default depends on the machine
_SOURCED = ("common.sh", "experiments.sh")  # by the shell scripts that people run
_CAPITALS = "[A-Z][A-Z0-9_]+"
_OF_PYTHON = {"PYTHONPATH"}  # passed on to child processes, not a setting of ours


class _Handed(BaseException):
    """Carries the command that a program hands to click."""


def programs() -> list[str]:
    """Every Python program: scripts by path, modules as `-m name`."""
    scripts = sorted(path for pattern in _SCRIPTS for path in ROOT.glob(pattern))
    return [*(str(path.relative_to(ROOT)) for path in scripts), *(f"-m {name}" for name in _MODULES)]


@cache
def command(program: str) -> click.Command:
    """The click command that `python PROGRAM` runs, whatever it is called and wherever it is defined."""

    def main(self: click.Command, *args: Any, **kwargs: Any) -> NoReturn:
        raise _Handed(self)

    before = [*sys.path]
    try:
        with mock.patch.object(click.Command, "main", main), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a module may have been imported by others
            if program.startswith("-m "):
                runpy.run_module(program.removeprefix("-m "), run_name="__main__")
            else:
                runpy.run_path(str(ROOT / program), run_name="__main__")
    except _Handed as handed:
        return handed.args[0]
    finally:
        sys.path[:] = before
    raise AssertionError(f"python {program} runs no click command")


def invoke(program: str, *arguments: object) -> Result:
    """Run `python PROGRAM ARGUMENTS` within this process; AssertionError with what it printed unless it succeeds."""
    result = CliRunner().invoke(command(program), [str(argument) for argument in arguments])
    assert result.exit_code == 0, f"{program}: {result.output}\n{result.exception!r}"
    return result


def options(program: str) -> dict[str, Any]:
    """Options, by every spelling, and arguments of a program."""
    result: dict[str, Any] = {"options": {}, "arguments": {}, REQUIRED: []}
    context = click.Context(command(program))
    for parameter in command(program).params:
        entry = _describe(parameter, context)
        if parameter.required:
            result[REQUIRED].append(parameter.opts[0])
        if isinstance(parameter, click.Option):
            result["options"] |= dict.fromkeys((*parameter.opts, *parameter.secondary_opts), entry)
        else:
            result["arguments"][parameter.name] = entry
    return result


def _describe(parameter: click.Parameter, context: click.Context) -> dict[str, Any]:
    entry: dict[str, Any] = {"values": parameter.nargs, "repeatable": getattr(parameter, "multiple", False)}
    if isinstance(parameter.type, click.Choice):
        entry["choices"] = [str(choice) for choice in parameter.type.choices]
    default = parameter.get_default(context, call=False)
    if getattr(parameter, "is_flag", False):
        entry["values"], default = 0, bool(default)
    if not parameter.required:
        entry["default"] = _default_text(default)
    return entry


def _default_text(default: Any) -> str | None:
    """A default as text that is the same on every machine; None if there is none."""
    if default is None or default == () or "UNSET" in repr(default):  # depends on click's version
        return None
    if isinstance(default, Path):
        return str(default).replace(str(ROOT), "REPOSITORY")
    return "cuda or cpu" if default in _DEVICES else shown(default)


def python_environment() -> list[str]:
    """Environment variables that our Python reads: os.environ, os.getenv, and click's `envvar`."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in _python_files()]
    constants = {
        target.id: node.value.value
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    found = set()
    for node in (node for tree in trees for node in ast.walk(tree)):
        for name in _names_read(node):
            value = name.value if isinstance(name, ast.Constant) else constants.get(getattr(name, "id", ""))
            found.update([value] if isinstance(value, str) and value.isupper() else [])
    return sorted(found - _OF_PYTHON)


def _python_files() -> Iterator[Path]:
    for source in _SOURCES:
        path = ROOT / source
        yield from [path] if path.is_file() else sorted(path.rglob("*.py"))


def _names_read(node: ast.AST) -> list[ast.expr]:
    """The expressions for the variables that `node` reads."""
    if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load) and _is_environ(node.value):
        return [node.slice]
    if isinstance(node, ast.Compare) and any(_is_environ(right) for right in node.comparators):
        return [node.left]
    if not isinstance(node, ast.Call):
        return []
    names = [keyword.value for keyword in node.keywords if keyword.arg == "envvar"]
    function = node.func
    if isinstance(function, ast.Attribute) and function.attr in ("get", "setdefault", "pop"):
        names += node.args[:1] if _is_environ(function.value) else []
    elif getattr(function, "attr", getattr(function, "id", "")) == "getenv":
        names += node.args[:1]
    return names


def _is_environ(node: ast.expr) -> bool:
    return getattr(node, "attr", getattr(node, "id", "")) == "environ"


def shell_environment() -> list[str]:
    """Environment variables that our shell scripts read.

    These are names in capitals that they expand with a rule for the case that it is not set, such as ${NAME:-default},
    and names in capitals that a loop goes through, to be expanded as ${!name}.
    """
    found: set[str] = set()
    for path in (*sorted((ROOT / "bash_scripts").glob("*.sh")), ROOT / ".ci/run"):
        code = "\n".join(line for line in path.read_text(encoding="utf-8").splitlines() if line.lstrip()[:1] != "#")
        found.update(re.findall(rf"\$\{{({_CAPITALS}):?[-+?=]", code))
        for names in re.findall(rf"\bfor \w+ in ((?:{_CAPITALS} ?)+)(?:;|$)", code, re.MULTILINE):
            found.update(names.split())
    return sorted(found)


def scripts() -> list[str]:
    """The shell scripts that people run."""
    return sorted(path.name for path in (ROOT / "bash_scripts").glob("*.sh") if path.name not in _SOURCED)


def script_help(name: str) -> dict[str, list[str]]:
    """Options and environment variables that the help of a shell script names."""
    shell = ["bash", str(ROOT / "bash_scripts" / name), "--help"]
    text = subprocess.run(shell, check=True, capture_output=True, text=True, timeout=60).stdout
    known = {*shell_environment(), *python_environment()}
    variables = {word for word in re.findall(rf"\b{_CAPITALS}\b", text) if word in known or "_" in word}
    return {"options": sorted(set(re.findall(r"(?<!\S)\[?(--[a-z][\w-]*)", text))), "environment": sorted(variables)}


def package() -> dict[str, Any]:
    """What an installed package answers to: its name, extras, console scripts and entry points."""
    project = tomllib.loads((ROOT / "bayesian_transformer/pyproject.toml").read_text(encoding="utf-8"))["project"]
    points = {group: sorted(names) for group, names in project.get("entry-points", {}).items()}
    return {
        "name": project["name"],
        "extras": sorted(project["optional-dependencies"]),
        "scripts": sorted(project.get("scripts", {})),
        "entry points": points,
    }
