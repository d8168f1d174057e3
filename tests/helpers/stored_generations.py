"""The stored responses of tests/data/generations, read and graded without a line of the project's own code."""

import json
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1] / "data" / "generations"
MODEL, DATASET = "TFB-SmolLM2-135M-Instruct", "arithmetic"

# Answers read by hand where "the number after `answer is`, else the last number" is not what the response says.
# Prose stands for itself: it is a vote for an answer that is never right.
BY_HAND = {
    '"two-thirds" or "3/4."': "3/4",
    "The answer is: El": "El",
    "here's the answer: 9 * 8 = 64.": "64",
    "Your answer is already 4 x 3 = 12.": "12",
    "Dumbass.": "Dumbass",
    "Understood.": "Understood",
    "similars": "similars",
    "the answer is that 8 + 4 is indeed 12.": "12",
    "performing the actions inside the brackets.": "used to sum numbers",
    "interpreted as the sum of two numbers, 1 + 3.": "3",
    "4x + 2.": "4x + 2",
    "54 (total).": "54 (total)",
    "as the answer is in a comma after the thousands.": "in a comma",
    "The answer is not a literal formula": "not a literal formula",
    "It's often referred": "a combination",
    "The answer is correct, 5 * 7 equals 35.": "35",
}


def greedy_records(seed: int) -> list[dict[str, Any]]:
    """The greedy records of a seed, by problem."""
    (path,) = (ROOT / f"{MODEL}_results_vllm_pg" / DATASET / f"seed{seed}" / "greedy_unc").glob("*.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def scaling_records() -> dict[str, dict[str, Any]]:
    """The files of 16 sampled responses by question id."""
    folder = ROOT / "inference_scaling" / f"{MODEL}_results_vllm_pg" / DATASET / "seed96/p16/single_greedy_unc"
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def answer(text: str) -> str | None:
    """The answer of a response as text, the same for the same number; None without one."""
    for part, value in BY_HAND.items():
        if part in text:
            return value
    numbers = re.findall(r"(?i)answer\s*(?:is|:)[^\n]*?(-?\d+(?:\.\d+)?)", text)
    numbers = numbers or [n.replace(",", "") for n in re.findall(r"(?<![\w.,])-?\d+(?:,\d{3})*(?:\.\d+)?", text)]
    return str(Fraction(numbers[-1])) if numbers else None
