"""A disk that is full: the error names the file that was written, whoever writes it.

The limit of a process on the size of its files stands in for the disk; the system call fails in the same way.
"""

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bayesian_transformer.files import append_jsonl, atomic_path, naming, write_json
from bayesian_transformer.heat_map import write_report
from eval.utils.csv_tables import write_csv
from tests.helpers.heat_map_pages import a_response

LONG = "x" * 100_000


def written_to_the_temporary_name(path: Path) -> None:
    with atomic_path(path) as temporary, temporary.open("w") as file:
        file.write(LONG)


def nothing_but_closed(path: Path) -> None:
    """What was written fails when the file is closed."""
    with naming(path), path.open("w") as file:
        file.write("x" * 5000)


WRITERS: dict[str, Callable[[Path], object]] = {
    "append_jsonl": lambda path: append_jsonl(path, {"text": LONG}),
    "write_json": lambda path: write_json(path, LONG),
    "write_csv": lambda path: write_csv(path, [{"column": LONG}]),
    "write_report": lambda path: write_report(path, [a_response([LONG])]),
    "atomic_path": written_to_the_temporary_name,
    "naming": nothing_but_closed,
}


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("name", WRITERS)
def test_the_error_names_the_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / "out.json"
    with largest_file(4096), pytest.raises(OSError, match=rf"^\[Errno 27\] File too large: '{path}'$"):
        WRITERS[name](path)
    assert {file.name for file in tmp_path.iterdir()} <= {path.name}


def test_an_error_that_names_its_file_keeps_the_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent"), naming(tmp_path / "x"):
        (tmp_path / "absent").read_bytes()
    with pytest.raises(OSError, match=r"^in words$"), naming(tmp_path / "x"):
        raise OSError("in words")


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        write_json(tmp_path / "file" / "x.json", 1)
