"""Answers in Chinese: the phrases that announce one, the words and units around a number, a choice.

Only what leaves the number as it is counts as a unit: not ten thousands, parts, negations or bounds.
"""

import re

# Colons, commas and parentheses as they are typed in Chinese text are part of the patterns.
CHARACTER = "\u3400-\u4dbf\u4e00-\u9fff"
FINAL = r"最[终后]答案\s*(?:应该?|就|即)?(?:是|为|[:：=])"
ANSWER = r"(?<!不是)答案\s*(?:应该?|就|即)?(?:是|为|[:：=])|(?<![^\s。])答\s*[:：]|【答案】"
CHOICE = (
    r"(?:(?:故|本题|所以|因此|答案|(?<!不)应该?)选择?|故答案选|正确的?(?:选项|答案)\s*(?:是|为|[:：]))"
    r"\s*[:：]?\s*[(（]?\s*([A-J])\s*[)）]?(?![A-Za-z0-9])(?!\s*[、,，和或]\s*[A-J](?![a-z]))"
)
DENIED = re.compile(r"答案\s*(?:并?不|并?非)")
SENTENCE_END = rf"[。；！？]|，(?=[{CHARACTER}])"
JUDGED = r"(?:不)?(?:正确|合理|对的)|错误|不对"
SCALES = {"万": "10^4", "亿": "10^8"}

_CHANGING_AFTER = (
    r"一(?!共)|[零二两三四五六七八九十百兆亿万点半又负双折成]|千(?![米克瓦])|分之|多|余|大|小于|不|非|少|至|超|"
    r"以[上下内外]|倍数|除|乘|加上?|减|或|和|与|根号|阶乘|次方|[平立]方(?![分厘毫千公]?[米里])|的"
)
_CHANGING_BEFORE = (
    r"一(?!共)|[零二两三四五六七八九十百千万亿兆半负双]|分之|[多大小少低高]于|不|非|至[少多]|最[少多]|超|除|乘|加|减|或|和|"
    r"与|根号|[平立]方"
)
_AFTER = re.compile(rf"(?<=[0-9}}%°!)])\s*(?!(?:[{CHARACTER}]*?)(?:{_CHANGING_AFTER}))[{CHARACTER}]{{1,8}}\s*$")
_BEFORE = re.compile(
    rf"^(?!(?:[{CHARACTER}]*?)(?:{_CHANGING_BEFORE}))[{CHARACTER}]{{1,8}}\s*(?:[:：=]\s*|(?=[0-9$\\(-]))"
)


def without_units(text: str) -> str:
    """`text`, a number or formula, without the Chinese words before it and the unit after it."""
    return _BEFORE.sub("", _AFTER.sub("", text)) or text
