"""Conversion where the file system does not play along: one line, and nothing left behind."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from safetensors import SafetensorError

from bayesian_transformer import conversion, embedded
from convert_to_tfb import main


def assert_one_line(output: str, *said: str) -> None:
    *_, last = output.splitlines()
    assert last.startswith("Error: ")
    assert "Traceback" not in output
    for text in said:
        assert text in last


def convert(base: Path, output: Path) -> str:
    result = CliRunner().invoke(main, ["--model-path", str(base), "--output-path", str(output)])
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit), result.exception
    return result.output


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let this process write no file beyond `size` bytes, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("length", [250, 300])  # the first leaves no room for the temporary name
def test_a_name_that_is_too_long(tiny_llama_path: Path, tmp_path: Path, length: int) -> None:
    name = "x" * length
    assert_one_line(convert(tiny_llama_path, tmp_path / name), name, "File name too long", "choose another folder")
    assert not list(tmp_path.iterdir())


def test_a_full_disk(tiny_llama_path: Path, tmp_path: Path) -> None:
    with largest_file(1 << 16):
        output = convert(tiny_llama_path, tmp_path / "tfb")
    assert_one_line(output, f"{tmp_path / 'tfb'}: cannot be written (", "File too large")
    assert not list(tmp_path.iterdir())


def test_a_disk_that_is_full_at_the_last_shard(
    tiny_llama_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise SafetensorError("I/O error: No space left on device")

    monkeypatch.setattr(conversion, "save_file", fail)
    assert_one_line(
        convert(tiny_llama_path, tmp_path / "tfb"), f"{tmp_path / 'tfb'}: cannot", "No space left on device"
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("cache", ["/proc/x", "/dev/null/x"])
def test_a_cache_that_cannot_be_made(tiny_llama_path: Path, monkeypatch: pytest.MonkeyPatch, cache: str) -> None:
    monkeypatch.setenv("TOKUR_CACHE", cache)
    for arguments in ([], [str(tiny_llama_path)]):
        result = CliRunner().invoke(embedded.main, arguments)
        assert result.exit_code == 1
        assert_one_line(result.output, cache, "choose another folder")
