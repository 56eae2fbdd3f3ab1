"""Tokens of plain language: words, numbers, Chinese characters and marks, with their places in the text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from parley.language.characters import narrow

Kind = Literal["word", "number", "han", "mark"]

_HAN = r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_TOKEN = re.compile(
    rf"(?P<number>\d+)|(?P<han>[{_HAN}])|(?P<word>[^\W\d_{_HAN}]+(?:'[^\W\d_{_HAN}]+)?)|(?P<mark>[^\s\u200b\ufeff])"
)
_OPENERS = frozenset("#([{<\"'“‘「『《:=,，、")
_END_MARKS = frozenset(
    ".?!,;:~…。、·"
)  # no quotes: they belong to a value, or the whole is quoted and no request


@dataclass(frozen=True, slots=True)
class Token:
    """One token; `text` is folded (narrow, lower case), `start` and `end` are places in the text as it came."""

    text: str
    kind: Kind
    start: int
    end: int


def tokens_of(text: str) -> tuple[Token, ...]:
    """The tokens, in order. Spaces only separate."""
    plain = narrow(text).replace("’", "'")
    return tuple(_token(found) for found in _TOKEN.finditer(plain))


def _token(found: re.Match[str]) -> Token:
    kind: Kind = found.lastgroup  # type: ignore[assignment]  # the pattern's groups are the kinds
    return Token(found[0].lower(), kind, found.start(), found.end())


def glued(tokens: Sequence[Token], place: int) -> bool:
    """Whether no space stands before the token at this place, and neither side is Chinese."""
    if not 0 < place < len(tokens):
        return False
    left, right = tokens[place - 1], tokens[place]
    return left.end == right.start and "han" not in (left.kind, right.kind)


def may_end(tokens: Sequence[Token], place: int) -> bool:
    """Whether a value may end before this place: not inside `web1.example.com`."""
    return not glued(tokens, place) or (tokens[place].kind == "mark" and not glued(tokens, place + 1))


def may_start(tokens: Sequence[Token], place: int) -> bool:
    """Whether a value may start at this place."""
    return not glued(tokens, place) or tokens[place - 1].text in _OPENERS


_POLITE = """
please|pls|plz|kindly|hi|hello|hey|can you|could you|would you|will you|can i|could i|may i|i want to|i'd like to|
i would like to|help me|tell me|let me know|now|thanks|thank you|thx|cheers|
请|请问|请你|请您|帮我|帮忙|帮|麻烦|麻烦你|麻烦您|劳驾|你好|您好|我想|我要|我想知道|告诉我|给我|可以|能不能|能否|可否|
谢谢|多谢|谢了|吗|呢|吧|啊|呀|哦|一下|好吗|可以吗|行吗
"""
_POLITE_WORDS = sorted(
    (tuple(token.text for token in tokens_of(words)) for words in _POLITE.replace("\n", "").split("|")),
    key=len,
    reverse=True,
)


def without_politeness(tokens: Sequence[Token]) -> Sequence[Token]:
    """The tokens without greetings, thanks and sentence marks at both ends; what is left may be empty."""
    start, end = 0, len(tokens)
    while True:
        shorter = (start + _polite_at(tokens, start, end), end)
        shorter = (shorter[0], end - _polite_before(tokens, shorter[0], end))
        if shorter == (start, end):
            return tokens[start:end]
        start, end = shorter


def _polite_at(tokens: Sequence[Token], start: int, end: int) -> int:
    if start < end and tokens[start].text in _END_MARKS and not glued(tokens, start + 1):
        return 1
    return next((len(words) for words in _POLITE_WORDS if _same(tokens, start, end, words)), 0)


def _polite_before(tokens: Sequence[Token], start: int, end: int) -> int:
    if start < end and tokens[end - 1].text in _END_MARKS:
        return 1
    return next(
        (len(words) for words in _POLITE_WORDS if _same(tokens, end - len(words), end, words, start)), 0
    )


def _same(tokens: Sequence[Token], start: int, end: int, words: tuple[str, ...], lowest: int = 0) -> bool:
    if start < lowest or start + len(words) > end:
        return False
    return all(tokens[start + place].text == word for place, word in enumerate(words))
