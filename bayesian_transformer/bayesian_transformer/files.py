"""Files that survive a kill: written under a temporary name and renamed, or appended a whole line at a time."""

import json
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)


def cache_dir() -> Path:
    """$TOKUR_CACHE, or ~/.cache/tokur: what is made once per machine."""
    return Path(os.environ.get("TOKUR_CACHE") or Path.home() / ".cache" / "tokur")


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to `path`; rename it to `path` if the block succeeds, remove it if not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())  # mkstemp makes files private
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as one JSON document, atomically. NaN and infinities become null, as JSON has neither."""
    with atomic_path(path) as temporary:
        temporary.write_text(dumps(value) + "\n", encoding="utf-8")


def append_jsonl(path: Path, value: Mapping[str, Any]) -> None:
    """Append one JSON object as one line, in one write that is on disk when this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(dumps(value) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_jsonl(path: Path, torn_end: bool = False) -> list[dict[str, Any]]:
    """The objects of a JSON Lines file, see `iter_jsonl`."""
    return list(iter_jsonl(path, torn_end))


def iter_jsonl(path: Path, torn_end: bool = False) -> Iterator[dict[str, Any]]:
    """The objects of a JSON Lines file in UTF-8 one by one, so that a large file need not fit into memory.

    Anything else in it raises ValueError with the file and the line number. With `torn_end`, for files that
    `append_jsonl` writes, a last line without a newline that does not parse was torn by a kill, or is being written: it
    is left out, with a warning.
    """
    with path.open("rb") as file:  # bytes, because a line may be torn inside a character
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = _parse_line(line)
            except ValueError as error:
                if torn_end and not line.endswith(b"\n"):
                    logger.warning("%s:%d: dropping a torn last line", path, number)
                    return
                raise ValueError(f"{path}:{number}: {error}") from error
            if not isinstance(row, dict):
                raise ValueError(f"{path}:{number}: expected a JSON object, got {type(row).__name__}")
            yield row


def _parse_line(line: bytes) -> Any:
    try:
        return json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 ({error.reason} at byte {error.start + 1}); save the file as UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not valid JSON ({error}); fix or remove the line") from error


def drop_torn_line(path: Path) -> None:
    """Cut an unterminated last line off a JSON Lines file, so that appending to it is safe again."""
    if not path.exists():
        return
    data = path.read_bytes()
    if data and not data.endswith(b"\n"):
        logger.warning("%s: cutting off a torn last line", path)
        with path.open("r+b") as file:
            file.truncate(data.rfind(b"\n") + 1)


def dumps(value: Any) -> str:
    """JSON text that every parser reads: NaN and infinities as null."""
    return json.dumps(_finite(value), ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if value - value == 0.0 else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
