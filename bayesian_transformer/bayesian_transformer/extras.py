"""What the optional parts of the package need: the extras of its pyproject.toml, which is the one place they are in."""

from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from packaging.specifiers import SpecifierSet

_PACKAGE = __name__.partition(".")[0]


def require_extra(extra: str, *modules: str) -> None:
    """ValueError, in one line, if one of the modules that an extra brings is not installed. Imports none of them."""
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise ValueError(f"{', '.join(missing)} not installed; install {_PACKAGE} with its extra [{extra}]")


def supported_vllm() -> "SpecifierSet":
    """The supported versions of vLLM: what the extra [vllm] of the installed package asks for.

    ValueError, in one line, if the package's metadata is missing or says nothing of vLLM.
    """
    from importlib import metadata  # here, as a grading worker imports this module and needs neither

    from packaging.requirements import Requirement

    try:
        requirements = [Requirement(text) for text in metadata.requires(_PACKAGE) or ()]
    except metadata.PackageNotFoundError:
        requirements = []
    found = next((requirement.specifier for requirement in requirements if requirement.name == "vllm"), None)
    if not found:
        raise ValueError(
            f"the metadata of {_PACKAGE} does not say which vLLM it supports; install it with pip, "
            "a folder on PYTHONPATH is not enough"
        )
    return found
