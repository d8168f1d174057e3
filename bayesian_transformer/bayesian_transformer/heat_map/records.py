"""From the files of `tokur score` and of the run scripts to the responses that a heat map shows."""

from collections.abc import Callable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..encoding import token_text
from ..files import numbered_lines, parse_document, parse_object
from ..quantities import FIELDS
from .page import Response

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DETAILS = ("answer", "finish_reason", "model", "num_samples", "bayes_sigma", "seed")


class BadRecord(ValueError):
    """A record that cannot be shown; the message says why."""


class TokenizerMissing(ValueError):
    """A record without the texts of its tokens, and so all like it, cannot be shown without a tokenizer."""


def read_records(path: Path) -> Iterator[tuple[str, dict[str, Any] | BadRecord]]:
    """The records of a file with where they are: one for each line, or for each response of a .json file."""
    if path.suffix != ".json":
        with path.open("rb") as file:
            for number, line in numbered_lines(file):
                record = _parsed(parse_object, line)
                if isinstance(record, dict):
                    record.setdefault("line", number)
                yield f"{path}:{number}", record
        return
    problem = _parsed(parse_document, path.read_bytes())
    if not isinstance(problem, dict):
        yield str(path), problem
    elif not isinstance(problem.get("outputs"), list):
        yield str(path), BadRecord("needs the field outputs, a list of responses; name a JSON Lines file .jsonl")
    else:
        shared = {key: value for key, value in problem.items() if key != "outputs"}
        for number, output in enumerate(problem["outputs"], start=1):
            where = f"{path}: response {number}"
            if isinstance(output, dict):
                yield where, {**shared, **output, "number": number}
            else:
                yield where, BadRecord("expected a JSON object")


def _parsed(parse: Callable[[bytes], dict[str, Any]], content: bytes) -> dict[str, Any] | BadRecord:
    try:
        return parse(content)
    except ValueError as error:
        return BadRecord(str(error))


def response_of(record: Mapping[str, Any], tokenizer: "PreTrainedTokenizerBase | None" = None) -> Response:
    """The response that a record describes. BadRecord or TokenizerMissing says what it lacks."""
    values = {name: _numbers(record, name) for name in FIELDS if record.get(name) is not None}
    if not values:
        hint = " (run/greedy_responses_unc.py stores them with --per-token)" if "uncertainties" in record else ""
        raise BadRecord(f"has none of the per-token arrays {', '.join(FIELDS)}{hint}")
    ids, tokens = record.get("token_ids"), record.get("tokens")
    if not isinstance(ids, list) or not all(isinstance(i, int) and not isinstance(i, bool) and i >= 0 for i in ids):
        raise BadRecord("needs the field token_ids, a list of integers from 0 up")
    text = record.get("response", record.get("text"))
    if tokens is None:
        if tokenizer is None:
            raise TokenizerMissing("has token ids but no texts of the tokens; give the model's folder as --tokenizer")
        tokens, text = _decode(tokenizer, ids)
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        raise BadRecord("tokens must be a list of strings")
    if text is not None and not isinstance(text, str):
        raise BadRecord("response must be a string")
    details = {key: str(record[key]) for key in DETAILS if record.get(key) is not None}
    if "model" in details:
        details["model"] = Path(details["model"]).name  # the page may be shown to others, its maker's folders need not
    try:
        return Response(_name(record), ids, tokens, values, text, _prompt(record), details)
    except ValueError as error:
        raise BadRecord(str(error)) from error


def _decode(tokenizer: "PreTrainedTokenizerBase", ids: list[int]) -> tuple[list[str], str]:
    """The texts of the tokens, and of the response. An id that is not the tokenizer's stands as <id> in both.

    A model with a padded vocabulary can sample such an id. Where most are unknown, it is another model's tokenizer.
    """
    known = [token_text(tokenizer, i) for i in ids]
    if 2 * known.count(None) > len(ids):
        raise BadRecord(f"token id {max(ids)} is not in the --tokenizer, and most others are not; give the model's own")
    tokens = [f"<{i}>" if text is None else text for i, text in zip(ids, known, strict=True)]
    pieces = []
    for is_known, group in groupby(zip(ids, known, tokens, strict=True), key=lambda token: token[1] is not None):
        part = list(group)
        spelt = [i for i, _, _ in part]
        unknown = "".join(token for _, _, token in part)
        pieces.append(tokenizer.decode(spelt, clean_up_tokenization_spaces=False) if is_known else unknown)
    return tokens, "".join(pieces)


def _numbers(record: Mapping[str, Any], name: str) -> list[float | None]:
    values = record[name]
    if isinstance(values, list) and all(v is None or type(v) in (int, float) for v in values):
        try:
            return [None if v is None else float(v) for v in values]
        except OverflowError as error:
            raise BadRecord(f"{name}: {error}") from error
    raise BadRecord(f"{name} must be a list of numbers or nulls")


def _name(record: Mapping[str, Any]) -> str:
    """The record's own id, or its line number, and the number of the response where there are several."""
    known = [str(record[key]) for key in ("id", "unique_id") if record.get(key) not in (None, "")]
    name = known[0] if known else f"line {record['line']}" if "line" in record else "response"
    return f"{name} #{record['number']}" if "number" in record else name


def _prompt(record: Mapping[str, Any]) -> str:
    """The prompt as text, messages as "role: content" paragraphs."""
    messages = record.get("messages")
    if isinstance(messages, list):
        return "\n\n".join(f"{m.get('role')}: {m.get('content')}" for m in messages if isinstance(m, dict))
    return str(record.get("prompt") or record.get("formatted_prompt") or "")
