"""The walls of the house: who may import whom, and how large a file or a function may get.

An exception stands here with its reason, and is taken out when it no longer holds.
"""

import ast
from collections import defaultdict
from pathlib import Path

import pytest

from tests.helpers.import_graph import PLACES, ROOT, Import, circles, imports, sources

MOST_LINES, LONGEST_FUNCTION = 300, 50
OF_SOURCES = (".py", ".sh", ".cpp", ".h", ".js", ".css", ".j2")
# What each folder may import of the others. Tests may import all.
WALLS: dict[str, set[str]] = {
    "bayesian_transformer": set(),
    "run": {"bayesian_transformer"},
    "eval": {"bayesian_transformer"},
    "benchmarks": {"bayesian_transformer"},
    "datasets": {"bayesian_transformer"},
    "convert_to_tfb": {"bayesian_transformer"},
}
# Modules of the package that are the door of a room and so belong to it; published names.
DOORS = {"model": "hf"}
# Rooms of the package that stand without each other, the plugin above all.
APART = {
    "calibration": {"grading", "hf", "heat_map", "vllm_models", "vllm_plugin"},
    "grading": {"hf", "vllm_models", "vllm_plugin", "heat_map"},
    "heat_map": {"grading", "vllm_models", "vllm_plugin"},
    "hf": {"grading", "heat_map", "vllm_models", "vllm_plugin"},
    "sigma": {"calibration", "heat_map", "vllm_models", "vllm_plugin"},
    "spans": {"heat_map", "hf", "vllm_models", "vllm_plugin"},
    "vllm_plugin": {"grading", "heat_map", "hf"},
}
LONG_FUNCTIONS = {
    "test_replay_on_static_buffers": "a test that plays vLLM's attention metadata, built up buffer by buffer",
}
SAME_NAME = {
    "config": "published: the package's NoiseConfig, and the run scripts' names and prompts",
    "grader": "published: run/utils/grader.py is a door to the package's",
}
EVERYWHERE = {"__init__", "__main__", "command", "conftest"}


def top(name: str) -> str:
    return name.partition(".")[0]


def room(name: str) -> str:
    """The folder or module of the package that a module lies in."""
    found = name.split(".")[1]
    return DOORS.get(found, found)


def inside() -> frozenset[Import]:
    """Imports from one room of the package to another."""
    own = {edge for edge in imports() if edge.importer.count(".") and edge.imported.count(".")}
    own = {edge for edge in own if top(edge.importer) == top(edge.imported) == "bayesian_transformer"}
    rooms = {Import(room(edge.importer), room(edge.imported), edge.when) for edge in own}
    return frozenset(edge for edge in rooms if edge.importer != edge.imported)


def test_the_imports_are_read() -> None:
    """Every way of naming a module is seen, so that the walls below stand on something."""
    found = imports()
    plugin = "bayesian_transformer.vllm_plugin"
    for expected in (
        Import("bayesian_transformer.grading.grader", "bayesian_transformer.grading.pool", "import"),
        Import("bayesian_transformer.grading", "bayesian_transformer.grading.grader", "import"),
        Import(f"{plugin}.particles", "bayesian_transformer.noise_config", "import"),
        Import(plugin, f"{plugin}.substitutions", "call"),
        Import("bayesian_transformer", "bayesian_transformer.model", "check"),
        Import("run.utils.run", "run.utils.engine", "import"),
        Import("eval.utils.detection", "bayesian_transformer.grading", "import"),
        Import("run.utils.engine", "run.utils.guard", "import"),
    ):
        assert expected in found, expected


def test_circles_are_seen() -> None:
    edges = [Import(one, other, "import") for one, other in ("ab", "bc", "ca", "cd", "de")]
    assert circles(frozenset(edges)) == [{"a", "b", "c"}]
    assert circles(frozenset(edges[1:])) == []


def test_imports_run_one_way() -> None:
    wrong = {
        edge
        for edge in imports()
        if top(edge.importer) in WALLS and top(edge.imported) not in WALLS[top(edge.importer)] | {top(edge.importer)}
    }
    assert sorted(wrong) == []
    assert set(WALLS) == {top(name) for name in sources()} - {"tests"}


def test_no_module_imports_itself_by_way_of_others() -> None:
    """Neither when it is imported, nor later in a function, nor for a type checker."""
    assert circles(imports()) == []


def test_no_room_of_the_package_imports_itself_by_way_of_others() -> None:
    assert circles(inside()) == []


@pytest.mark.parametrize("name", APART)
def test_rooms_stand_apart(name: str) -> None:
    assert sorted(edge for edge in inside() if edge.importer == name and edge.imported in APART[name]) == []


def files_of_ours() -> list[Path]:
    found = [path for place in (*PLACES, "bash_scripts") for path in (ROOT / place).rglob("*")]
    return [path for path in found if path.suffix in OF_SOURCES and "data" not in path.relative_to(ROOT).parts]


def test_no_file_is_longer_than_it_is_read() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in files_of_ours()}
    assert len(lengths) > 150
    assert {name: length for name, length in lengths.items() if length > MOST_LINES} == {}


def test_no_function_is_longer_than_a_screen() -> None:
    """From `def` to its last line, decorators not counted: the options of a command line are a table of their own."""
    long = defaultdict(list)
    for path in sources().values():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                if lines > LONGEST_FUNCTION:
                    long[node.name].append(f"{path.relative_to(ROOT)}: {lines} lines")
    assert {name: places for name, places in long.items() if name not in LONG_FUNCTIONS or len(places) > 1} == {}
    assert set(long) == set(LONG_FUNCTIONS), "an exception that is no longer needed"


def test_no_two_modules_could_be_confused() -> None:
    """One basename, one module; so that the name of a file answers where something is."""
    places = defaultdict(list)
    for path in sources().values():
        if path.stem not in EVERYWHERE:
            places[path.stem].append(str(path.relative_to(ROOT)))
    twice = {stem: found for stem, found in places.items() if len(found) > 1}
    assert {stem: found for stem, found in twice.items() if stem not in SAME_NAME or len(found) > 2} == {}
    assert set(twice) == set(SAME_NAME), "an exception that is no longer needed"
