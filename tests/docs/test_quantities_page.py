"""docs/quantities.md names quantities and scores as quantities.py and scores.py do."""

import math
import re
from pathlib import Path

import pytest

from bayesian_transformer.aggregations import AGGREGATIONS
from bayesian_transformer.quantities import QUANTITIES
from bayesian_transformer.scores import ALIASES, PRIMARY, SCORE_BY_NAME, SCORES, Aliases, Score
from eval.utils.csv_tables import PUBLISHED_COLUMNS

PAGE = (Path(__file__).resolve().parents[2] / "docs/quantities.md").read_text(encoding="utf-8")
SIGN = {1: "+", -1: "-"}


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def published(aliases: Aliases) -> str:
    """The other names of a score with the letters of their files."""
    names = {"D": aliases.detection, "S": aliases.scaling, "R": ".".join(aliases.record)}
    return ", ".join(f"{file} `{name}`" for file, name in names.items() if name)


def names_of_quantities() -> list[str]:
    rows = []
    for quantity in QUANTITIES:
        total, mean = (SCORE_BY_NAME[f"{quantity.prefix}_{how}"] for how in ("sum", "mean"))
        sums, means = ((f"`{score.name}`", published(score.aliases)) for score in (total, mean))
        python, vllm = f"`{quantity.name}`", f"`{quantity.attribute}`"
        rows.append(row(quantity.symbol, python, vllm, *sums, *means, SIGN[quantity.sign]))
    return rows


def further_scores() -> list[str]:
    def described(score: Score) -> str:
        return row(f"`{score.name}`", score.label.lower(), published(score.aliases), SIGN[score.sign])

    of_their_own = ("length", "lowest_group", "bottom_groups")
    return [described(score) for score in SCORES if score.aggregation.name in of_their_own]


def further_aggregations() -> list[str]:
    quantities: dict[str, list[str]] = {}
    for score in SCORES:
        if score.aggregation.explored and score.quantity:
            quantities.setdefault(score.aggregation.name, []).append(score.quantity.prefix)
    formulas = {how.name: how for how in AGGREGATIONS if how.explored}
    return [
        row(
            f"`_{name}`",
            formulas[name].formula.partition(";")[0],
            "all" if len(found) == len(QUANTITIES) else "all but confidence" if len(found) > 2 else ", ".join(found),
            "none" if math.isnan(formulas[name].of_nothing) else "0",
        )
        for name, found in quantities.items()
    ]


@pytest.mark.parametrize(
    ("head", "rows"),
    [
        ("| quantity | Python,", names_of_quantities()),
        ("| score | what it is", further_scores()),
        ("| ending | what it is", further_aggregations()),
    ],
)
def test_the_tables_are_those_of_the_code(head: str, rows: list[str]) -> None:
    (found,) = re.findall(rf"^{re.escape(head)}.*\n\| --- .*\n((?:\|.*\n)*)", PAGE, re.MULTILINE)
    if found.splitlines() != rows:
        pytest.fail("\n".join(["docs/quantities.md should have these rows:", *rows]), pytrace=False)


def test_every_quantity_has_a_formula() -> None:
    (formulas,) = re.findall(r"^\| quantity \| formula.*\n\| --- .*\n((?:\|.*\n)*)", PAGE, re.MULTILINE)
    subjects = [line.split(" | ")[0].removeprefix("| ") for line in formulas.splitlines()]
    assert len(subjects) == len(QUANTITIES)
    for subject, quantity in zip(subjects, QUANTITIES, strict=True):
        assert quantity.symbol in subject or quantity.label.startswith(subject)


def test_the_primary_scores_are_named() -> None:
    (named,) = re.findall(r"The primary scores are (.*)\.\n", PAGE)
    assert re.findall(r"`(\w+)`", named) == list(PRIMARY)


def test_what_the_page_says_of_published_names_is_so() -> None:
    metrics = re.findall(r"`(\w+)_`", next(line for line in PAGE.splitlines() if line.startswith("- D:")))
    names = [aliases.detection for aliases in ALIASES.values() if aliases.detection]
    assert set(PUBLISHED_COLUMNS) == {f"{metric}_{name}" for metric in metrics for name in names}
    (pair,) = re.findall(r"`(\w+)` holds the numbers of `(\w+)`", PAGE)
    assert PUBLISHED_COLUMNS[pair[0]] == pair[1]
    mean, total = (SCORE_BY_NAME[f"ll_{how}"].aliases for how in ("mean", "sum"))
    assert (mean.detection, mean.scaling, total.scaling, total.record[-1]) == ("ll", "nll", "ll", "ll")
