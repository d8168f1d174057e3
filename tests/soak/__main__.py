"""Campaigns that look for faults, run by hand; a small part of each runs with the tests.

python -m tests.soak --help
"""

import importlib

import click

NAMES = {
    "kills": "kill_storm",
    "disks": "bad_disks",
    "checkpoints": "malformed_checkpoints",
    "answers": "hostile_answers",
    "engine": "engine_requests",
    "labels": "calibration_labels",
}


class Campaigns(click.Group):
    """Each campaign is the command of its module, imported when it is called for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(NAMES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return importlib.import_module(f"tests.soak.{NAMES[cmd_name]}").command if cmd_name in NAMES else None


main = Campaigns(help="Campaigns that look for faults. Each prints its figures as one line of JSON.")

if __name__ == "__main__":
    main(prog_name="python -m tests.soak")
