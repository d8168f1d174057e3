"""docs/limits.md says what is refused, and nothing else is."""

import pytest

pytest.importorskip("vllm")

from bayesian_transformer.vllm_plugin.refusals import GPU_ATTENTION, GPU_SETTINGS, SETTINGS, Refusal

from .limits_page import PAGE, rendered


def test_the_page_is_made_of_the_tables_that_refuse() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == rendered(page), "run: python -m tests.docs.limits_page"
    for refusal in (*SETTINGS, *GPU_SETTINGS, *GPU_ATTENTION):
        assert f"| {refusal.listed or refusal.name} | {refusal.why} |" in page


def test_a_page_without_its_marks_is_an_error() -> None:
    with pytest.raises(ValueError, match="needs one pair of marks <!-- begin gpu-settings -->"):
        rendered(PAGE.read_text(encoding="utf-8").replace("<!-- end gpu-settings -->", ""))


@pytest.mark.parametrize("refusal", [*SETTINGS, *GPU_SETTINGS, *GPU_ATTENTION], ids=lambda refusal: refusal.name)
def test_every_refusal_can_be_listed(refusal: Refusal) -> None:
    """No placeholder stands on the page, and each reason is one sentence."""
    shown = refusal.listed or refusal.name
    assert "{" not in shown
    assert "|" not in shown
    assert refusal.why.endswith(".")
