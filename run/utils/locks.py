"""Locks: one writer per file, and one set of settings per folder, also while several processes start at once."""

import fcntl
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from bayesian_transformer.files import remove_temporaries, write_json
from bayesian_transformer.results import SETTINGS_FILE, check_same, read_settings

_DECIDING, _WRITING = 0, 1  # bytes of a lock file: one process at a time decides, then all who agree write


@contextmanager
def sole_writer(path: Path) -> Iterator[None]:
    """Hold a lock next to `path`, which dies with the process; ValueError if another process holds it."""
    with _lock_file(path).open("w") as file:
        if not _locked(file, _WRITING):
            raise ValueError(f"{path}: another process is writing it; wait for it or end it")
        yield


@contextmanager
def one_setting(
    folder: Path, settings: Mapping[str, Any], results: Iterable[Path], notes: Mapping[str, Any]
) -> Iterator[None]:
    """Keep `folder` to results of these `settings`, which are stored in it together with `notes`.

    ValueError if there are `results` of others, or of settings that are not known, or if a process that runs at this
    moment has others and may be about to write. What a killed process was about to write goes, unless one runs.
    """
    path = folder / SETTINGS_FILE
    with _lock_file(path).open("w+") as file:  # a shared lock needs a file that can be read
        fcntl.lockf(file, fcntl.LOCK_EX, 1, _DECIDING)
        found = read_settings(path) if path.exists() else {}
        alone = _locked(file, _WRITING)
        if any(result.stat().st_size for result in results) or not alone:
            check_same(str(path), found, settings)
        if alone:
            remove_temporaries(folder)
        write_json(path, {**settings, **notes})
        fcntl.lockf(file, fcntl.LOCK_SH, 1, _WRITING)
        fcntl.lockf(file, fcntl.LOCK_UN, 1, _DECIDING)
        yield


def _lock_file(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f".{path.name}.lock")


def _locked(file: IO[str], byte: int) -> bool:
    """Whether the lock of a byte could be had at once. It is not inherited by the engine that the process forks."""
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
    except BlockingIOError:
        return False
    return True
