"""The tokens of a response are those that it has behind its prompt, with SentencePiece tokenizers too.

These put a space in front of every text, which their decoder takes away from the first token.
"""

from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from bayesian_transformer.scoring import ScoringRequest, encode
from bayesian_transformer.spans import spell
from tests.helpers.sentencepiece_tokenizers import MAKE, llama

CHAT = [{"role": "user", "content": "Hi"}]


def pieces(tokenizer: PreTrainedTokenizerBase, prompt: Any, response: str) -> str:
    """The tokens of a response, separated by spaces."""
    ids = encode(tokenizer, ScoringRequest(prompt, response))[1]
    shown = spell([tokenizer.decode([token]) for token in ids], response)
    assert shown is not None  # a heat map can place the tokens
    assert "".join(shown) == response
    return " ".join(tokenizer.convert_ids_to_tokens(ids))


@pytest.fixture(params=MAKE)
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerBase:
    return MAKE[request.param]()


def test_a_space_in_front_of_a_response_is_its_own(tokenizer: PreTrainedTokenizerBase) -> None:
    assert pieces(tokenizer, "The capital is", " Paris.") == "▁Paris ."
    assert pieces(tokenizer, "The capital is", "Paris.") == "Paris ."  # "... isParis."
    assert pieces(tokenizer, "The capital is ", "Paris.") == "Paris ."
    assert pieces(tokenizer, "The capital is", "  Paris.") == "▁ ▁Paris ."
    end = tokenizer.convert_ids_to_tokens(tokenizer("\n", add_special_tokens=False).input_ids)[-1]
    assert pieces(tokenizer, "The", "\nParis") == f"{end} Paris"


@pytest.mark.parametrize("end", ["[/INST]", "[/INST] ", "[/INST]\n"])
def test_a_response_to_messages_may_leave_out_its_first_space(tokenizer: PreTrainedTokenizerBase, end: str) -> None:
    tokenizer.chat_template = "{{ '[INST] ' + messages[0].content + ' ' }}" + f"{{{{ {end!r} }}}}"
    bare = "▁Paris ." if end == "[/INST]" else "Paris ."
    assert pieces(tokenizer, CHAT, "Paris.") == bare
    assert pieces(tokenizer, CHAT, " Paris.") == "▁Paris ."
    assert pieces(tokenizer, CHAT, "\nParis.").endswith(" Paris .")


def test_a_response_to_nothing_begins_a_text() -> None:
    tokenizer = llama(add_bos_token=True)
    assert encode(tokenizer, ScoringRequest("", "x"))[0] == [tokenizer.bos_token_id]
    assert pieces(tokenizer, "", "Paris.") == pieces(tokenizer, "", " Paris.") == "▁Paris ."


def test_byte_level_tokenizers_add_nothing(smollm2_tokenizer: PreTrainedTokenizerBase) -> None:
    for prompt in ("The capital is", "The capital is ", CHAT):
        for response in (" Paris.", "Paris.", "\n\n Paris", "  é😀\n"):
            apart = smollm2_tokenizer(response, add_special_tokens=False).input_ids
            assert encode(smollm2_tokenizer, ScoringRequest(prompt, response))[1] == apart


def test_a_template_that_begins_the_text_itself_begins_it_once() -> None:
    tokenizer = llama(add_bos_token=True)
    tokenizer.chat_template = "{{ bos_token }}[INST] {{ messages[0]['content'] }} [/INST]"
    prompt, _ = encode(tokenizer, ScoringRequest(CHAT, "Paris"))
    assert prompt.count(tokenizer.bos_token_id) == 1
