"""Which lines are texts, what problem they are of, and what is said of the others."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from bayesian_transformer.encoding import ScoringRequest, encode
from bayesian_transformer.sigma.texts import Text, parse_text, read_texts
from tests.helpers.stored_generations import greedy_records


def parsed(record: dict[str, Any]) -> Text:
    return parse_text(json.dumps(record).encode(), "file:1")


def test_lines_of_scoring_and_of_greedy_runs(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "Hi"}]
    lines: list[dict[str, Any]] = [
        {"prompt": "a", "response": " b", "seed": 3, "answer": 5, "unique_id": "x/1"},
        {"messages": chat, "response": "Hello"},
        {
            "formatted_prompt": "<s>Q",
            "text": " A",
            "token_ids": [5, 2],
            "answer": "",
            "unique_id": "y",
            "total": [1, 2],
        },
    ]
    first, second = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    first.write_text("\n" + "\n".join(map(json.dumps, lines)))
    second.write_text('{"prompt": "a"}\n{"prompt": "a", "response": "c"}\n')
    *texts, bad, last = read_texts([first, second])
    assert texts == [
        Text(0, f"{first}:2", "x_1", "a", " b", None, "5"),
        Text(1, f"{first}:3", json.dumps(chat), chat, "Hello", None, None),
        Text(2, f"{first}:4", "y", "<s>Q", " A", (5, 2), None),
    ]
    assert str(bad).startswith(f"{second}:1: has no response; add the answer that your model gave, as `response`")
    assert last == Text(4, f"{second}:2", "a", "a", "c", None, None)


def test_tokens_are_those_of_scoring_or_those_stored(smollm2_tokenizer: PreTrainedTokenizerBase) -> None:
    line = parsed({"prompt": "2 + 2 =", "response": " 4."})
    request = ScoringRequest("2 + 2 =", " 4.")
    assert line.encoded(smollm2_tokenizer, None, 49152) == encode(smollm2_tokenizer, request)
    record = greedy_records(96)[0] | {"formatted_prompt": "<|im_start|>user\nWhat is 6 + 5?<|im_end|>\n"}
    prompt, response = parsed(record).encoded(smollm2_tokenizer, None, 49152)
    assert prompt[0] == smollm2_tokenizer.convert_tokens_to_ids("<|im_start|>")
    assert smollm2_tokenizer.decode(prompt) == record["formatted_prompt"]
    assert response == record["token_ids"]
    assert parsed(record).answer == "11"


def test_what_scoring_wrote_will_do() -> None:
    scored = {"prompt": "a", "response": " b", "line": 1, "token_ids": [5], "total": [0.1], "seed": 3}
    assert parsed(scored) == Text(0, "file:1", "a", "a", " b", None, None)


def test_a_stored_prompt_gets_no_second_token_that_begins_it(smollm2_tokenizer: PreTrainedTokenizerBase) -> None:
    class Beginning:
        """A tokenizer that puts a token in front, as Llama's does."""

        def __call__(self, text: str, add_special_tokens: bool = True) -> Any:
            encoding = smollm2_tokenizer(text)
            encoding["input_ids"] = [1] * add_special_tokens + encoding["input_ids"]
            return encoding

    record = {"formatted_prompt": "ab", "text": "c", "token_ids": [7]}
    prompt, _ = parsed(record).encoded(Beginning(), None, 10)  # type: ignore[arg-type]
    assert prompt == smollm2_tokenizer("ab").input_ids


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"prompt": "a"}, "has no response"),
        ({"messages": [], "response": None}, "has no response"),
        ({"response": "a"}, "needs one of the fields prompt and messages"),
        ({"prompt": "a", "response": 5}, "needs the field response, a string"),
        ({"text": "a", "token_ids": [1]}, "needs the field formatted_prompt"),
        ({"formatted_prompt": "a", "text": None, "token_ids": [1]}, "text must be a string"),
        ({"formatted_prompt": "a", "text": "a", "token_ids": []}, "at least one"),
        ({"formatted_prompt": "a", "text": "a", "token_ids": [1.5]}, "a list of token ids"),
        ({"formatted_prompt": "a", "text": "a", "token_ids": [True]}, "a list of token ids"),
        ({"formatted_prompt": "a", "text": "a", "token_ids": [1 << 70]}, "a list of token ids"),
        ({"formatted_prompt": "a", "text": "a", "token_ids": [-1]}, "a list of token ids"),
    ],
)
def test_bad_lines_say_why(record: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parsed(record)


def test_lines_that_are_no_objects_are_named(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_bytes(b'{\n[1]\n{"prompt": "x", "response": "\xff"}\n' + b"[" * 100_000)
    assert [str(error).partition(": ")[0] for error in read_texts([path])] == [f"{path}:{n}" for n in (1, 2, 3, 4)]
