"""Who imports whom among our modules, read from the sources."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Where modules lie, and the folder that their dotted names count from. Scripts that no module imports are among them.
PLACES = {
    "bayesian_transformer/bayesian_transformer": "bayesian_transformer",
    "run": ".",
    "eval": ".",
    "benchmarks": ".",
    "datasets": ".",
    "tests": ".",
}


@dataclass(frozen=True, order=True)
class Import:
    """One module of ours names another one."""

    importer: str
    imported: str
    when: str  # "import": when the importer is imported. "call": in a function. "check": for type checkers only


@cache
def sources() -> dict[str, Path]:
    """Every module by its dotted name; a package's is that of its folder."""
    found = {"convert_to_tfb": ROOT / "convert_to_tfb.py"}
    for place, base in PLACES.items():
        for path in sorted((ROOT / place).rglob("*.py")):
            parts = path.relative_to(ROOT / base).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def imports() -> frozenset[Import]:
    return frozenset(found for name in sources() for found in _imports_of(name))


def _imports_of(importer: str) -> Iterator[Import]:
    tree = ast.parse(sources()[importer].read_text(encoding="utf-8"))
    for node, when in _statements(tree, "import"):
        for name in _named(importer, node):
            known = _longest_module(name)
            if known is not None and known != importer:
                yield Import(importer, known, when)


def _statements(node: ast.AST, when: str) -> Iterator[tuple[ast.Import | ast.ImportFrom, str]]:
    """The import statements below a node, and when each of them runs."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, when
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from _statements(child, "call")
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            yield from _statements(child, "check")
        else:
            yield from _statements(child, when)


def _named(importer: str, node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    """Dotted names that a statement asks for; what follows `import` may be a module or a name in one."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    base = node.module or ""
    if node.level:
        parts = importer.split(".")
        is_package = sources()[importer].name == "__init__.py"
        parts = parts[: len(parts) - node.level + is_package]
        base = ".".join([*parts, *filter(None, [node.module])])
    yield from (f"{base}.{alias.name}" for alias in node.names)


def _longest_module(name: str) -> str | None:
    """The module of ours that a dotted name is or lies in."""
    while name and name not in sources():
        name = name.rpartition(".")[0]
    return name or None


def circles(found: frozenset[Import]) -> list[set[str]]:
    """Sets of modules each of which leads to all others of its set (strongly connected components, by Tarjan)."""
    graph: dict[str, list[str]] = {}
    for edge in sorted(found):
        graph.setdefault(edge.importer, []).append(edge.imported)
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    result: list[set[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in graph.get(name, ()):
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            place = stack.index(name)
            component = set(stack[place:])
            del stack[place:]
            if len(component) > 1:
                result.append(component)

    for name in graph:
        if name not in index:
            visit(name)
    return result
