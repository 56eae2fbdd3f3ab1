"""Topics and the patterns that match them, as in AMQP's topic exchanges: `*` is one word, `#` none or more.

A topic is lower-case words with dots between them: `github.pull_request.opened`, `run.failed.order`. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from parley.messages.model import TOPIC

MAX_TOPIC: Final = 400
"""Longest topic on the bus, in characters: an account's name and what it reports."""

_TOPIC = re.compile(TOPIC)
_WORD = re.compile(r"[a-z0-9_-]+")
_NOT_OF_A_WORD = re.compile(r"[^a-z0-9_-]+")


class Pattern:
    """A compiled pattern. Raises ValueError, which says what is wrong, when it can match nothing.

    Matching takes one step a word of the topic, whatever the pattern: all places in the pattern that the words so far
    may have led to are one integer's bits. `first`: the word that all its topics begin with, None where they differ.
    """

    __slots__ = ("_any", "_end", "_many", "_start", "_words", "first", "text")

    def __init__(self, text: str) -> None:
        self.text: str = text
        words = _checked(text)
        self.first: str | None = words[0] if words[0] not in ("*", "#") else None
        self._end = 1 << len(words)
        self._many = sum(1 << at for at, word in enumerate(words) if word == "#")
        self._any = sum(1 << at for at, word in enumerate(words) if word == "*")
        self._words: Mapping[str, int] = {
            word: sum(1 << at for at, same in enumerate(words) if same == word)
            for word in {*words} - {"#", "*"}
        }
        self._start = self._passed(1)

    def matches(self, topic: str) -> bool:
        """Whether this topic is meant."""
        places = self._start
        for word in topic.split("."):
            here = self._words.get(word, 0) | self._any
            places = self._passed(((places & here) << 1) | (places & self._many))
            if not places:
                return False
        return bool(places & self._end)

    def _passed(self, places: int) -> int:
        # A `#` may stand for nothing. There are no two in a row, so one step is enough.
        return places | ((places & self._many) << 1)

    def __repr__(self) -> str:
        return f"Pattern({self.text!r})"


def topic(*parts: str) -> str:
    """A topic made of what may have been written otherwise: names with capitals, dots or spaces become one word."""
    return ".".join(word(part) for part in parts)


def word(text: str) -> str:
    """One word of a topic: lower case, everything else a hyphen."""
    return _NOT_OF_A_WORD.sub("-", text.lower()).strip("-") or "-"


def is_topic(text: str) -> bool:
    """Whether this can be published: words with dots between them, not too long."""
    return len(text) <= MAX_TOPIC and _TOPIC.fullmatch(text) is not None


def _checked(text: str) -> list[str]:
    if len(text) > MAX_TOPIC:
        raise ValueError(f"a pattern has at most {MAX_TOPIC} characters.")
    kept: list[str] = []
    for one in text.split("."):
        if one not in ("*", "#") and not _WORD.fullmatch(one):
            raise ValueError(
                f"{text!r} is no pattern of topics: write lower-case words with dots between them, `*` for one word, "
                "`#` for none or more."
            )
        if not (one == "#" and kept and kept[-1] == "#"):
            kept.append(one)
    return kept
