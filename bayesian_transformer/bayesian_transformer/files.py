"""Files that survive a kill: written under a temporary name and renamed, or appended a whole line at a time.

The one reader of JSON Lines is here too, and of single JSON documents.
"""

import json
import logging
import os
import stat
import tempfile
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)


def cache_dir() -> Path:
    """$TOKUR_CACHE, or ~/.cache/tokur, or a temporary folder where there is no home: what is made once per machine.

    OSError if that temporary folder is not this user's alone.
    """
    if named := os.environ.get("TOKUR_CACHE"):
        return Path(named)
    home = home_dir()
    return _temporary_cache() if home is None else home / ".cache" / "tokur"


def home_dir() -> Path | None:
    """The home folder; None for a user without one, as in a container: HOME is not set, and no entry in passwd."""
    try:
        return Path.home()
    except RuntimeError:
        return None


@cache
def _temporary_cache() -> Path:
    """A folder that only this user can write; what is in it gets loaded as code, so another's will not do."""
    folder = Path(tempfile.gettempdir()) / f"tokur-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(f"{folder}: is not a folder of this user alone; set TOKUR_CACHE to one that is")
    logger.warning("there is no home folder, so %s is the cache; set TOKUR_CACHE to keep it elsewhere", folder)
    return folder


@contextmanager
def naming(path: Path, *others: Path) -> Iterator[None]:
    """Let an error of the file system name `path`: a full disk names no file, and a temporary one (`others`) is gone.

    The error stays what it is otherwise.
    """
    try:
        yield
    except OSError as error:
        unnamed = error.filename is None and error.errno is not None
        if unnamed or error.filename in map(str, others):
            error.filename = str(path)
        raise


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to `path`; rename it to `path` if the block succeeds, remove it if not.

    An error of the file system names `path`.
    """
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        os.close(handle)
    temporary = Path(name)
    try:
        with naming(path, temporary):
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
    with naming(path), path.open("a", encoding="utf-8") as file:
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
    with path.open("rb") as file:
        for number, line in numbered_lines(file):
            try:
                row = parse_object(line)
            except ValueError as error:
                if torn_end and not line.endswith(b"\n"):
                    logger.warning("%s:%d: dropping a torn last line", path, number)
                    return
                raise ValueError(f"{path}:{number}: {error}") from error
            yield row


def numbered_lines(file: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """The lines of a text file that are not blank, with their numbers from 1, without UTF-8's byte order mark.

    They are bytes, because a line may be torn inside a character.
    """
    for number, line in enumerate(file, start=1):
        text = line.removeprefix(BOM_UTF8) if number == 1 else line
        if text.strip():
            yield number, text


def parse_object(line: bytes) -> dict[str, Any]:
    """The JSON object on a line of a JSON Lines file. ValueError says what is wrong with it."""
    if line.strip() in (b"{", b"["):
        raise ValueError("not valid JSON Lines (the line ends after its first bracket); write one object on each line")
    value = parse_json(line, "fix or remove the line")
    if isinstance(value, list):
        raise ValueError("expected a JSON object, got list; write one object on each line, without brackets around all")
    if not isinstance(value, dict):
        raise ValueError(f"expected a JSON object, got {type(value).__name__}")
    return value


def read_document(path: Path, advice: str) -> dict[str, Any]:
    """The JSON object that a file holds. ValueError names the file and says what is wrong with it."""
    try:
        return parse_document(path.read_bytes(), advice)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def parse_document(content: bytes, advice: str = "mend the file") -> dict[str, Any]:
    """The JSON object that is all of a file. ValueError, with `advice`, says what is wrong with it."""
    value = parse_json(content, advice)
    if not isinstance(value, dict):
        raise ValueError(f"expected a JSON object, got {type(value).__name__}; {advice}")
    return value


def parse_json(content: bytes, advice: str) -> Any:
    """A JSON document in UTF-8. ValueError, with `advice`, says what is wrong with it; so does a key that occurs twice.

    Of such a key other programs take the first value or the last.
    """
    begin = content[:4]
    if begin.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) or (b"\0" in begin and begin.strip(b"\0")):
        raise ValueError("not valid UTF-8 but UTF-16 or UTF-32; save the file as UTF-8")
    try:
        return json.loads(content.removeprefix(BOM_UTF8).decode("utf-8"), object_pairs_hook=_without_repeats)
    except UnicodeDecodeError as error:
        where = f"{error.reason} at byte {error.start + 1}"
        raise ValueError(f"not valid UTF-8 ({where}); save the file as UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not valid JSON ({error}); {advice}") from error


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for key, item in pairs:
        if key in value:
            raise ValueError(f"the key {key!r} occurs twice")
        value[key] = item
    return value


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
