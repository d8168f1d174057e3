"""Where there is no home folder: the cache is a temporary folder that belongs to the user alone.

From https://github.com/llm-d/llm-d-benchmark/issues/1573: a container whose user has no entry in passwd.
"""

import os
import stat
from pathlib import Path

import pytest

from bayesian_transformer import files
from tests.helpers.homeless import USER, run_homeless

CACHE = "from bayesian_transformer.files import cache_dir\nprint(cache_dir())\nprint(cache_dir())"
COMMAND = "from bayesian_transformer.command_line import main\nmain()"


def test_the_cache_is_a_private_temporary_folder(tmp_path: Path) -> None:
    done = run_homeless(CACHE, tmp_path)
    assert done.returncode == 0, done.stderr
    (folder,) = tmp_path.iterdir()
    assert done.stdout.splitlines() == [str(folder), str(folder)]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert done.stderr == f"there is no home folder, so {folder} is the cache; set TOKUR_CACHE to keep it elsewhere\n"


def test_what_is_named_is_taken(tmp_path: Path) -> None:
    done = run_homeless(CACHE, tmp_path, TOKUR_CACHE="/somewhere")
    assert (done.stdout, done.stderr) == ("/somewhere\n/somewhere\n", "")
    assert run_homeless(CACHE, tmp_path, HOME="/home/x").stdout.splitlines()[0] == "/home/x/.cache/tokur"


def planted(kind: str, folder: Path, elsewhere: Path) -> None:
    """What another user could put where the cache will be looked for, or leave open to others."""
    elsewhere.mkdir()
    if kind == "link":
        folder.symlink_to(elsewhere)
    elif kind == "file":
        folder.touch()
    else:
        folder.mkdir()
        folder.chmod(0o770 if kind == "group" else 0o701)


@pytest.mark.parametrize("kind", ["link", "file", "group", "others", "owner"])
def test_what_others_may_have_planted_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """The owner is played: a test is not two users."""
    monkeypatch.setattr(files.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(files, "home_dir", lambda: None)
    monkeypatch.delenv("TOKUR_CACHE", raising=False)
    files._temporary_cache.cache_clear()
    folder = tmp_path / f"tokur-{os.getuid()}"
    if kind == "owner":
        folder.mkdir(mode=0o700)
        found = folder.lstat()
        other = os.stat_result((*found[:4], found.st_uid + 1, *found[5:10]))
        monkeypatch.setattr(Path, "lstat", lambda path: other)
    else:
        planted(kind, folder, tmp_path / "elsewhere")
    refused = "File exists" if kind == "file" else "is not a folder of this user alone; set TOKUR_CACHE"
    with pytest.raises(OSError, match=refused) as caught:
        files.cache_dir()
    assert str(folder) in str(caught.value)


def test_embedded_works_without_a_home(tiny_llama_path: Path, tmp_path: Path) -> None:
    code = f"import sys\nsys.argv = ['tokur', 'embedded', {str(tiny_llama_path)!r}]\n{COMMAND}"
    done = run_homeless(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    folder = Path(done.stdout.strip())
    assert folder.parent.parent == tmp_path
    assert folder.parent.name in (f"tokur-{USER}", f"tokur-{os.getuid()}")
    assert (folder / "config.json").is_file()


def test_the_doctor_shows_paths_without_a_home(tmp_path: Path) -> None:
    code = "from bayesian_transformer.doctor.screen import without_home\nprint(without_home('/home/x/y'))"
    assert run_homeless(code, tmp_path).stdout == "/home/x/y\n"
