"""A self-contained HTML page that colours the tokens of responses by their uncertainty.

    from bayesian_transformer.heat_map import Response, write_report
    response = Response("first", scored.token_ids, scored.tokens, vars(scored.uncertainties))
    write_report(Path("heat_map.html"), [response])

page.py makes the page, records.py reads the files of the other programs, command.py is `tokur heatmap`.
"""

from .page import Response, write_report

__all__ = ["Response", "write_report"]
