"""The small part of the engine's soak that runs with the tests."""

import pytest

pytest.importorskip("vllm")
from tests.soak.engine_requests import run

pytestmark = pytest.mark.engine


def test_many_requests_leave_nothing_behind() -> None:
    figures = run(requests=80, seed=1)
    assert figures["completed"] + figures["aborted"] == figures["requests"] == 81
    assert figures["preemptions"] > 0
    assert figures["responses compared"] > 60
