"""The prompts and responses to measure: lines as for `tokur score`, or greedy results of the run scripts.

A response has to be there already. It is the text that the user's own engine, chat template and limits gave, and those
decide what is measured; a second answer made here, token by token, would be slower and another text.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..encoding import ScoringRequest, encode
from ..files import dumps, numbered_lines, parse_object
from ..problems import answer_text, question_id
from ..score import parse_line

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MOST_TOKENS = 1 << 31  # in any vocabulary; what is far beyond it is no int64


@dataclass(frozen=True)
class Text:
    """One prompt with its response, as a line of a file has it."""

    number: int  # from 0, over all lines that were read
    place: str  # file and line number
    problem: str  # responses to one problem are alike; the prompt, where the line names none
    prompt: str | list[dict[str, str]]
    response: str
    token_ids: tuple[int, ...] | None  # those of the response, where they were stored
    answer: str | None  # the gold answer, if there is one

    def encoded(
        self, tokenizer: "PreTrainedTokenizerBase", limit: int | None, vocabulary: int
    ) -> tuple[list[int], list[int]]:
        """Token ids of prompt and response; ValueError says why there are none, see `encode`.

        A stored prompt holds its special tokens already, so none are added.
        """
        if self.token_ids is None or not isinstance(self.prompt, str):
            return encode(tokenizer, ScoringRequest(self.prompt, self.response), limit, vocabulary)
        return tokenizer(self.prompt, add_special_tokens=False).input_ids, [*self.token_ids]


def read_texts(paths: Iterable[Path]) -> Iterator[Text | ValueError]:
    """The texts of JSON Lines files in order; for a line that is not one, the ValueError that names it."""
    number = count()
    for path in paths:
        with path.open("rb") as file:
            for line_number, line in numbered_lines(file):
                place = f"{path}:{line_number}"
                try:
                    yield parse_text(line, place, next(number))
                except ValueError as error:
                    yield ValueError(f"{place}: {error}")


def parse_text(line: bytes, place: str, number: int = 0) -> Text:
    """The text on a line. ValueError says what is wrong with it."""
    record = parse_object(line)
    if "text" in record and "response" not in record:
        return _of_greedy_record(record, place, number)
    if record.get("response") is None and ("prompt" in record or "messages" in record):
        raise ValueError("has no response; add the answer that your model gave, as `response`: none is generated here")
    asked = {key: record[key] for key in ("prompt", "messages", "response") if key in record}
    _, request = parse_line(dumps(asked).encode(), 0)  # a line that `tokur score` wrote will do too
    return Text(number, place, _problem(record, request.prompt), request.prompt, request.response, None, _gold(record))


def _of_greedy_record(record: dict[str, Any], place: str, number: int) -> Text:
    prompt, text, ids = (record.get(key) for key in ("formatted_prompt", "text", "token_ids"))
    if not isinstance(prompt, str) or not prompt:
        raise ValueError("needs the field formatted_prompt, as the greedy run writes it")
    if not isinstance(text, str):
        raise ValueError("text must be a string")
    if (
        not isinstance(ids, list)
        or not ids
        or any(type(token) is not int or not 0 <= token < _MOST_TOKENS for token in ids)
    ):
        raise ValueError("token_ids must be a list of token ids, at least one")
    return Text(number, place, _problem(record, prompt), prompt, text, tuple(ids), _gold(record))


def _problem(record: dict[str, Any], prompt: str | list[dict[str, str]]) -> str:
    try:
        return question_id(record)
    except ValueError:
        return prompt if isinstance(prompt, str) else dumps(prompt)


def _gold(record: dict[str, Any]) -> str | None:
    return None if record.get("answer") in (None, "") else answer_text(record)
