"""Is the answer in a response the gold answer? Three verdicts, and a canonical text of answers for voting.

Written-out numbers, choice letters and words are decided here. Everything else is compared symbolically in worker
processes with a hard limit of time and memory (pool.py), so no response can hang or end a run. No text of a response
is evaluated: latex.py reads it by a grammar, symbolic.py compares, and fenced_worker.py refuses what arithmetic has
no need of, should a library try it all the same.

What counts as equal:
- numbers: next to a gold answer with decimals (not just .00) within a relative 1e-4 of it; next to an exact one (an
  integer, a fraction, a root) exactly, or as a decimal that is this number rounded to the digits given and within 1e-4
  of it: 0.3333 is 1/3, while 0.333, 0.3334 and 123456.7 for 123456 are wrong (tolerance.py);
- exact values are compared exactly, however small: 1/2006! is neither 1/2004! nor 0 (scalars.py);
- numbers too large to be written out are told apart by their size, else undecided (sizes.py);
- 12% is 12 and 0.12 (the sign on either side); 0.12 and 12, both without the sign, differ;
- units, currency, degree signs and thousands separators are dropped, not compared; words that change a number
  ("3 million", "5 squared", "not 5") are not units, and a comma in brackets separates, so (2,100) is a pair;
- 22° 30' is 22.5°; 12:00 is a time, not a quotient, and 3:4 a ratio (sexagesimal.py);
- digits with a base (52_8) equal the same digits with that base or without one;
- a list without parentheses has no order, a tuple has; (1,2) is a pair or an open interval, as the gold answer needs;
- i - 2j + 2k is the vector (1,-2,2); x > 0, x \\ne 1 is the union of two intervals;
- x = 5 and 5 = x equal 5, and m + n = 5 does; x = 5 does not equal y = 5, and 2x = 6, not solved, equals no number;
- of written-out arithmetic the last side counts, and the first if the others round it: 16/3 = 5.33 equals 16/3 and
  5.33; an equation of two different numbers (8 = 9) equals none;
- "for any real c" behind an answer is dropped, unless the other one is for other numbers (qualifiers.py);
- where the gold answer is a number, so is an answer of one number and words ("Total: 5 apples", "4 weeks (28 days)");
- two equal texts are right, whatever they say.
"""

import re
from collections import Counter
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Self

from ..extras import require_extra
from .extraction import extract_answer
from .normal_form import normalize, number
from .pool import Undecided, WorkerPool
from .qualifiers import without_qualifiers
from .sexagesimal import same_time
from .words import NOT_UNITS, choice, is_false, lone_number, plain, restatement, unmarked, value_text, words

MAX_ANSWER = 2000  # characters; longer answers are not compared


class Verdict(StrEnum):
    """RIGHT, WRONG (also: no answer found), or UNDECIDED.

    Undecided: the comparison ran out of time or memory or crashed, an answer is longer than MAX_ANSWER, or the gold
    answer is empty or not readable and differs as text.
    """

    RIGHT = "right"
    WRONG = "wrong"
    UNDECIDED = "undecided"


class Grader:
    """Grades responses against gold answers; remembers what it has compared. Use it as a context manager.

    `workers` processes, each with `seconds` for a comparison and `memory_mb` of address space.
    `undecided` counts the reasons of undecided comparisons, each pair of answers once.
    """

    def __init__(self, workers: int = 2, seconds: float = 5.0, memory_mb: int = 2048) -> None:
        if workers < 1 or seconds <= 0 or memory_mb < 256:
            raise ValueError(
                f"a grader needs at least 1 worker, more than 0 seconds and at least 256 MB, got {workers} workers, "
                f"{seconds} seconds, {memory_mb} MB"
            )
        require_extra("grading", "latex2sympy2_extended", "math_verify", "sympy")  # before a worker fails on them
        self.undecided: Counter[str] = Counter()
        self.pool = WorkerPool(workers, seconds, memory_mb)
        self._verdicts: dict[tuple[str, str], Verdict] = {}
        self._canonical: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the worker processes."""
        self.pool.close()

    def grade(self, pairs: Sequence[tuple[str | None, str]]) -> list[Verdict]:
        """The verdict of each (response, gold answer), in order."""
        # A gold text of GSM8K may still have its solution before it.
        golds = [gold.rsplit("####", 1)[-1] for _, gold in pairs]
        answers = [(extract_answer(pair[0], _is_choice(gold)), gold) for pair, gold in zip(pairs, golds, strict=True)]
        open_pairs: dict[tuple[str, str], None] = {}
        for answer, gold in answers:
            if answer is not None and (answer, gold) not in self._verdicts:
                verdict = _decide(answer, gold)
                if verdict is None:
                    open_pairs[answer, gold] = None
                else:
                    self._verdicts[answer, gold] = verdict
        self._compare(list(open_pairs))
        return [Verdict.WRONG if answer is None else self._verdicts[answer, gold] for answer, gold in answers]

    def canonical(self, texts: Sequence[str | None]) -> list[str | None]:
        """For each response a text that is the same for equal answers; None where there is no answer.

        Equal where that is cheap to show: numbers, expressions that agree when expanded, tuples, sets and intervals of
        them. Of a percentage the sign is dropped; of an equation for one name, the name. An answer that cannot be
        read, or not within the limits, stands for itself.
        """
        answers = [extract_answer(text) for text in texts]
        unknown: dict[str, str] = {}
        for answer in answers:
            if answer is not None and answer not in self._canonical and answer not in unknown:
                text = value_text(plain(answer), "") if len(answer) <= MAX_ANSWER else answer
                known = _canonical(text)
                if known is None:
                    unknown[answer] = text
                else:
                    self._canonical[answer] = known
        results = self.pool.run([{"operation": "canonical", "texts": [text]} for text in unknown.values()])
        for (answer, text), result in zip(unknown.items(), results, strict=True):
            self._canonical[answer] = _squeeze(text) if isinstance(result, Undecided) else result
        return [None if answer is None else self._canonical[answer] or None for answer in answers]

    def _compare(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Verdicts of the pairs by symbolic comparison; none of them is stored if it is interrupted."""
        requests: list[dict[str, Any]] = []
        compared = []
        for answer, gold in pairs:
            is_long = max(len(answer), len(gold)) > MAX_ANSWER
            if is_long or not plain(gold):
                self.undecided["too long" if is_long else "no gold answer"] += 1
                self._verdicts[answer, gold] = Verdict.UNDECIDED
                continue
            given, expected = without_qualifiers(answer, gold)
            texts = [value_text(expected, given), restatement(given, expected) or value_text(given, expected)]
            requests.append({"operation": "equal", "texts": texts})
            compared.append((answer, gold))
        for pair, result in zip(compared, self.pool.run(requests), strict=True):
            if isinstance(result, Undecided):
                self.undecided[result.reason] += 1
                self._verdicts[pair] = Verdict.UNDECIDED
            else:
                self._verdicts[pair] = _verdict(result)


def _squeeze(text: str) -> str:
    """`text` without spaces, but for those between digits."""
    return re.sub(r"(?<![0-9])\s+|\s+(?![0-9])", "", text)


def _verdict(is_right: bool) -> Verdict:
    return Verdict.RIGHT if is_right else Verdict.WRONG


def _is_choice(gold: str) -> bool:
    """Whether the gold answer is the letter of a choice and nothing else."""
    expected = plain(gold) if len(gold) <= MAX_ANSWER else ""
    return choice(expected) is not None and len(expected) <= len(r"\text{(A)}")


def _decide(answer: str, gold: str) -> Verdict | None:
    """The verdict where reading the two texts is enough, else None."""
    if gold.strip() and answer.strip() == gold.strip():
        return Verdict.RIGHT
    if max(len(answer), len(gold)) > MAX_ANSWER or not gold.strip():
        return None
    is_same_time = same_time(unmarked(normalize(answer)).strip(), unmarked(normalize(gold)).strip())
    if is_same_time is not None:
        return _verdict(is_same_time)
    given, expected = plain(answer), plain(gold)
    if not given:
        return Verdict.WRONG
    if expected and _squeeze(given) == _squeeze(expected):
        return Verdict.RIGHT
    given, expected = without_qualifiers(answer, gold)
    if _is_choice(gold):
        return _verdict(choice(given) == choice(expected))
    value = value_text(given, expected)
    if is_false(value):
        return Verdict.WRONG
    left, right = number(value), number(value_text(expected, given))
    if right is not None:
        left = left or lone_number(value)
    if left is not None and right is not None:
        is_rounded = left.decimal and restatement(given, expected) is not None
        is_open = is_rounded or ("," in given and "," in expected)
        return Verdict.RIGHT if right.equals(left) else None if is_open else Verdict.WRONG
    expected_text = words(expected)
    if expected_text is not None:
        return _verdict(words(given, short=True) == expected_text)
    return Verdict.WRONG if right is not None and (words(given) or NOT_UNITS.search(unmarked(value))) else None


def _canonical(text: str) -> str | None:
    """The canonical text where reading is enough: numbers, choice letters, words."""
    if len(text) > MAX_ANSWER or is_false(text):
        return _squeeze(text)
    value = number(text) or (None if text[:1].isalpha() and ":" not in text else lone_number(text))
    if value is not None:
        return f"{value.value}_{value.base}" if value.base else str(value.value)
    return choice(text) or words(text)
