"""What README.md names exists: links, paths, scripts, their options; and its Python compiles."""

import importlib
import re
import runpy
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FOLDERS = "bash_scripts|bayesian_transformer|benchmarks|datasets|docs|eval|run|tests"
ASSIGNMENT = re.compile(r"[A-Za-z_]+=")


def blocks(language: str) -> list[str]:
    """The contents of the fenced blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    """The words of each line that starts a program with python or bash, in a block or in running text."""
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    lines += re.findall(r"`((?:python|bash) [^`]*)`", README)
    lines += [f"bash bash_scripts/{code}" for code in re.findall(r"`(\w+\.sh [^`]*)`", README)]
    found = []
    for line in lines:
        inner = re.sub(r"^\w+=\$\((.*)\)$", r"\1", line)  # MODEL=$(python ...)
        words = shlex.split(inner, comments=True)
        while words and ASSIGNMENT.match(words[0]):
            words.pop(0)
        if words and words[0] in ("python", "bash"):
            found.append(words)
    return found


def options_of(program: list[str]) -> set[str]:
    """Every option that a Python program of this repository takes; `program` is [-m, module] or [script]."""
    main: Any = (
        importlib.import_module(program[1]).main
        if program[0] == "-m"
        else runpy.run_path(str(ROOT / program[0]), run_name="readme")["main"]
    )
    return {name for parameter in main.params for name in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}


def used(words: list[str]) -> set[str]:
    return {word.partition("=")[0] for word in words if word.startswith("--") and word != "--"}


def python_programs() -> dict[tuple[str, ...], set[str]]:
    """Each Python program that is shown, with the options it is shown with."""
    shown: dict[tuple[str, ...], set[str]] = {}
    for words in commands():
        if words[0] == "python":
            count = 2 if words[1] == "-m" else 1
            shown.setdefault(tuple(words[1 : 1 + count]), set()).update(used(words))
    return shown


@pytest.mark.parametrize("program", python_programs(), ids=" ".join)
def test_options_of_python_programs(program: tuple[str, ...]) -> None:
    assert python_programs()[program] <= options_of(list(program))


def test_options_of_shell_scripts() -> None:
    shown = [words for words in commands() if words[0] == "bash"]
    assert len(shown) >= 6
    for words in shown:
        usage = subprocess.run(["bash", words[1], "--help"], cwd=ROOT, capture_output=True, text=True, timeout=30)
        assert usage.returncode == 0, words
        assert all(option in usage.stdout for option in used(words)), words


def test_options_kept_in_a_variable() -> None:
    """`short="--dataset-path ..."` is passed to both run scripts."""
    (short,) = re.findall(r'^short="(.*)"$', README, re.MULTILINE)
    for script in ("run/greedy_unc_single_batch_refine.py", "run/greedy_responses_unc.py"):
        assert used(short.split()) <= options_of([script])


def test_paths_and_links_exist() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    paths = re.findall(rf"(?<![\w/])(?:{FOLDERS})/[\w./-]*\w", README)  # not what a run writes, results/eval/...
    assert {"docs/heat_map.png", "benchmarks/README.md"} <= set(links)
    assert [path for path in sorted({*links, *paths}) if not (ROOT / path).exists()] == []


def test_anchors_are_headings() -> None:
    headings = re.findall(r"^#+ (.*)$", README, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", README)) <= anchors


def test_python_compiles() -> None:
    sources = blocks("python")
    assert len(sources) >= 4
    for source in sources:
        compile(source, "README.md", "exec")


def test_snippets_import_what_exists() -> None:
    pattern = re.compile(r"^from (bayesian_transformer[\w.]*) import ([\w, ]+)", re.MULTILINE)
    for module, names in pattern.findall("\n".join(blocks("python"))):
        assert all(hasattr(importlib.import_module(module), name.strip()) for name in names.split(","))
