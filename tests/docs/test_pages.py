"""What the pages name exists: links, anchors, paths, programs, options, variables; and their Python can be imported."""

import importlib
import re
import runpy
import subprocess
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from bayesian_transformer.command_line import main as tokur
from tests.soak.__main__ import main as campaigns

from .pages import PAGES, ROOT, Page, command_words

README = PAGES[0]
COMMANDS = [(page, words) for page in PAGES for words in page.commands()]
CAMPAIGNS = "tests.soak"
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def used(words: list[str]) -> set[str]:
    """The long options among the words of a command."""
    return {word.partition("=")[0] for word in words if word.startswith("--") and word != "--"}


def shown(program: str) -> dict[tuple[str, ...], set[str]]:
    """Each thing that a program is shown to run, with the options it is shown with."""
    found: dict[tuple[str, ...], set[str]] = {}
    for _, words in COMMANDS:
        if words[0] == program:
            count = 3 if words[1:3] == ["-m", CAMPAIGNS] else 2 if words[1] == "-m" else 1
            found.setdefault(tuple(words[1 : 1 + count]), set()).update(used(words))
    return found


def options_of(command: Any) -> set[str]:
    """Every option of a click command."""
    return {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}


@pytest.mark.parametrize("program", shown("python"), ids=" ".join)
def test_options_of_python_programs(program: tuple[str, ...]) -> None:
    options = shown("python")[program]
    if CAMPAIGNS in program:
        if name := program[2].removeprefix("--help"):
            command = campaigns.get_command(None, name)  # type: ignore[arg-type]
            assert command is not None, name
            assert options <= options_of(command)
    elif program[0] == "-m":
        module: Any = importlib.import_module(program[1])
        assert hasattr(module, "main") or not options
        assert not options or options <= options_of(module.main)
    else:
        assert (ROOT / program[0]).is_file()
        if options:
            assert options <= options_of(runpy.run_path(str(ROOT / program[0]), run_name="page")["main"])


@pytest.mark.parametrize("name", sorted(name for (name,) in shown("tokur") if name != "--help"))
def test_options_of_tokur(name: str) -> None:
    command = tokur.get_command(None, name)  # type: ignore[arg-type]
    assert command is not None, f"tokur {name}"
    assert shown("tokur")[(name,)] <= options_of(command)


@pytest.mark.parametrize("script", sorted(name for (name,) in shown("bash")))
def test_options_of_shell_scripts(script: str) -> None:
    usage = subprocess.run(["bash", script, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert usage.returncode == 0
    assert [option for option in shown("bash")[(script,)] if option not in usage.stdout] == []


def test_the_pages_show_what_a_newcomer_needs() -> None:
    assert {"bash_scripts/quickstart.sh", "bash_scripts/test.sh"} <= {
        word for page, words in COMMANDS if page == README for word in words
    }
    assert {(name,) for name in tokur.list_commands(None)} <= set(shown("tokur"))  # type: ignore[arg-type]


def test_options_kept_in_a_variable() -> None:
    """`short="--dataset-path ..."` is passed to both run scripts."""
    (short,) = re.findall(r'^short="(.*)"$', "\n".join(page.text for page in PAGES), re.MULTILINE)
    for script in ("run/greedy_unc_single_batch_refine.py", "run/greedy_responses_unc.py"):
        assert used(short.split()) <= options_of(runpy.run_path(str(ROOT / script), run_name="page")["main"])


def test_extras_are_those_of_the_package() -> None:
    package = tomllib.loads((ROOT / "bayesian_transformer" / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {extra for page in PAGES for extra in re.findall(r"bayesian_transformer\[([\w-]+)\]", page.text)}
    assert extras
    assert extras <= set(package["optional-dependencies"])


@each_page
def test_links_and_anchors_exist(page: Page) -> None:
    for target, anchor in page.links():
        path = (page.path.parent / target).resolve() if target else page.path
        assert path.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in Page(path).anchors(), f"{page.name} links to {target}#{anchor}"


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, open_pages = {README.path}, [README]
    while open_pages:
        page = open_pages.pop()
        targets = {(page.path.parent / target).resolve() for target, _ in page.links() if target.endswith(".md")}
        open_pages += [Page(path) for path in targets - reached if path.exists()]
        reached |= targets
    assert {page.path for page in PAGES} <= reached


@each_page
def test_paths_exist(page: Page) -> None:
    assert [path for path in sorted(page.paths()) if not (ROOT / path).exists()] == []


@cache
def files_of_the_repository() -> tuple[str, ...]:
    folders = [folder for folder in ROOT.iterdir() if folder.is_dir() and not folder.name.startswith(".")]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return tuple(f"/{path.relative_to(ROOT)}" for path in (*files, *ROOT.iterdir()))


@each_page
def test_named_files_exist(page: Page) -> None:
    missing = [name for name in page.file_names() if not any(f.endswith(f"/{name}") for f in files_of_the_repository())]
    assert missing == []


def test_variables_are_documented_and_read() -> None:
    sources = [
        path.read_text(encoding="utf-8")
        for folder in ("bayesian_transformer", "run", "eval", "datasets", "bash_scripts", "tests")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".sh") and path.is_file()
    ]
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    ours = {name for text in sources for name in re.findall(r"\bTOKUR_[A-Z_]+\b", text)}
    documented = set(re.findall(r"^\| `([A-Z_]+)` \|", page, re.MULTILINE))
    assert {"TOKUR_CACHE", "TOKUR_KERNELS"} <= ours
    assert ours - documented == set()
    foreign = {"VLLM_PLUGINS"}  # read by vLLM alone
    assert [name for name in documented - foreign if not any(name in text for text in sources)] == []


@each_page
def test_python_compiles_and_imports_what_exists(page: Page) -> None:
    for source in page.blocks("python"):
        compile(source, page.name, "exec")
        for module, names in re.findall(r"^from (bayesian_transformer[\w.]*) import ([\w, ]+)", source, re.MULTILINE):
            assert all(hasattr(importlib.import_module(module), name.strip()) for name in names.split(","))


def test_readme_is_short() -> None:
    lines = README.text.splitlines()
    assert 60 <= len(lines) <= 100
    assert max(map(len, lines)) <= 120


def test_every_page_has_one_title() -> None:
    for page in PAGES:
        outside = re.sub(r"^```.*?^```", "", page.text, flags=re.MULTILINE | re.DOTALL)
        assert len(re.findall(r"^# ", outside, re.MULTILINE)) == 1, page.name


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('MODEL=$(tokur embedded "a b")', ["tokur", "embedded", "a b"]),
        ("CUDA_VISIBLE_DEVICES=0 python run/x.py --n 3  # why", ["python", "run/x.py", "--n", "3"]),
        ("# nothing", []),
    ],
)
def test_words_of_a_command(line: str, words: list[str]) -> None:
    assert command_words(line) == words


def test_anchors_are_spelt_as_renderers_do(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text("# The paper's table\n\n```bash\n# no heading\n```\n\n## Detection: `x.py`\n")
    assert Page(path).anchors() == {"the-papers-table", "detection-xpy"}
