"""The token heat map: escaping, spelling texts by their tokens, the colour scale and the numbers."""

import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from bayesian_transformer.heat_map.page import LEVELS, SHOWN, Scale, render, value_text, write_report
from bayesian_transformer.spans import spell
from bayesian_transformer.uncertainty import FIELDS
from tests.helpers.heat_map_pages import Page, a_record, a_response, run, write

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&"


# Escaping


def test_no_text_becomes_markup_or_ends_a_script(tmp_path: Path) -> None:
    record = a_record([EVIL, "\u2028<!--"], prompt=EVIL, id=EVIL, answer=EVIL)
    page = tmp_path / "page.html"
    assert run(write(tmp_path / "scores.jsonl", record), "--output", page, "--title", EVIL).exit_code == 0
    parsed = Page(page.read_text())
    assert [tag for tag, _ in parsed.tags].count("script") == len(parsed.scripts) == 2
    assert "img" not in {tag for tag, _ in parsed.tags}
    assert not [name for _, attributes in parsed.tags for name in attributes if name.startswith("on")]
    assert parsed.data[0]["tokens"] == [EVIL, "\u2028<!--"]
    assert parsed.text.count("<img src=x onerror=alert(2)>") >= 4  # prompt, text, name, answer
    assert parsed.tokens[-2][0] == EVIL


def test_the_page_refers_to_nothing_outside() -> None:
    page = render([a_response(["a"])], "t")
    assert not re.search(r"https?:|//[a-z]|@import|url\(", page)
    attributes = {name for _, attributes in Page(page).tags for name in attributes}
    assert not attributes & {"src", "href", "srcset", "action", "style"}
    policy = next(a["content"] or "" for _, a in Page(page).tags if a.get("http-equiv"))
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


@given(st.lists(st.text(max_size=6), max_size=6))
def test_any_text_is_shown_and_handed_to_the_script(tokens: list[str]) -> None:
    parsed = Page(render([a_response(tokens)], "t"))
    assert parsed.data[0]["tokens"] == tokens
    shown = [text for text, _ in parsed.tokens[LEVELS:]]
    spelled = [re.sub(r"[\x00-\x08\x0b-\x1f]", lambda m: f"\\x{ord(m[0]):02x}", token) for token in tokens]
    assert shown == spelled


def test_lone_surrogates_can_be_written(tmp_path: Path) -> None:
    write_report(tmp_path / "page.html", [a_response(["a\ud800"])])
    assert "a\ufffd" in (tmp_path / "page.html").read_text(encoding="utf-8")


# Spelling


@given(text=st.text(st.characters(codec="utf-8", exclude_characters="\ufffd"), max_size=40))
def test_tokens_of_byte_level_tokenizers_spell_the_text(text: str, smollm2_tokenizer: PreTrainedTokenizerBase) -> None:
    ids = smollm2_tokenizer(text).input_ids
    assume(smollm2_tokenizer.decode(ids) == text)  # the vocabulary lacks some control characters
    tokens = [smollm2_tokenizer.decode([i]) for i in ids]
    pieces = spell(tokens, text)
    assert pieces is not None
    assert len(pieces) == len(tokens)
    assert "".join(pieces) == text


@pytest.mark.parametrize(
    ("tokens", "text", "pieces"),
    [
        (["a", " \ufffd", "\ufffd", " b"], "a é b", ["a", " ", "é", " b"]),
        (["\ufffd", "\ufffd", " \ufffd", "\ufffd"], "é é", ["", "é", " ", "é"]),
        (["\ufffd", "x"], "\ufffdx", ["\ufffd", "x"]),
        (["a", "\ufffd"], "a\ufffd", ["a", "\ufffd"]),
        (["a", "b", "<end>"], "ab", ["a", "b", "<end>"]),
        (["Hello", "world"], "Hello world\n", ["Hello", " world\n"]),
        (["a", "\ufffd", "<end>"], "aé", ["a", "é", "<end>"]),
        (["a"], "b", None),
        (["a"], "ab", None),
        ([], "", []),
        ([], "a", None),
    ],
)
def test_spelling(tokens: list[str], text: str, pieces: list[str] | None) -> None:
    assert spell(tokens, text) == pieces


def test_tokens_that_do_not_spell_the_text_are_shown_by_themselves() -> None:
    parsed = Page(render([a_response(["a", "b"], text="other")], "t"))
    assert [text for text, _ in parsed.tokens[LEVELS:]] == ["a", "b"]
    assert "do not spell the stored text" in parsed.text


# Scale and numbers


@given(
    st.sampled_from(SHOWN),
    st.lists(st.one_of(st.none(), st.floats(-50, 50)), min_size=1, max_size=80),
)
def test_levels_follow_the_order_of_uncertainty(quantity: Any, values: list[float | None]) -> None:
    scale = Scale.of(quantity, values)
    known = sorted((v for v in values if v is not None), reverse=quantity.sign > 0)
    levels = [int(scale.level(v)) for v in known]
    if not quantity.from_zero or all(v * -quantity.sign >= 0 for v in known):
        assert levels == sorted(levels)
        assert not known or known[-1] == scale.pale or levels[-1] == LEVELS - 1
    assert scale.level(None) == "-"


def test_outliers_do_not_fade_the_others() -> None:
    scale = Scale.of(SHOWN[0], [0.1] * 99 + [9.0])
    assert (scale.pale, scale.strong, scale.extreme) == (0.0, 0.1, 9.0)
    assert scale.note == " and beyond, to 9.0000"
    assert Scale.of(SHOWN[0], [0.0] * 99 + [9.0]).level(9.0) == str(LEVELS - 1)
    assert Scale.of(SHOWN[0], [0.0, 0.0]).level(0.0) == "0"


def test_numbers_keep_their_size() -> None:
    assert [value_text(v) for v in (None, 0.0, -0.0, 1.23456, 0.00012, -3e-9)] == [
        "–", "0", "0", "1.2346", "1.2e-04", "-3.0e-09",
    ]  # fmt: skip


def test_sums_means_and_counts() -> None:
    response = a_response(["a", "b", "c"], values={"epistemic": [0.5, None, 1.0], "logprob": [-1.0, -2.0, -math.inf]})
    page = render([response], "t")
    assert re.search(r'EU</th><td class="now"></td><td>0.7500</td><td>1.5000<small> 1 missing', page)
    assert re.search(r'logprob</th><td class="now"></td><td>-1.5000</td><td>-3.0000<small> 1 missing', page)
    assert "3 tokens" in Page(page).text
    assert Page(page).data[0]["values"]["logprob"] == ["-1.0000", "-2.0000", "–"]


def test_without_javascript_the_text_is_coloured_by_eu() -> None:
    response = a_response(["a", "b", "c"], values={"total": [3.0, 2.0, 1.0], "epistemic": [0.05, None, 1.0]})
    assert Page(render([response], "t")).tokens[2 * LEVELS :] == [("a", "0"), ("b", "-"), ("c", "9")]


def test_quantities_cover_the_fields() -> None:
    assert sorted(q.name for q in SHOWN) == sorted(FIELDS)
