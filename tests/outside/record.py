"""The areas of what users can see, and a program that stores them as they are now. Run it to change them deliberately:

    python -m tests.outside.record             # tests/data/outside.json: names, options, keys, columns
    python -m tests.outside.record --tables    # tests/data/tables: the numbers that the stored generations evaluate to

`git diff` then shows what a user would notice.
"""

import importlib
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from bayesian_transformer.files import atomic_path
from tests.outside import commands, names, written_files
from tests.outside.written_files import DETECTION_TABLES, SHARES, Written, one

DATA = Path(__file__).resolve().parents[1] / "data"
OUTSIDE, TABLES = DATA / "outside.json", DATA / "tables"
SCALING_TABLES = {f"scaling_{share}.csv": share for share in SHARES}

# kind of area -> what it looks like now, from what follows ": " in its name, the frozen description and Written
KINDS: dict[str, Callable[[str, Any, Written], Any]] = {
    "names": lambda module, frozen, _: names.described(module, list(frozen)),
    "imports": lambda module, frozen, _: names.present(module, frozen),
    "program": lambda program, *_: commands.options(program),
    "shell script": lambda script, *_: commands.script_help(script),
    "environment": lambda language, *_: {
        "python": commands.python_environment,
        "shell": commands.shell_environment,
    }[language](),
    "package": lambda *_: commands.package(),
    "converted": lambda family, _, written: written_files.converted(written, family),
    "records": lambda kind, _, written: written_files.records(written, kind),
    "scores": lambda *arguments: written_files.score_line(arguments[-1]),
    "evaluation": lambda kind, _, written: {"detection": written_files.detection, "scaling": written_files.scaling}[
        kind
    ](written),
}


def areas() -> dict[str, Any]:
    """All areas that there are now, each with what `seen` needs to know before."""
    modules = [importlib.import_module(name) for name in names.PUBLISHED]
    return {
        **{f"names: {module.__name__}": names.own_names(module) for module in modules},
        **{f"imports: {module.__name__}": found for module in modules if (found := names.imported_names(module))},
        **{f"names: {name}": shown for name, shown in names.SHOWN.items()},
        **{f"program: {program}": None for program in commands.programs()},
        **{f"shell script: {script}": None for script in commands.scripts()},
        **{f"environment: {language}": None for language in ("python", "shell")},
        "package": None,
        **{f"converted: {family}": None for family in ("llama", "qwen2")},
        **{f"records: {kind}": None for kind in ("greedy", "scaling", "per_token")},
        "scores": None,
        **{f"evaluation: {kind}": None for kind in ("detection", "scaling")},
    }


def seen(area: str, frozen: Any, written: Written) -> Any:
    """What a user sees of an area now; of names only those in `frozen`."""
    kind, _, subject = area.partition(": ")
    return KINDS[kind](subject, frozen, written)


def tables(written: Written) -> dict[str, Path]:
    """The tables that the stored generations evaluate to now, by the name under which they are stored."""
    detection = {name: written.detection() / name for name in DETECTION_TABLES}
    return detection | {name: one(written.scaling(p), "*_summary.csv") for name, p in SCALING_TABLES.items()}


@click.command(help=__doc__)
@click.option("--tables", "numbers", is_flag=True, help="Store the numbers, not the names.")
def main(numbers: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        written = Written(Path(folder))
        if numbers:
            TABLES.mkdir(exist_ok=True)
            for name, path in tables(written).items():
                shutil.copyfile(path, TABLES / name)
        else:
            content = {area: seen(area, frozen, written) for area, frozen in areas().items()}
            with atomic_path(OUTSIDE) as temporary:
                temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    click.echo(f"wrote {TABLES if numbers else OUTSIDE}")


if __name__ == "__main__":
    main()
