"""The generated parts of docs/ are those of today's code."""

from pathlib import Path

import pytest

pytest.importorskip("vllm")

from bayesian_transformer.vllm_plugin.attention_refusals import ATTENTION, GPU_ATTENTION, Refusal
from bayesian_transformer.vllm_plugin.refusals import GPU_SETTINGS, SETTINGS

from .generated import DOCS, GENERATED, ROOMS, ROOT, first_sentence, rendered, sources

REFUSALS = [*SETTINGS, *GPU_SETTINGS, *ATTENTION, *GPU_ATTENTION]


@pytest.mark.parametrize("name", GENERATED)
def test_pages_are_as_generated(name: str) -> None:
    page = (DOCS / name).read_text(encoding="utf-8")
    assert page == rendered(name, page), "run: python -m tests.docs.generated"


def test_a_page_without_its_marks_is_an_error() -> None:
    page = (DOCS / "limits.md").read_text(encoding="utf-8").replace("<!-- end gpu-settings -->", "")
    with pytest.raises(ValueError, match=r"limits.md: needs one pair of marks <!-- begin gpu-settings -->"):
        rendered("limits.md", page)


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.name)
def test_every_refusal_is_listed_with_its_reason(refusal: Refusal) -> None:
    shown = refusal.listed or refusal.name
    assert "{" not in shown
    assert "|" not in shown
    assert refusal.why.endswith(".")
    assert f"| {shown} | {refusal.why} |" in (DOCS / "limits.md").read_text(encoding="utf-8")


def test_every_source_file_describes_itself() -> None:
    silent = [path for room in ROOMS for path in sources(ROOT / room) if not first_sentence(path)]
    assert silent == []


def test_a_first_sentence_ends_where_the_sentence_does(tmp_path: Path) -> None:
    source = tmp_path / "module.py"
    source.write_text('"""One `a.b`\nthing. And more.\n\nMuch more."""\n')
    assert first_sentence(source) == "One `a.b` thing."
    header = tmp_path / "header.h"
    header.write_text("// Two\n// things. And more.\n#pragma once\n")
    assert first_sentence(header) == "Two things."
