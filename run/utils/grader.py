"""Is the answer in a response the gold answer? Three verdicts, and a canonical text of answers for voting.

Written-out numbers, choice letters and words are decided here. Everything else is compared symbolically in worker
processes with a hard limit of time and memory (run.utils.pool), so no response can hang or end a run.

What counts as equal:
- numbers: within a relative 1e-4 of the gold answer if one is written with decimals (not just .00), else exactly;
- 12% is 12 and 0.12 (the sign on either side); 0.12 and 12, both without the sign, differ;
- units, currency, degree signs and thousands separators are dropped, not compared; words that change a number
  ("3 million", "5 squared", "not 5") are no units, and a comma in brackets separates, so (2,100) is a pair;
- digits with a base (52_8) equal the same digits with that base or without one;
- a list without parentheses has no order, a tuple has; (1,2) is a pair or an open interval, as the gold answer needs;
- x = 5, 5 = x and 2 + 3 = 5 equal 5; x = 5 does not equal y = 5, and 2x = 6, not solved, equals no number;
- where the gold answer is a number, so is an answer of one number and words ("Total: 5 apples").
"""

import re
from collections import Counter
from collections.abc import Sequence
from enum import StrEnum
from functools import lru_cache
from typing import Any, Self

from run.utils.math import RELATIVE_TOLERANCE, TEXT, Number, extract_answer, normalize, number
from run.utils.pool import Undecided, WorkerPool

__all__ = ["Grader", "Verdict", "extract_answer"]

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
        answers = [(extract_answer(response), gold.rsplit("####", 1)[-1]) for response, gold in pairs]
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
                text = _value(plain(answer), "") if len(answer) <= MAX_ANSWER else answer
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
            given, expected = plain(answer), plain(gold)
            requests.append({"operation": "equal", "texts": [_value(expected, given), _value(given, expected)]})
            compared.append((answer, gold))
        for pair, result in zip(compared, self.pool.run(requests), strict=True):
            if isinstance(result, Undecided):
                self.undecided[result.reason] += 1
                self._verdicts[pair] = Verdict.UNDECIDED
            else:
                self._verdicts[pair] = _verdict(result)


def _squeeze(text: str) -> str:
    return "".join(text.split())


def _verdict(is_right: bool) -> Verdict:
    return Verdict.RIGHT if is_right else Verdict.WRONG


def _decide(answer: str, gold: str) -> Verdict | None:
    """The verdict where reading the two texts is enough, else None."""
    if max(len(answer), len(gold)) > MAX_ANSWER or not gold.strip():
        return None
    given, expected = plain(answer), plain(gold)
    if not given:
        return Verdict.WRONG
    if expected and _squeeze(given) == _squeeze(expected):
        return Verdict.RIGHT
    letter = choice(expected)
    if letter is not None and len(expected) <= len(r"\text{(A)}"):
        return _verdict(choice(given) == letter)
    value = _value(given, expected)
    left, right = number(value), number(_value(expected, given))
    if right is not None:
        left = left or lone_number(value)
    if left is not None and right is not None:
        is_same = _same_number(right, left)
        return None if not is_same and "," in given and "," in expected else _verdict(is_same)
    expected_text = words(expected)
    if expected_text is not None:
        return _verdict(words(given, short=True) == expected_text)
    return Verdict.WRONG if right is not None and (words(given) or NOT_UNITS.search(_unmarked(value))) else None


def _same_number(gold: Number, answer: Number) -> bool:
    if gold.base and answer.base and gold.base != answer.base:
        return False
    accepted = {gold.value}
    if gold.percent != answer.percent:
        accepted.add(gold.value / 100 if gold.percent else gold.value * 100)
    if not (gold.decimal or answer.decimal):
        return answer.value in accepted
    return any(abs(answer.value - value) <= RELATIVE_TOLERANCE * abs(value) for value in accepted)


def _canonical(text: str) -> str | None:
    """The canonical text where reading is enough: numbers, choice letters, words."""
    if len(text) > MAX_ANSWER:
        return _squeeze(text)
    value = number(text) or (None if text[:1].isalpha() and ":" not in text else lone_number(text))
    if value is not None:
        return f"{value.value}_{value.base}" if value.base else str(value.value)
    return choice(text) or words(text)


# Words that change the number beside them, so that it is not the answer, and products of names that look like words.
NOT_UNITS = re.compile(
    r"(?i)(?<![\\a-z{])(?:(?:hundred|thousand|million|billion|trillion|dozen)s?|zero|one|two|three|four|five|six|seven|"
    r"eight|nine|ten|eleven|twelve|[a-z]+teen|twenty|thirty|fou?rty|fifty|sixty|seventy|eighty|ninety|hal(?:f|ves)|"
    r"(?:third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|[a-z]+(?:dred|sand|lion)th)s?|quarters? of|twice|thrice|"
    r"double|triple|plus|minus|negative|over|divided|multiplied|squared|cubed|(?:square|cube)(?= of)|factorial|"
    r"root|power|mod|modulo|than|or|not|no|never|between|except|at (?:least|most)|pi|sqrt|infinity|theta|"
    r"times(?! (?:an?|per|each|every|in|as|daily)\b|$)|(?:sin|cos|tan|cot|csc|log|ln)[xyz]?|sec[xyz]|"
    r"ab(?:c(?:de?)?)?|bcd?|cd|mno?|pqr?s?|qrs?|rst?|stu?|uvw?|(?:u?v)?wxy?z?|xyz?|yz)(?![a-z])"
)
_UNIT = (
    r"(?:mm|cm|km|kg|mg|ml|lb|lbs|oz|ft|yd|mi|hr|hrs|min|mins|sec|secs|mph|mpg|kmh|kwh|kw|rs|usd|[ap]\.?m|sq|cu|deg|rad|"
    r"in|gb|mb|men|boys?|cups?|days?|cats?|dogs?|eggs?|cars?|pens?|ways|box|bags?|pies?|yen|gal|pts|th|st|nd|rd|[a-z]{4,})"
)
_WORDS_AFTER = re.compile(
    rf"(?i)(?<=[0-9}}!)])\s*(?:(?<=[0-9}}!)\s]){_UNIT}\b)(?:(?:\s+|/|\s*\.\s*)[a-z]+)*(?:\s*\^?\s*\{{?[23]\}}?)?\.?$"
)
_TEXT_AFTER = re.compile(rf"(?<=[0-9}})a-zA-Z!])(?:\s|\\cdot)*{TEXT}(?:\s*\^\s*(?:\{{-?[0-9]\}}|[0-9]))?(?:\s*\.)?$")
_TEXT_FRACTION = re.compile(rf"\\frac\s*\{{\s*{TEXT}\s*\}}\s*\{{\s*{TEXT}\s*\}}")
_MARKED = re.compile(rf"(?<!_\{{)(?:\\cdot\s*)?{TEXT}(?:\s*\^\s*(?:\{{-?[0-9]\}}|-?[0-9]))?")
_ONE_NUMBER = re.compile(
    r"(?P<before>[^0-9\\]*?)(?P<number>(?:(?<!\w)-\s?)?[0-9\\](?:.*[0-9}])?(?:\s*%)?)(?P<after>[^0-9\\}]*)"
)
_PROSE_WORD = re.compile(
    rf"(?i)(?:\s[mglshjnwvkcf]|/[smh]|[\s/(]?(?:{_UNIT}|(?-i:[A-Z][a-z]+)|of|on|at|for|the|is|are|per|an?|and|to|by|he|she|has|had|her|his|"
    r"its|was|we|it|all|i))(?:'s?|\.)?"
)


@lru_cache(maxsize=100_000)
def plain(answer: str) -> str:
    """The normal form of an answer without the units after it."""
    text = normalize(answer)
    if any(char.isdigit() for char in text) or "\\" in text:
        for units in (_TEXT_AFTER, _WORDS_AFTER):
            text = units.sub(lambda match: match[0] if NOT_UNITS.search(_unmarked(match[0])) else "", text) or text
    return text.rstrip(".,;: ")


def _unmarked(text: str) -> str:
    """`text` with its \\text{} as plain words."""
    return _MARKED.sub(r" \1 ", _TEXT_FRACTION.sub(r" \1 per \2 ", text))


def lone_number(text: str) -> Number | None:
    """The number of a text that is one number and words or units, such as "Total: 72 clips" and "5 m^2"."""
    match = _ONE_NUMBER.fullmatch(re.sub(r"(?<=[A-Za-z])\s*\^\s*\{?[23]\}?", "", _unmarked(text)))
    if match is None or match["before"].endswith("(") or not all(map(_is_prose, match.group("before", "after"))):
        return None
    return number(match["number"].strip())


def _is_prose(text: str) -> bool:
    is_text = (
        re.fullmatch(r"(?!/[a-z]\b)[A-Za-z\s,.:;()/'\"]*", text)
        and not NOT_UNITS.search(text)
        and not text.endswith(" a")
    )
    return bool(is_text) and all(map(_PROSE_WORD.fullmatch, re.findall(r"[\s/(]?[A-Za-z][A-Za-z'.]*", text)))


_CALCULATION = re.compile(  # written-out arithmetic without names, such as the left side of 2 + 3 = 5
    r"(?:[0-9.,+\-*/^(){}!%=\s]|\\(?:times|cdot|div|frac)(?![a-z])|(?:(?<=[0-9])|(?<=[0-9] ))[xX](?= ?[0-9]))+"
)
_SYMBOL = r"(?:[A-Za-z]|\\(?!pi|infty|ln|log|frac|sqrt)[A-Za-z]{2,9}|[A-Z]{2,4}|\|[A-Z]{1,4}\||\[[A-Z]{2,}\])"
_NAME = re.compile(
    r"(?:m\s*)?(?:\\(?:angle|measuredangle|triangle|overline|vec|hat|(?:sin|cos|tan|cot|sec|csc)(?![a-z]))\s*)*"
    rf"[{{(]?\s*{_SYMBOL}\s*[}})]?'*(?:_(?:\w|\{{[^{{}}=]*\}}))?'*|(?P<f>[fghpqA-Z])'*\((?:(?!(?P=f))[^()=])*\)"
)


def is_name(text: str) -> bool:
    """Whether a text names a quantity: x, a_5, AB, \\angle A, f(2), \\cos\\theta, Total clips. Not xy, 2x or |x|."""
    marked = _MARKED.sub(r" \1 ", text).strip()
    is_phrase = re.fullmatch(r"(?:[a-z]{4,}|[A-Z][a-z']{2,}|of|in|the)(?:\s(?:[A-Za-z']{2,}|a))*", marked)
    return _NAME.fullmatch(marked) is not None or (is_phrase is not None and NOT_UNITS.search(marked) is None)


def _value(text: str, other: str) -> str:
    """`text` without a name ("x =") or a calculation ("2 + 3 =") beside it, if `other` is no equation."""
    *sides, last = (side.strip() for side in text.split("="))
    if not sides or "=" in other:
        return text
    if is_name(sides[0]) and not any(re.search(r"[,<>]|\\(?:le|ge|in)\b", side) for side in sides):
        return last
    calculated = [_CALCULATION.fullmatch(_MARKED.sub(" ", side)) is not None for side in sides]
    if is_name(last) and (len(sides) == 1 or all(calculated)):
        return sides[-1]
    is_evaluated = len(sides) > 1 and calculated[-1] and not re.search("[0-9,]", sides[0])  # a + b = 1 + 3 = 4
    return last if is_evaluated or all(calculated) else text


def words(answer: str, short: bool = False) -> str | None:
    """The lower-case words of an answer that is text, such as \\text{Evelyn} or "no solution"; else None.

    Letters outside of \\text{} could be a product of names: they are words if one has four letters, or if `short`.
    """
    normal = plain(answer)
    text = re.sub(TEXT, r"\1", normal).strip()
    spaced = re.sub(r"[^\w\s]", " ", text).strip()
    if not re.fullmatch(r"[^\W\d_]+(?:\s+\w+)*", spaced) or re.search(r"[\\^_=+*/<>|]", text):
        return None
    is_text = short or re.fullmatch(TEXT, normal) is not None or max(map(len, spaced.split())) >= 4
    return " ".join(spaced.casefold().split()) if is_text else None


_LETTER = re.compile(r"(?<![A-Za-z\\])\(([A-Ja-j])\)|(?:^|,|\b(?:and|or)\b|&)\s*\(?([A-J])\b(?![\w'=])")


def choice(answer: str) -> str | None:
    """The letter of a multiple-choice answer such as "(B)", "B.", \\text{(B) 5}, or None."""
    text = re.sub(TEXT, r"\1", plain(answer)).strip(" {}")
    if len({(one or other).upper() for one, other in _LETTER.findall(text)}) > 1:
        return None  # of several letters none is the answer
    match = re.match(r"(?i:option|choice)?\s*(?:\(([A-Ja-j])\)|([A-J])(?:[).:]|$|\s(?![A-Za-z=+\-*/^<>])))", text)
    return (match[1] or match[2]).upper() if match else None
