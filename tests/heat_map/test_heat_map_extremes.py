"""The most and the least certain responses: which are shown, in which order, and what the page says of the choice."""

import math
from pathlib import Path

import pytest

from bayesian_transformer.heat_map.extremes import extremes
from bayesian_transformer.heat_map.page import Response
from bayesian_transformer.scores import LISTED
from tests.helpers.heat_map_pages import Page, a_record, run, write


def responses(**values: list[float | None]) -> list[Response]:
    """Responses with these values of EU."""
    return [
        Response(name, range(len(array)), ["x"] * len(array), {"epistemic": array}) for name, array in values.items()
    ]


def names(shown: list[Response]) -> list[str]:
    return [response.name for response in shown]


FOUR: dict[str, list[float | None]] = {"a": [0.3, 0.3], "b": [0.1], "c": [0.2, 0.2, 0.2, 0.2], "d": [0.9]}


@pytest.mark.parametrize(
    ("most", "least", "by", "expected"),
    [
        (1, 1, "eu_mean", ["b", "d"]),
        (2, 0, "eu_mean", ["b", "c"]),
        (0, 3, "eu_mean", ["c", "a", "d"]),
        (3, 3, "eu_mean", ["b", "c", "a", "d"]),  # each once
        (2, 2, "eu_sum", ["b", "a", "c", "d"]),
    ],
)
def test_the_ends_of_the_ranking(most: int, least: int, by: str, expected: list[str]) -> None:
    shown, note = extremes(responses(**FOUR), most, least, by)
    assert names(shown) == expected
    if len(expected) == 4:
        assert note == f"All 4 responses, from the most to the least certain by EU, {by.partition('_')[2]}."
    else:
        assert note == f"The {most} most and the {least} least certain of 4 responses, by EU, mean."


def test_equal_scores_keep_their_order() -> None:
    shown, _ = extremes(responses(a=[0.2], b=[0.2], c=[0.2]), 1, 1, "eu_mean")
    assert names(shown) == ["a", "c"]


def test_responses_without_a_score_are_left_out_and_counted() -> None:
    some = responses(a=[0.2], none=[None], nan=[0.1, math.nan], empty=[], b=[0.1])
    some.append(Response("other", [1], ["x"], {"total": [0.0]}))
    shown, note = extremes(some, 5, 5, "eu_mean")
    assert names(shown) == ["b", "a"]
    assert note.endswith(" 4 without finite values of it are left out.")
    with pytest.raises(
        ValueError, match="no response has finite values of TU, mean, so none can be chosen --by tu_mean"
    ):
        extremes(responses(a=[0.2]), 1, 1, "tu_mean")
    assert extremes([], 1, 1, "eu_mean")[0] == []


def test_every_score_ranks_in_its_own_direction() -> None:
    for score in LISTED:  # of one token the others may need more, or be equal
        if score.quantity is None:
            continue
        by = score.name
        small, large = (Response(str(v), [1], ["x"], {score.quantity.name: [v]}) for v in (-2.0, -1.0))
        (certain,), _ = extremes([large, small], 1, 0, by)
        confident = score.quantity.name in ("logprob", "self_certainty", "confidence")
        assert certain.name == ("-1.0" if confident else "-2.0"), by
    assert names(extremes(responses(long=[0.1, 0.1], short=[9.0], none=[]), 1, 1, "length")[0]) == ["none", "long"]


def test_the_command_shows_the_place_and_the_score(tmp_path: Path) -> None:
    records = [a_record(["x"], id=name, epistemic=[eu]) for name, eu in (("mid", 0.2), ("sure", 0.1), ("not", 0.9))]
    source, page = write(tmp_path / "scores.jsonl", *records), tmp_path / "page.html"
    result = run(source, "--output", page, "--most", "1", "--least", "1", "--limit", "1")
    assert (result.exit_code, result.stdout) == (0, f"{page}: 2 of 3 responses shown, 0 failed\n")
    text = Page(page.read_text()).text
    assert text.index("certainty 1 of 3, 1 is the most certain") < text.index("EU, mean 0.1000")
    assert text.index("EU, mean 0.1000") < text.index("certainty 3 of 3") < text.index("EU, mean 0.9000")
    assert "The 1 most and the 1 least certain of 3 responses, by EU, mean." in text

    assert run(source, "--output", page, "--least", "1", "--by", "eu_sum").exit_code == 0
    text = Page(page.read_text()).text
    assert "EU, sum 0.9000" in text
    assert "sure" not in text
    assert "'nonsense' is not one of" in run(source, "--output", page, "--most", "1", "--by", "nonsense").stderr
