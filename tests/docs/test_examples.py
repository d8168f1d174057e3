"""The files in examples/ run, and the documentation shows exactly them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.heat_map_pages import Page

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
TOKEN = re.compile(r"^(['\"]).*\1 +TU (\d+\.\d{4}) EU (-?\d+\.\d{4})$")


def run(example: str, folder: Path, *arguments: object) -> list[str]:
    """Run an example in `folder` as a user does; the lines of its output."""
    command = [sys.executable, str(ROOT / "examples" / example), *map(str, arguments)]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout.splitlines()


def uncertainties(lines: list[str]) -> list[tuple[float, float]]:
    """TU and EU of the lines that show a token; both are what they must be."""
    pairs = [(float(match[2]), float(match[3])) for match in map(TOKEN.match, lines) if match]
    assert all(-1e-4 <= epistemic <= total + 1e-4 for total, epistemic in pairs)
    assert any(epistemic > 0 for _, epistemic in pairs)
    return pairs


def value(line: str, name: str) -> str:
    """The number behind a name in a line of output."""
    return line.split(f" {name} ")[1].split()[0]


def test_the_documentation_shows_the_examples() -> None:
    pages = "\n".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs").glob("*.md"))
    shown = re.findall(r"^```python\n(.*?)^```", pages, re.MULTILINE | re.DOTALL)
    assert len(EXAMPLES) == 7
    assert [path.name for path in EXAMPLES if path.read_text(encoding="utf-8") not in shown] == []


@pytest.mark.engine
def test_vllm_generate(tmp_path: Path) -> None:
    lines = run("vllm_generate.py", tmp_path)
    assert 20 <= len(uncertainties(lines)) <= 64


def test_transformers_generate(tmp_path: Path) -> None:
    lines = run("transformers_generate.py", tmp_path)
    assert lines[0].startswith("tensor([[")
    assert 10 <= len(uncertainties(lines)) <= 32


def test_score_texts(tmp_path: Path, tiny_llama_tfb_path: Path) -> None:
    lines = run("score_texts.py", tmp_path, tiny_llama_tfb_path)
    (first, second) = (index for index, line in enumerate(lines) if line.startswith("sum of "))
    right, wrong = lines[:first], lines[first + 1 : second]
    assert right[:-2] == wrong[:-2]  # the answers differ in their last digit alone
    assert (right[-2][:4], wrong[-2][:4]) == ("'2' ", "'9' ")
    assert value(right[-2], "EU") == value(wrong[-2], "EU")  # of the position, whichever token stands there
    assert value(right[-2], "logprob") != value(wrong[-2], "logprob")


def test_wrap_any_model(tmp_path: Path, tiny_qwen2_path: Path) -> None:
    every = uncertainties(run("wrap_any_model.py", tmp_path, tiny_qwen2_path, "q_proj", "k_proj", "v_proj"))
    default = uncertainties(run("wrap_any_model.py", tmp_path, tiny_qwen2_path))
    assert len(every) == len(default) == 8
    assert every[0][1] != default[0][1]


def test_heat_map(tmp_path: Path) -> None:
    assert run("heat_map.py", tmp_path) == ["wrote heat_map.html"]
    page = Page((tmp_path / "heat_map.html").read_text(encoding="utf-8"))
    assert "".join(text for text, _ in page.tokens) == "The product of 7 and 6 is 42.The product of 7 and 6 is 49."
    assert len({level for _, level in page.tokens}) > 2


def test_calibrate_scores(tmp_path: Path) -> None:
    """The page shows what it prints, to the digits that every machine agrees on."""
    lines = run("calibrate_scores.py", tmp_path)
    page = (ROOT / "docs" / "calibration.md").read_text(encoding="utf-8")
    numbers = re.compile(r"\d+\.\d+")
    (shown,) = (
        block for block in re.findall(r"^```text\n(.*?)^```", page, re.MULTILINE | re.DOTALL) if "my-model" in block
    )
    assert numbers.sub("#", "\n".join(lines)) == numbers.sub("#", shown.strip())
    expected = [float(number) for number in numbers.findall(shown)]
    assert [float(number) for number in numbers.findall("\n".join(lines))] == pytest.approx(expected, abs=2e-3)


def test_json_fields(tmp_path: Path, tiny_llama_tfb_path: Path) -> None:
    lines = run("json_fields.py", tmp_path, tiny_llama_tfb_path)
    counts = {line.split()[0]: int(line.split()[1]) for line in lines}
    assert counts == {"$.name": 5, "$.born.place": 1, "$.born.year": 4, "$.shoe_size": 2}
