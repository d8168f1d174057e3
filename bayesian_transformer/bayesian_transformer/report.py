"""The first name of the heat map's command, kept: `python -m bayesian_transformer.report` is `tokur heatmap`."""

from .heat_map import Response, write_report
from .heat_map.command import main

__all__ = ["Response", "main", "write_report"]

if __name__ == "__main__":
    main(prog_name="python -m bayesian_transformer.report")
