"""The parts of docs/ that are made of the code: what is refused, the families and their tests, the map of the files.

    python -m tests.docs.generated        # write them anew after a change of what they are made of

A test compares the pages with what this would write. Only what stands between a pair of marks is generated.
"""

import ast
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from bayesian_transformer.architectures import ARCHITECTURES
from bayesian_transformer.files import atomic_path
from bayesian_transformer.vllm_plugin.attention_refusals import ATTENTION, GPU_ATTENTION, Refusal
from bayesian_transformer.vllm_plugin.refusals import GPU_SETTINGS, SETTINGS
from tests.helpers.family_table import family_table

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
ROOMS = ("bayesian_transformer/bayesian_transformer", "run", "eval", "benchmarks", "datasets", "examples")


def refusal_table(head: str, refusals: Iterable[Refusal]) -> str:
    """A Markdown table of what is refused and why."""
    rows = [f"| {refusal.listed or refusal.name} | {refusal.why} |" for refusal in refusals]
    return "\n".join([f"| {head} | why |", "| --- | --- |", *rows])


def model_table() -> str:
    """A Markdown table of the model families."""
    rows = [
        f"| `{family.base_model_type}` | `{family.model_type}` | `{family.vllm_architecture}` |"
        for family in ARCHITECTURES.values()
    ]
    return "\n".join(
        ["| `model_type` of the base model | of the TFB model | architecture in vLLM |", "| --- | --- | --- |", *rows]
    )


def first_sentence(path: Path) -> str:
    """How a source file begins to describe itself: the first paragraph of its docstring or comment, "" without one."""
    source = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        text = ast.get_docstring(ast.parse(source)) or ""
    else:
        lines = [line.removeprefix("//").strip() for line in source.splitlines() if line.startswith("//")]
        text = " ".join(lines)
    return re.split(r"(?<=\.)\s|\n\n", " ".join(text.partition("\n\n")[0].split()))[0]


def sources(room: Path) -> Iterator[Path]:
    """The source files of a folder and of those in it, in order, those of the folder itself first."""
    yield from sorted(path for path in room.iterdir() if path.suffix in (".py", ".h", ".cpp"))
    for folder in sorted(path for path in room.iterdir() if path.is_dir() and path.name.isidentifier()):
        yield from sources(folder)


def file_map() -> str:
    """A list of all source files, each with its first sentence, under the folders that hold them."""
    lines: list[str] = []
    folder = None
    for path in (path for room in ROOMS for path in sources(ROOT / room)):
        text = first_sentence(path)
        if not text:
            continue
        if path.parent != folder:
            folder = path.parent
            lines += ["", f"`{folder.relative_to(ROOT)}/`", ""]
        lines.append(f"- `{path.name}`: {text}")
    return "\n".join(lines).strip()


GENERATED: dict[str, dict[str, Callable[[], str]]] = {
    "limits.md": {
        "models": model_table,
        "families": family_table,
        "settings": lambda: refusal_table("setting", SETTINGS),
        "gpu-settings": lambda: refusal_table("setting on a GPU", GPU_SETTINGS),
        "attention": lambda: refusal_table("attention", ATTENTION),
        "gpu-attention": lambda: refusal_table("attention on a GPU", GPU_ATTENTION),
    },
    "architecture.md": {"file-map": file_map},
}


def rendered(name: str, page: str) -> str:
    """The text `page` of docs/`name` with each generated part as it must be; ValueError without its pair of marks."""
    for mark, make in GENERATED[name].items():
        parts = re.split(rf"(<!-- begin {mark} -->\n).*?(<!-- end {mark} -->)", page, flags=re.DOTALL)
        if len(parts) != 4:  # before, two marks, after
            raise ValueError(f"docs/{name}: needs one pair of marks <!-- begin {mark} --> and <!-- end {mark} -->")
        before, begin, end, after = parts
        page = f"{before}{begin}\n{make()}\n\n{end}{after}"
    return page


if __name__ == "__main__":
    for name in GENERATED:
        page = rendered(name, (DOCS / name).read_text(encoding="utf-8"))
        with atomic_path(DOCS / name) as temporary:
            temporary.write_text(page, encoding="utf-8")
