"""The command `tokur`, and what all command lines share.

Nothing here imports torch or transformers, so that `tokur --help` answers at once; a command does when it runs.
"""

import importlib
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from . import __version__
from .noise_config import check_projections
from .printable import one_line, printable

# Each subcommand: the module and the name of its click command, and its line in the help.
_COMMANDS = {
    "convert": ("convert:main", "Turn a checkpoint into a TFB checkpoint."),
    "score": ("score:main", "Uncertainties of given texts."),
    "heatmap": ("heat_map.command:main", "Token heat map of responses as one HTML file."),
    "calibrate": ("calibrate:main", "How likely is an answer right? Learned from graded results."),
    "sigma": ("sigma.command:main", "Which sigma suits a model on your own texts? No labels needed."),
    "doctor": ("doctor.command:main", "What is installed, and whether it works on this machine."),
    "embedded": ("embedded:main", "Prepare the embedded model, or cache the TFB model of another one."),
}


class _LazyGroup(click.Group):
    """A group that imports a subcommand when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, name = _COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(f"{__package__}.{module}"), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_text) for name, (_, help_text) in _COMMANDS.items()])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tokur")
def main() -> None:
    """Token-level uncertainty of LLMs, in vLLM and in transformers."""


class FiniteRange(click.FloatRange):
    """A range of numbers without NaN, which click lets pass: it is neither below nor above a bound."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


class Projections(click.ParamType):
    """The projections that carry noise, with commas between them."""

    name = "projections"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        names = tuple(value.split(",")) if isinstance(value, str) else tuple(value)
        try:
            check_projections(names)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return names


PROJECTIONS_HELP = "Which of q_proj, k_proj and v_proj carry noise, as q_proj,v_proj."

SHARE = FiniteRange(0, 1, min_open=True, max_open=True)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn errors of the user's files and settings into one line without a traceback."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise click.ClickException(one_line(error)) from error


def say(text: str, err: bool = False) -> None:
    """Print a text that may quote a model, a data set or a file's name, see printable.py."""
    click.echo(printable(text), err=err)


class _Printable(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def log_to_stderr() -> None:
    """Show what the package logs, as plain lines."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Printable("%(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
