"""The table of graded cases, each named by where its form comes from; see tests/data/grader_cases.jsonl.

An `answer` is graded as the content of a box, a `response` as it is. The wording is our own throughout.
"""

from collections import Counter
from pathlib import Path

import pytest

from bayesian_transformer.files import read_jsonl
from bayesian_transformer.grading import Grader, Verdict

CASES = read_jsonl(Path(__file__).parents[1] / "data" / "grader_cases.jsonl")
SOURCES = {
    "gsm8k",
    "math500",
    "deepscaler",
    "leg-counting",
    "math-verify",
    "extraction",
    "choice",
    "hand-made",
    "reports",
}


@pytest.fixture(scope="module")
def verdicts() -> dict[str, Verdict]:
    """All cases, graded in one batch as a script does."""
    responses = [case.get("response", f"\\boxed{{{case.get('answer')}}}") for case in CASES]
    with Grader() as grader:
        graded = grader.grade(list(zip(responses, [case["gold"] for case in CASES], strict=True)))
    return {case["name"]: verdict for case, verdict in zip(CASES, graded, strict=True)}


def test_table_is_complete() -> None:
    names = Counter(case["name"] for case in CASES)
    assert len(CASES) >= 300
    assert max(names.values()) == 1
    assert {case["source"] for case in CASES} == SOURCES
    assert all(("response" in case) != ("answer" in case) for case in CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_case(case: dict[str, str], verdicts: dict[str, Verdict]) -> None:
    assert verdicts[case["name"]] == case["verdict"]
