"""Public names of the published modules and what can be seen of each: parameters, defaults, fields, members, values.

Read from the modules as a user imports them. Where an object is defined is left out, so that it can move.
"""

import ast
import dataclasses
import enum
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.outside.compare import REQUIRED

PUBLISHED = (
    "run.utils.config",
    "run.utils.grader",
    "run.utils.math",
    "run.utils.qwen_math_parser",
    "bayesian_transformer",
    "bayesian_transformer.config",
    "bayesian_transformer.layers",
    "bayesian_transformer.model",
    "bayesian_transformer.vllm_models",
    "bayesian_transformer.vllm_models.tfb_llama",
    "bayesian_transformer.vllm_models.tfb_llama_vllm",
    "bayesian_transformer.vllm_models.tfb_qwen2_vllm",
    "bayesian_transformer.vllm_models.unsupported",
)
# What README shows of other modules.
SHOWN = {
    "bayesian_transformer.embedded": ("base_model", "tfb_model"),
    "bayesian_transformer.scoring": ("ScoredText", "ScoringRequest", "score", "score_texts"),
    "bayesian_transformer.uncertainty": ("FIELDS", "TokenUncertainty", "Uncertainty", "token_uncertainty"),
}
_OURS = {"bayesian_transformer", "run", "eval", "benchmarks", "datasets", "convert_to_tfb"}
_PLAIN = (bool, int, float, str, type(None))


def own_names(module: ModuleType) -> list[str]:
    """Names that a module offers: those in `__all__`, `__version__`, and public ones that its source defines."""
    names = {*getattr(module, "__all__", ())}
    for node in _statements(module):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        targets = [*getattr(node, "targets", ()), getattr(node, "target", None)]  # of assignments of both kinds
        names.update(target.id for target in targets if isinstance(target, ast.Name))
    return sorted(name for name in names if _is_public(name))


def imported_names(module: ModuleType) -> list[str]:
    """Further public names that can be imported from a module, as it imports them from another one of this project."""
    names: set[str] = set()
    for node in _statements(module):
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").split(".")[0] in _OURS):
            names.update(alias.asname or alias.name for alias in node.names)
    return sorted(name for name in names - set(own_names(module)) if _is_public(name))


def described(module_name: str, names: list[str]) -> dict[str, Any]:
    """Descriptions of the `names` that a module still has."""
    module = importlib.import_module(module_name)
    return {name: _describe_name(name, getattr(module, name)) for name in names if hasattr(module, name)}


def present(module_name: str, names: list[str]) -> list[str]:
    """Those of the `names` that a module still has."""
    module = importlib.import_module(module_name)
    return [name for name in names if hasattr(module, name)]


def _statements(module: ModuleType) -> list[ast.stmt]:
    return ast.parse(Path(module.__file__ or "").read_text(encoding="utf-8")).body


def _is_public(name: str) -> bool:
    return not name.startswith("_") or name == "__version__"


def _is_ours(value: Any) -> bool:
    return str(getattr(value, "__module__", "")).split(".")[0] in _OURS


def _describe_name(name: str, value: Any) -> Any:
    return {} if name == "__version__" else describe(value)


def describe(value: Any) -> Any:
    """Classes of ours and callables in full, plain values as text, containers by key or field; of other objects {}."""
    if inspect.isclass(value):
        return _describe_class(value) if _is_ours(value) else {}
    if callable(value):
        return _describe_callable(value)
    if isinstance(value, dict):
        return {str(key): describe(item) for key, item in value.items()}
    if dataclasses.is_dataclass(value):
        parts = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return {name: _describe_plain(part) for name, part in parts.items()}
    return _describe_plain(value)


def _describe_plain(value: Any) -> dict[str, str]:
    return {"value": shown(value)} if _is_plain(value) else {}


def _is_plain(value: Any) -> bool:
    return isinstance(value, _PLAIN) or (isinstance(value, tuple) and all(_is_plain(item) for item in value))


def shown(value: Any) -> str:
    """`value` as text that does not tell where it is defined or lies in memory."""
    if inspect.isclass(value) or inspect.isroutine(value):
        return value.__qualname__
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def _describe_callable(value: Any, skip: int = 0) -> dict[str, Any]:
    """Parameters after the first `skip`; positions count where an argument can be given by position."""
    parameters = list(inspect.signature(value).parameters.values())[skip:]
    result: dict[str, Any] = {"parameters": {}, REQUIRED: []}
    for position, parameter in enumerate(parameters):
        entry: dict[str, Any] = {"kind": parameter.kind.description}
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            entry["position"] = position
        if parameter.default is not parameter.empty:
            entry["default"] = shown(parameter.default)
        elif parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            result[REQUIRED].append(parameter.name)
        result["parameters"][parameter.name] = entry
    return result


def _describe_class(cls: type) -> dict[str, Any]:
    """What `cls` and those of its bases that are ours declare: fields or parameters, and public members."""
    bases = [base for base in cls.__mro__ if _is_ours(base)]
    if issubclass(cls, enum.Enum):
        return {"members": {member.name: shown(member.value) for member in cls}}
    result: dict[str, Any] = {}
    if dataclasses.is_dataclass(cls):
        result |= _describe_fields(cls, bases)
    elif any("__init__" in vars(base) for base in bases):
        result |= _describe_callable(cls.__init__, skip=1)  # type: ignore[misc]
    members = {name: member for base in reversed(bases) for name, member in _members(base)}
    fields = result.get("fields", {})
    return result | {"members": {name: member for name, member in members.items() if name not in fields}}


def _describe_fields(cls: Any, bases: list[type]) -> dict[str, Any]:
    """The fields of a dataclass that classes of ours declare."""
    declared = {name for base in bases for name in inspect.get_annotations(base)}
    result: dict[str, Any] = {"fields": {}, REQUIRED: []}
    position = 0
    for field in dataclasses.fields(cls):
        entry: dict[str, Any] = {}
        if field.init and not field.kw_only:
            entry["position"] = position
            position += 1
        if field.default is not dataclasses.MISSING:
            entry["default"] = shown(field.default)
        elif field.default_factory is not dataclasses.MISSING:
            entry["default"] = f"{shown(field.default_factory)}()"
        elif field.init and field.name in declared:
            result[REQUIRED].append(field.name)
        if field.name in declared:
            result["fields"][field.name] = entry
    return result


def _members(cls: type) -> Iterator[tuple[str, Any]]:
    """The public members in the body of a class."""
    for name, member in vars(cls).items():
        if name.startswith("_"):
            continue
        if isinstance(member, classmethod | staticmethod):
            yield name, _describe_callable(getattr(cls, name))
        elif isinstance(member, property):
            yield name, {"kind": "property"}
        elif not inspect.isfunction(member):
            yield name, _describe_plain(member)
        elif _is_ours(member):  # not what a decorator of a library added
            yield name, _describe_callable(member, skip=1)
