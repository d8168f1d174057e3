"""What a model or a data set says reaches a terminal without what the terminal would obey."""

import ast
import json
import logging
import subprocess
import unicodedata
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from bayesian_transformer import command_line
from bayesian_transformer.heat_map.command import main as heat_map
from bayesian_transformer.printable import one_line, printable
from tests.helpers.import_graph import sources

COMMON = Path(__file__).resolve().parents[2] / "bash_scripts" / "common.sh"
HOSTILE = "a\x1b]0;owned\x07b\x9b2Jc\u202edc\u2066\rx\x7f\u200b\ud800"
# Modules that print with click.echo themselves, and what: our own words, or paths that the user gave.
OWN_WORDS = {
    "bayesian_transformer.command_line": "say, the one door",
    "bayesian_transformer.convert": "the path of --output-path",
    "bayesian_transformer.embedded": "the path of the model",
    "bayesian_transformer.doctor.command": "the heading, and what printable.py has made safe",
    "benchmarks.bench_decode": "measurements",
    "benchmarks.bench_kernels": "measurements",
    "benchmarks.bench_score": "measurements",
    "datasets.arithmetic": "the path of --output",
    "datasets.download_data": "names of our data sets",
}


@given(st.text())
def test_nothing_is_left_that_a_terminal_obeys(text: str) -> None:
    shown = printable(text)
    for char in shown:
        assert unicodedata.category(char) not in ("Cc", "Cs") or char in "\t\n", repr(char)
        assert unicodedata.bidirectional(char) not in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
    assert printable(shown) == shown
    assert "\n" not in one_line(text)


@given(st.text(alphabet=st.characters(categories=("L", "N", "P", "S", "Zs"))))
def test_letters_numbers_and_signs_stay(text: str) -> None:
    assert printable(text) == text


def test_escapes_are_shown() -> None:
    assert printable(HOSTILE) == r"a\x1b]0;owned\x07b\x9b2Jc\u202edc\u2066\rx\x7f\u200b\ud800"
    assert printable("two\tcells\nand a line: é, 中, 👩\u200d🚀") == "two\tcells\nand a line: é, 中, 👩\u200d🚀"
    assert one_line(ValueError(f"a\n {HOSTILE[:3]}")) == r"a a\x1b]"


def test_shell_scripts_leave_it_out_of_what_they_show_of_a_log() -> None:
    shown = subprocess.run(
        ["bash", "-c", f"source {COMMON}; printable"],
        input="a\x1b]0;owned\x07b\x9b2Jc\u202edc\u2066\rx\x7f\té中\n".encode(),
        capture_output=True,
        check=True,
    )
    assert shown.stdout.decode() == "a]0;ownedb2Jcdcx\té中\n"


def test_log_lines_are_printable(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    command_line.log_to_stderr()
    logging.getLogger("test").warning("read %s", "a\x1b[2J")
    assert capsys.readouterr().err == "read a\\x1b[2J\n"


def test_an_error_that_quotes_a_file_is_one_safe_line(tmp_path: Path) -> None:
    """By way of a real command: a record whose uncertainties are no list, in a file with a hostile name."""
    records = tmp_path / "a\x1b[2J\u202e.jsonl"
    records.write_text(json.dumps({"text": "\x1b[2J", "tokens": ["\x1b"], "total": "\x1b[31m"}) + "\n")
    result = CliRunner().invoke(heat_map, [str(records), "--output", str(tmp_path / "page.html")])
    assert result.exit_code != 0
    assert "\\x1b[2J\\u202e.jsonl" in result.output
    assert "\x1b" not in result.output
    assert "\u202e" not in result.output


def test_whatever_is_printed_goes_through_one_door() -> None:
    """A new module that prints must use `say`, or be written down above with what it prints."""
    direct = set()
    for name, path in sources().items():
        if name.startswith(("tests", "examples")):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            door = f"{getattr(node.func.value, 'id', '')}.{node.func.attr}"
            if door == "click.echo":
                direct.add(name)
            if door == "tqdm.write":
                assert "printable(" in ast.unparse(node.args[0]), name
    assert direct == set(OWN_WORDS)
