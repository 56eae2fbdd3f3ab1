"""Finding the templates that may fit a message without trying each of thousands."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from parley.language.templates import Template
from parley.language.tokens import Token

_Words = tuple[str, ...]


class TemplateIndex:
    """Templates by their longest run of literal words: at the message's beginning, or anywhere behind it."""

    def __init__(self, templates: Iterable[Template]) -> None:
        self._at_start: defaultdict[_Words, list[Template]] = defaultdict(list)
        self._behind: defaultdict[_Words, list[Template]] = defaultdict(list)
        for template in templates:
            words = max((piece for piece in template.pieces if isinstance(piece, tuple)), key=len)
            (self._at_start if template.pieces[0] is words else self._behind)[words].append(template)
        self._start_lengths = sorted({len(words) for words in self._at_start})
        self._behind_lengths = sorted({len(words) for words in self._behind})

    def worth_trying(self, tokens: Sequence[Token]) -> list[Template]:
        """All templates that may fit these tokens, and hardly any other."""
        words = tuple(token.text for token in tokens)
        found = [
            template
            for length in self._start_lengths
            if length <= len(words)
            for template in self._at_start.get(words[:length], ())
        ]
        seen: set[_Words] = set()
        for length in self._behind_lengths:
            for start in range(1, len(words) - length + 1):
                run = words[start : start + length]
                if run in self._behind and run not in seen:
                    seen.add(run)
                    found += self._behind[run]
        return found
