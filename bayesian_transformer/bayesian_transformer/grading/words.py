"""What a normalised answer says: the number among its words and units, a name, a choice letter, a text."""

import re
from functools import lru_cache

from . import chinese
from .normal_form import TEXT, Number, normalize, number

# Words that change the number next to them, so that it is not the answer, and products of names that look like words.
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
_AFTER_CONSTANT = re.compile(
    r"(?<=\\pi)\s*(?:(?:square|cubic|sq\.?)\s+)?(?:rads?|deg|mm|cm|dm|km|ft|units?|radians?|degrees?|inch(?:es)?|feet|foot|"
    r"(?:(?:milli|centi|deci|kilo)?met(?:er|re)|mile|yard|second|minute|hour)s?)(?:\s*\^\s*\{?[23]\}?)?$"
)
_TEXT_AFTER = re.compile(rf"(?<=[0-9}})a-zA-Z!])(?:\s|\\cdot)*{TEXT}(?:\s*\^\s*(?:\{{-?[0-9]\}}|[0-9]))?(?:\s*\.)?$")
_TEXT_FRACTION = re.compile(rf"\\frac\s*\{{\s*{TEXT}\s*\}}\s*\{{\s*{TEXT}\s*\}}")
_MARKED = re.compile(rf"(?<!_\{{)(?:\\cdot\s*)?{TEXT}(?:\s*\^\s*(?:\{{-?[0-9]\}}|-?[0-9]))?")
_ONE_NUMBER = re.compile(
    r"(?P<before>[^0-9\\]*?)(?P<number>(?:(?<!\w)-\s?)?[0-9\\](?:.*[0-9}])?(?:\s*%)?)(?P<after>[^0-9\\}]*)"
)
_IN_OTHER_WORDS = re.compile(r"(?<=[a-z])\s+\((?!\s*(?:or|and|plus|minus)\b)[^()]*[a-z]{2}[^()]*\)\s*$")
_PROSE_WORD = re.compile(
    rf"(?i)(?:\s[mglshjnwvkcf]|/[smh]|[\s/(]?(?:{_UNIT}|(?-i:[A-Z][a-z]+)|of|on|at|for|the|is|are|per|an?|and|to|by|he|she|has|had|her|his|"
    r"its|was|we|it|all|i))(?:'s?|\.)?"
)


@lru_cache(maxsize=100_000)
def plain(answer: str) -> str:
    """The normal form of an answer without the units after it."""
    text = normalize(answer)
    if any(char.isdigit() for char in text) or "\\" in text:
        for units in (_TEXT_AFTER, _WORDS_AFTER, _AFTER_CONSTANT):
            text = units.sub(lambda match: match[0] if NOT_UNITS.search(unmarked(match[0])) else "", text) or text
        text = chinese.without_units(text)
    return text.rstrip(".,;: ")


def unmarked(text: str) -> str:
    """`text` with its \\text{} as plain words."""
    return _MARKED.sub(r" \1 ", _TEXT_FRACTION.sub(r" \1 per \2 ", text))


def lone_number(text: str) -> Number | None:
    """The number of a text that is one number and words or units, such as "Total: 72 clips" and "5 m^2".

    What follows a unit in parentheses is not looked at: 4 weeks (28 days) is 4.
    """
    text = _IN_OTHER_WORDS.sub("", unmarked(text))
    match = _ONE_NUMBER.fullmatch(re.sub(r"(?<=[A-Za-z])\s*\^\s*\{?[23]\}?", "", text))
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
    r"(?:[0-9.,+\-*/^(){}!%=\s]|\\(?:times|cdot|div|frac|sqrt|pi)(?![a-z])|(?:(?<=[0-9])|(?<=[0-9] ))[xX](?= ?[0-9]))+"
)
_SYMBOL = r"(?:[A-Za-z]|\\(?!pi|infty|ln|log|frac|sqrt)[A-Za-z]{2,9}|[A-Z]{2,4}|\|[A-Z]{1,4}\||\[[A-Z]{2,}\])"
_NAME = re.compile(
    r"(?:m\s*(?=\\))?(?:\\(?:angle|measuredangle|triangle|overline|vec|hat|(?:sin|cos|tan|cot|sec|csc)(?![a-z]))\s*)*"
    rf"[{{(]?\s*{_SYMBOL}\s*[}})]?'*(?:_(?:\w|\{{[^{{}}=]*\}}))?'*|(?P<f>[fghpqA-Z])'*\((?:(?!(?P=f))[^()=])*\)"
)


def is_name(text: str) -> bool:
    """Whether a text names a quantity: x, a_5, AB, \\angle A, f(2), \\cos\\theta, Total clips. Not xy, 2x or |x|."""
    marked = _MARKED.sub(r" \1 ", text).strip()
    is_phrase = re.fullmatch(r"(?:[a-z]{4,}|[A-Z][a-z']{2,}|of|in|the)(?:\s(?:[A-Za-z']{2,}|a))*", marked)
    return _NAME.fullmatch(marked) is not None or (is_phrase is not None and NOT_UNITS.search(marked) is None)


def value_text(text: str, other: str) -> str:
    """`text` without a name ("x =") or a calculation ("2 + 3 =") next to it, if `other` is not an equation."""
    *sides, last = (side.strip() for side in text.split("="))
    if not sides or "=" in other or is_false(text):
        return text
    if is_name(sides[0]) and not any(re.search(r"[,<>]|\\(?:le|ge|in)\b", side) for side in sides):
        return last
    calculated = list(map(_is_calculation, sides))
    if is_name(last) and (len(sides) == 1 or all(calculated)):
        return sides[-1]
    if len(sides) == 1 and _is_calculation(last) and _is_sum_of_names(sides[0]):
        return last
    is_evaluated = len(sides) > 1 and calculated[-1] and not re.search("[0-9,]", sides[0])  # a + b = 1 + 3 = 4
    return last if is_evaluated or all(calculated) else text


def _is_sum_of_names(side: str) -> bool:
    """Whether this is m + n, a sum of different letters without factors, whose value is asked for; not e or i."""
    names = [name.strip() for name in side.split("+")]
    return len(set(names)) == len(names) > 1 and all(re.fullmatch("[A-Za-df-hj-z]", name) for name in names)


def _is_calculation(side: str) -> bool:
    return _CALCULATION.fullmatch(_MARKED.sub(" ", side)) is not None


def restatement(text: str, other: str) -> str | None:
    """The first = the last side of written-out arithmetic such as 16/3 = 5.33, without a name before it.

    None if it is something else, has commas, or if `other` is an equation.
    """
    first, *others = text.split("=")
    sides = others if len(others) > 1 and is_name(first.strip()) else [first, *others]
    if len(sides) == 1 or "=" in other or "," in text or not all(map(_is_calculation, sides)):
        return None
    return re.sub(r"(?<=[0-9])\s*[xX]\s*(?=[0-9])", r"\\times ", _MARKED.sub(" ", f"{sides[0]}={sides[-1]}"))


def is_false(text: str) -> bool:
    """Whether this is an equation of numbers that differ by more than rounding, such as 8 = 9.

    A fraction is a calculation, which a whole number may round as it suits: of 7/2 = 4 the last side counts.
    """
    sides = [number(side.strip()) for side in text.split("=")]
    numbers = [side for side in sides if side is not None and not (side.base or side.percent)]
    if len(numbers) < len(sides) or re.search(r"/|\\frac", text):
        return False
    return not all(numbers[0].resembles(other) for other in numbers)


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
