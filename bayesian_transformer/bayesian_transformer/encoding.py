"""From texts to the tokens that are scored: those of a response as it goes on from its prompt."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from jinja2 import TemplateError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CHUNK_ROWS = 512  # bounds the memory of scoring, see scoring.py; here, where the command line has it without torch

# What a template may raise on messages that it was not written for; it runs expressions on them.
TEMPLATE_ERRORS = (
    TemplateError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError,
)  # fmt: skip


@dataclass(frozen=True)
class ScoringRequest:
    """A text to score. `prompt` is raw text, or messages for the tokenizer's chat template."""

    prompt: str | list[dict[str, str]]
    response: str
    seed: int = 0


def encode(
    tokenizer: "PreTrainedTokenizerBase",
    request: ScoringRequest,
    limit: int | None = None,
    vocabulary: int | None = None,
) -> tuple[list[int], list[int]]:
    """Token ids of prompt and response. No token spans both, as a model generates none that does.

    The tokens spell the response where the prompt ends: after "The capital is", " Paris" is another response than
    "Paris", which makes it "isParis". SentencePiece tokenizers put a space in front of every text that they are given.
    This one is not part of a response, with one exception: a response to messages, or to an empty prompt, may leave it
    out. "Paris" after a template that ends in "[/INST]" is scored as " Paris", unless white space stands there already.

    ValueError says why a request cannot be scored: no response, more than `limit` tokens, messages that the chat
    template refuses, text that is not Unicode, a token beyond the `vocabulary` of the model, or a response whose tokens
    decode to another text.
    """
    prompt = _encode_prompt(tokenizer, request.prompt)
    if not prompt:
        raise ValueError("the prompt is empty and the tokenizer adds no token that begins a text")
    if not request.response:
        raise ValueError("the response is empty")
    request.response.encode()  # UnicodeEncodeError, a ValueError, names a surrogate that stands alone
    response = _encode_response(tokenizer, prompt, request)
    if limit is not None and len(prompt) + len(response) > limit:
        raise ValueError(
            f"prompt and response have {len(prompt)} + {len(response)} tokens, more than the {limit} of the model"
        )
    largest = max(*prompt, *response)
    if vocabulary is not None and largest >= vocabulary:
        raise ValueError(
            f"token {tokenizer.convert_ids_to_tokens(largest)!r} has the id {largest}, but the model knows only "
            f"{vocabulary} tokens"
        )
    return prompt, response


def _encode_prompt(tokenizer: "PreTrainedTokenizerBase", prompt: str | list[dict[str, str]]) -> list[int]:
    if isinstance(prompt, str):
        prompt.encode()
        return tokenizer(prompt).input_ids
    try:
        text = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False)
    except TEMPLATE_ERRORS as error:
        raise ValueError(f"the chat template refuses the messages: {error}") from error
    text.encode()
    return tokenizer(text, add_special_tokens=False).input_ids  # the template writes them itself


def _encode_response(tokenizer: "PreTrainedTokenizerBase", prompt: list[int], request: ScoringRequest) -> list[int]:
    """The tokens that spell the response behind the tokens of the prompt."""
    before, response = _decode(tokenizer, prompt), request.response
    wanted = {before + response}
    bare = not before[-1:].isspace() and not response[0].isspace()
    if bare and (not request.prompt or not isinstance(request.prompt, str)):
        wanted.add(f"{before} {response}")
    for tokenise in (_tokens, _tokens_inside):
        tokens = tokenise(tokenizer, response)
        if _decode(tokenizer, prompt + tokens) in wanted:
            return tokens
    raise ValueError("the tokens of the response do not decode to the same text; its values would be misplaced")


def _tokens(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False).input_ids


def _tokens_inside(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    """The tokens of a text that does not come first, so that no space is put in front of it."""
    line_end = "\n"  # no token of a SentencePiece tokenizer joins it with what follows
    return _tokens(tokenizer, line_end + text)[len(_tokens(tokenizer, line_end)) :]


def token_text(tokenizer: "PreTrainedTokenizerBase", token_id: int) -> str | None:
    """The text of one token; None if the tokenizer does not know the id, as a model with a padded vocabulary may."""
    try:
        known = tokenizer.convert_ids_to_tokens(token_id) is not None
        return tokenizer.decode([token_id]) if known else None
    except (LookupError, OverflowError, TypeError, ValueError):  # SentencePiece has no None for it
        return None


def _decode(tokenizer: "PreTrainedTokenizerBase", ids: list[int]) -> str:
    return tokenizer.decode(ids, clean_up_tokenization_spaces=False)
