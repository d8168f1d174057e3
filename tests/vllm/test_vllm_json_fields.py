"""The tokens of each value of a JSON answer that the embedded model writes under vLLM's structured outputs.

Beside them a brute force that decodes ever longer beginnings of the answer and looks which token adds a character of
the value. It finds the values with Python's own JSON decoder, by the names that the schema gives.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from bayesian_transformer.spans import field_scores, json_spans, place, token_offsets
from bayesian_transformer.uncertainty import FIELDS
from tests.helpers.vllm_engines import engine, table

pytest.importorskip("vllm")
from vllm import SamplingParams
from vllm.sampling_params import StructuredOutputsParams

pytestmark = pytest.mark.engine
PLACE = {"city": {"type": "string", "maxLength": 12}, "mark": {"enum": ["né 😀", "汉字", "ok"]}}
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 16},
        "age": {"type": "integer", "minimum": 0, "maximum": 99999},
        "sure": {"type": "boolean"},
        "place": {"type": "object", "properties": PLACE, "required": [*PLACE], "additionalProperties": False},
        "sizes": {"type": "array", "items": {"type": "number", "maximum": 99}, "minItems": 2, "maxItems": 2},
    },
    "required": ["name", "age", "sure", "place", "sizes"],
    "additionalProperties": False,
}
PATHS = {"$.name": "name", "$.age": "age", "$.sure": "sure", "$.place.city": "city", "$.place.mark": "mark"}
CHAT = [{"role": "user", "content": "Describe a person of your choice as JSON."}]


@pytest.fixture(scope="module")
def answers(smollm2_tfb_path: Path) -> Iterator[list[Any]]:
    """Answers to several seeds, the last ones cut off."""
    structured = {"backend": "xgrammar", "disable_any_whitespace": True}
    guided = StructuredOutputsParams(json=SCHEMA)
    settings = {"temperature": 1.0, "structured_outputs": guided}
    params = [SamplingParams(seed=seed, max_tokens=200, **settings) for seed in range(6)]
    params += [SamplingParams(seed=seed, max_tokens=9 + 3 * seed, **settings) for seed in range(6)]
    overrides = {"num_samples": 3}
    with engine(smollm2_tfb_path, in_process=True, structured_outputs_config=structured, hf_overrides=overrides) as llm:
        yield [output.outputs[0] for output in llm.chat([CHAT] * len(params), params, use_tqdm=False)]


def places(text: str) -> dict[str, tuple[int, int]]:
    """The characters of the values of SCHEMA by path, as far as they are complete."""
    found = {}
    for path, key in PATHS.items():
        start = next(re.finditer(f'"{key}": ?', text)).end()
        _, end = json.JSONDecoder().raw_decode(text, start)
        has_quotes = text[start] == '"' and end - start > 2
        found[path] = (start + has_quotes, end - has_quotes)
    sizes = re.search(r'"sizes": ?\[(.*?)(, ?)(.*?)\]', text)
    assert sizes
    return {**found, "$.sizes[0]": sizes.span(1), "$.sizes[1]": sizes.span(3)}


def tokens_of(tokenizer: PreTrainedTokenizerBase, ids: list[int], start: int, end: int) -> list[int]:
    """Which tokens add a character of [start, end), by decoding every beginning of the answer."""
    beginnings = [tokenizer.decode(ids[:count]) for count in range(len(ids) + 1)]
    before = [len(text.rstrip("\ufffd")) for text in beginnings[:-1]]  # U+FFFD: a character that is not complete yet
    after = [len(text) for text in beginnings[1:]]
    return [index for index in range(len(ids)) if before[index] < end and after[index] > start]


def test_every_value_has_its_tokens(answers: list[Any], smollm2_tokenizer: PreTrainedTokenizerBase) -> None:
    """And min, mean and max are those of the rows of the table at these tokens."""
    complete = [answer for answer in answers if answer.finish_reason == "stop"]
    assert len(complete) >= 5
    for answer in complete:
        ids = list(answer.token_ids)
        tokens = [entry[token].decoded_token for token, entry in zip(ids, answer.uncertainties, strict=True)]
        numbers = table(answer)
        scores = field_scores(answer.text, tokens, dict(zip(FIELDS, numbers.T, strict=True)))
        expected = places(answer.text)
        assert scores.keys() == expected.keys()
        for path, (start, end) in expected.items():
            own = tokens_of(smollm2_tokenizer, ids, start, end)
            assert [*scores[path].span.tokens] == own, (answer.text, path)
            for column, name in enumerate(FIELDS):
                values = numbers[own, column]
                summary = scores[path].quantities[name]
                assert (summary["min"], summary["max"]) == (values.min(), values.max())
                assert summary["mean"] == pytest.approx(values.mean())
    assert any("😀" in answer.text or "汉" in answer.text for answer in complete)  # characters of several tokens


def test_an_answer_that_is_cut_off_has_the_values_so_far(
    answers: list[Any], smollm2_tokenizer: PreTrainedTokenizerBase
) -> None:
    short = [answer for answer in answers if answer.finish_reason == "length"]
    assert len(short) >= 3
    for answer in short:
        ids = list(answer.token_ids)
        offsets = token_offsets([smollm2_tokenizer.decode([token]) for token in ids], answer.text)
        assert offsets is not None
        spans = place(json_spans(answer.text), offsets)
        assert spans
        for span in spans:
            assert [*span.tokens] == tokens_of(smollm2_tokenizer, ids, span.start, span.end)
        whole = answer.text.rstrip() if spans[-1].cut else ""
        assert not whole or spans[-1].end >= len(whole)
