"""Registers the TFB models with transformers when transformers is there, without importing it.

transformers takes seconds to import and torch half a gigabyte, which a grading worker or `tokur --help` does without.
So our modules that put something into a registry of transformers are imported when that registry has been, by whoever
wants it. Whichever of the two packages a program imports first, transformers knows the TFB models afterwards.

The imports of both packages are circular in places. Ours therefore wait until no module of either is half imported, by
any thread: each holds the lock of the module that it imports, and two that wait for each other get half of one. Where
threads import at once, the last of them registers; a program that does so should import both packages before it starts
them. A registration that fails is logged, and leaves the import that set it off alone.
"""

import importlib
import logging
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from types import ModuleType

logger = logging.getLogger(__name__)

# Each module of transformers that keeps a registry, and the module of ours that fills it when it is imported.
_REGISTRARS = {
    "transformers.models.auto.configuration_auto": "bayesian_transformer.config",
    "transformers.models.auto.tokenization_auto": "bayesian_transformer.hf.tokenizers",
    "transformers.models.auto.modeling_auto": "bayesian_transformer.vllm_models.tfb_llama",
}


class _Watcher(MetaPathFinder):
    """Finds modules of both packages as the other finders do, and watches them run."""

    watches_for_tokur = True  # tells a watcher also where this module has been imported anew

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._half_imported: Counter[int] = Counter()  # modules of both packages, by the thread that imports them
        self._waiting: list[str] = []  # our modules, to be imported when there is no such module

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if not name.startswith(("transformers.", "bayesian_transformer.")):
            return None
        others = [finder for finder in sys.meta_path if not _is_watcher(finder)]
        found = (finder.find_spec(name, path, target) for finder in others)
        spec = next((spec for spec in found if spec is not None), None)
        # A source loader belongs to one module, so replacing its method touches no other.
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader.exec_module = self._watched(name, spec.loader)  # type: ignore[method-assign]
        return spec

    def _watched(self, name: str, loader: SourceFileLoader):  # type: ignore[no-untyped-def]
        run = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            thread = threading.get_ident()
            with self._lock:
                self._half_imported[thread] += 1
            try:
                run(module)
            finally:
                with self._lock:
                    self._half_imported[thread] -= 1
                    self._half_imported += Counter()  # without the zeros
            for registrar in self._due(name):
                _register(registrar)

        return exec_module

    def _due(self, name: str) -> list[str]:
        """What to import now that `name` has been."""
        with self._lock:
            if name in _REGISTRARS:
                self._waiting.append(_REGISTRARS[name])
            if self._half_imported:
                return []
            due, self._waiting = self._waiting, []
            return due


def _is_watcher(finder: object) -> bool:
    return getattr(finder, "watches_for_tokur", False)


def _register(registrar: str) -> None:
    """Import one of our modules in the middle of somebody else's import, which must not fail because of it."""
    try:
        importlib.import_module(registrar)
    except Exception as error:  # noqa: BLE001  (whatever it is, it is not what was asked for)
        logger.warning("transformers does not know the TFB models: importing %s failed (%s)", registrar, error)


def register_with_transformers() -> None:
    """Register now what can be, and the rest when transformers loads it. Safe to call again."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if not _is_watcher(finder) or type(finder) is _Watcher]
    if not any(map(_is_watcher, sys.meta_path)):
        sys.meta_path.insert(0, _Watcher())
    for registry, registrar in _REGISTRARS.items():
        if registry in sys.modules:
            importlib.import_module(registrar)
