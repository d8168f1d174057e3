"""docs/limits.md: the tables of what is refused are made of the tables that refuse.

    python -m tests.docs.limits_page        # write the page anew after a change of vllm_plugin/refusals.py

A test compares the page with what this would write. Only what stands between a pair of marks is generated.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from bayesian_transformer.architectures import ARCHITECTURES
from bayesian_transformer.files import atomic_path
from bayesian_transformer.vllm_plugin.refusals import GPU_ATTENTION, GPU_SETTINGS, SETTINGS, Refusal

PAGE = Path(__file__).resolve().parents[2] / "docs" / "limits.md"


def refusal_table(head: str, refusals: Iterable[Refusal]) -> str:
    """A Markdown table of what is refused and why."""
    rows = [f"| {refusal.listed or refusal.name} | {refusal.why} |" for refusal in refusals]
    return "\n".join([f"| {head} | why |", "| --- | --- |", *rows])


def model_table() -> str:
    """A Markdown table of the model families."""
    rows = [
        f"| `{family.base_model_type}` | `{family.model_type}` | `{family.vllm_architecture}` |"
        for family in ARCHITECTURES.values()
    ]
    return "\n".join(
        ["| `model_type` of the base model | of the TFB model | architecture in vLLM |", "| --- | --- | --- |", *rows]
    )


def rendered(page: str) -> str:
    """`page` with each generated table as it must be now; ValueError if a pair of marks is missing."""
    tables = {
        "models": model_table(),
        "settings": refusal_table("setting", SETTINGS),
        "gpu-settings": refusal_table("setting on a GPU", GPU_SETTINGS),
        "gpu-attention": refusal_table("attention on a GPU", GPU_ATTENTION),
    }
    for name, table in tables.items():
        marks = re.compile(rf"(<!-- begin {name} -->\n).*?(<!-- end {name} -->)", re.DOTALL)
        parts = marks.split(page)
        if len(parts) != 4:  # before, two marks, after
            raise ValueError(f"{PAGE}: needs one pair of marks <!-- begin {name} --> and <!-- end {name} -->")
        before, begin, end, after = parts
        page = f"{before}{begin}\n{table}\n\n{end}{after}"
    return page


if __name__ == "__main__":
    page = rendered(PAGE.read_text(encoding="utf-8"))
    with atomic_path(PAGE) as temporary:
        temporary.write_text(page, encoding="utf-8")
