"""The campaign with malformed checkpoints, in part: all for the conversion, samples for transformers and vLLM."""

from pathlib import Path

import pytest

from tests.soak import malformed_checkpoints
from tests.soak.malformed_checkpoints import mutations, run
from tests.soak.mutation import CONVERT, LOAD, VLLM, Mutation, accepted, poison, text


def test_there_are_at_least_a_hundred_for_each_reader() -> None:
    for stage in (CONVERT, LOAD, VLLM):
        assert sum(stage in mutation.stages for mutation in mutations()) > 100


def test_conversion() -> None:
    assert run((CONVERT,), flips=20)["convert: refused"] > 100


def test_loading_in_transformers() -> None:
    figures = run((LOAD,), flips=20, sample=60)
    assert figures["mutations"] == 80
    assert figures["load: refused"] > 20


@pytest.mark.engine
def test_loading_in_vllm() -> None:
    pytest.importorskip("vllm")
    assert run((VLLM,), sample=30)["vllm: refused"] > 5


@pytest.mark.parametrize(
    ("mutation", "said"),
    [
        (Mutation("same", lambda folder: None), "accepted, which is not declared"),
        (Mutation("cut", text("config.json", ""), ("another",)), "must say another but says .*config.json"),
        (Mutation("good", lambda folder: None, accepted=accepted("nothing is wrong")), ""),
    ],
)
def test_the_campaign_can_fail(monkeypatch: pytest.MonkeyPatch, mutation: Mutation, said: str) -> None:
    monkeypatch.setattr(malformed_checkpoints, "mutations", lambda: [mutation])
    if not said:
        run((CONVERT,))
        return
    with pytest.raises(AssertionError, match=f"seed 0, {mutation.name}, convert: {said}"):
        run((CONVERT,))


def test_what_is_left_behind_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def reader(folder: Path, output: Path, engines: bool) -> str:
        (folder.parent / ".output.tmp").touch()
        return "wrong"

    monkeypatch.setitem(malformed_checkpoints._READERS, CONVERT, reader)
    mutation = Mutation("any", poison("model.embed_tokens.weight", 1), ("wrong",))
    monkeypatch.setattr(malformed_checkpoints, "mutations", lambda: [mutation])
    with pytest.raises(AssertionError, match=r"left behind: \['.output.tmp'\]"):
        run((CONVERT,))
