"""The pages that people read, taken apart: fenced blocks, commands, links, headings, file names."""

import re
import shlex
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ("python", "bash", "tokur", "pytest", "pip")
FOLDERS = "bash_scripts|bayesian_transformer|benchmarks|datasets|docs|eval|examples|run|tests"
_ASSIGNMENT = re.compile(r"[A-Za-z_]+=")


@dataclass(frozen=True)
class Page:
    """A Markdown file of the repository."""

    path: Path

    @property
    def name(self) -> str:
        return str(self.path.relative_to(ROOT))

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @property
    def prose(self) -> str:
        """The text without its fenced blocks."""
        return re.sub(r"^```.*?^```", "", self.text, flags=re.MULTILINE | re.DOTALL)

    def blocks(self, language: str) -> list[str]:
        """The contents of the fenced blocks in a language."""
        return re.findall(rf"^```{language}\n(.*?)^```", self.text, re.MULTILINE | re.DOTALL)

    def commands(self) -> list[list[str]]:
        """The words of each line that starts one of PROGRAMS, in a block or in running text."""
        lines = [line for block in self.blocks("bash") for line in block.splitlines()]
        lines += re.findall(rf"`((?:{'|'.join(PROGRAMS)}) [^`]*)`", self.prose)
        lines += [f"bash bash_scripts/{code}" for code in re.findall(r"`(\w+\.sh(?: [^`]*)?)`", self.prose)]
        return [words for words in map(command_words, lines) if words and words[0] in PROGRAMS]

    def links(self) -> list[tuple[str, str]]:
        """Target (as seen from the page's folder, "" for the page itself) and anchor of each link to a file."""
        links = [link for link in re.findall(r"\]\(([^)\s]+)\)", self.text) if "://" not in link]
        return [(target, anchor) for target, _, anchor in (link.partition("#") for link in links)]

    def anchors(self) -> set[str]:
        """What links can point to: the page's headings, as the usual renderers spell them."""
        headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", self.text, flags=re.M | re.S), re.MULTILINE)
        return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}

    def paths(self) -> set[str]:
        """Paths from the root that stand anywhere in the text, but for downloaded data and what a run writes."""
        found = re.findall(rf"(?<![\w/.-])(?:{FOLDERS})/[\w./-]*\w", self.text)
        return {path for path in found if not re.fullmatch(r"datasets/.*\.jsonl", path)}

    def file_names(self) -> set[str]:
        """Source files in backquotes, with or without some of their folders."""
        return set(re.findall(r"`([\w./-]+\.(?:py|h|cpp|sh|md|toml|css|js|j2|cff))`", self.prose))


def command_words(line: str) -> list[str]:
    """The words of a command line, without what it assigns to and in front of the program; [] for any other line."""
    inner = re.sub(r"^\w+=\$\((.*)\)$", r"\1", line)  # MODEL=$(tokur ...)
    words = shlex.split(inner, comments=True)
    while words and _ASSIGNMENT.match(words[0]):
        words.pop(0)
    return words


PAGES = [
    Page(path)
    for path in (
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "CHANGELOG.md",
        ROOT / "benchmarks" / "README.md",
        ROOT / "bayesian_transformer" / "README.md",
        *sorted((ROOT / "docs").glob("*.md")),
    )
]
