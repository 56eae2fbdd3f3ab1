"""Templates: an author's example sentence with slots (`where is order {order_id}`), matched against a message.

Case, width, spaces between Chinese and other text, and politeness at the ends do not count. What a slot takes is
decided by its parameter: digits for a whole number, one of the choices, a short piece of text. A slot's value is always
a piece of the message. Where the message can be read in two ways there is no match.

`{private=yes}` in an example is no slot: it takes nothing of the message, and says which value the sentence means.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from parley.errors import BadArguments
from parley.language.binding import read_value
from parley.language.characters import narrow_words
from parley.language.schemas import choices_of, kind_of, single, written
from parley.language.tokens import Token, glued, may_end, may_start, tokens_of, without_politeness
from parley.runs.catalogue import AutomationSpec, Parameter

_SLOT = re.compile(r"\{\s*([^\W\d]\w*)\s*\}")
_MEANT = re.compile(r"(?<!\s)\s*\{\s*([^\W\d]\w*)\s*=([^{}]*)\}")
_LONGEST_TEXT = 16  # tokens: a longer stretch is rarely one value
_MOST_WAYS = (
    64  # a message that is readable in more ways is ambiguous, and trying them all could take for ever
)
_SEPARATORS = frozenset("-_")
_QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’", "「": "」", "『": "』"}
_SENTENCE_MARKS = frozenset(".,;:!?。、")

Piece = tuple[str, ...] | Parameter
_Ways = dict[int, list[dict[str, tuple[int, int]]]]
"""By place that was reached: the spans of the slots on the ways there."""


@dataclass(frozen=True, slots=True)
class Template:
    """One example of one automation: runs of literal tokens and slots, in turn."""

    command: str
    pieces: tuple[Piece, ...]
    meant: Mapping[str, Any] = field(default_factory=dict)
    """Typed values that the sentence means as a whole."""

    @property
    def slots(self) -> tuple[Parameter, ...]:
        """The parameters that the example mentions."""
        return tuple(piece for piece in self.pieces if isinstance(piece, Parameter))


@dataclass(frozen=True, slots=True)
class Match:
    """A message that is an example word by word: typed values by parameter.

    A number that the parameter does not allow (order 0) is left out, so that it is asked for.
    """

    template: Template
    values: Mapping[str, Any]


def compile_template(example: str, spec: AutomationSpec) -> Template | None:
    """The template of an example; None when it says nothing, or names a slot that is no parameter or stands twice.

    None also when a value that it means is none of its parameter's.
    """
    given = _MEANT.findall(example)
    parts = _SLOT.split(sentence_of(example))
    names = parts[1::2]
    named = [*names, *(name for name, _ in given)]
    if len(set(named)) != len(named) or any(spec.parameter(name) is None for name in named):
        return None
    try:
        meant = {
            parameter.name: read_value(value.strip(), parameter)
            for name, value in given
            for parameter in spec.parameters
            if parameter.name == name
        }
    except BadArguments:
        return None
    pieces: list[Piece] = []
    for place, part in enumerate(parts):
        if place % 2:
            pieces.extend(parameter for parameter in spec.parameters if parameter.name == part)
        else:
            pieces.append(_literal(part, first=place == 0, last=place == len(parts) - 1))
    kept = tuple(piece for piece in pieces if piece)
    says = any(isinstance(piece, tuple) for piece in kept)
    return Template(spec.command, kept, meant) if says else None


def sentence_of(example: str) -> str:
    """An example as people say it, its slots still in it."""
    return _MEANT.sub("", example).strip()


def means_more(example: str) -> bool:
    """Whether an example means a value that none of its words gives."""
    return _MEANT.search(example) is not None


def _literal(part: str, *, first: bool, last: bool) -> tuple[str, ...]:
    tokens = tokens_of(part)
    shorter = without_politeness(tokens)
    # Politeness counts nowhere at the ends, so it is taken off here as it is taken off the message.
    start = tokens.index(shorter[0]) if first and shorter else (len(tokens) if first else 0)
    end = tokens.index(shorter[-1]) + 1 if last and shorter else (0 if last else len(tokens))
    return tuple(token.text for token in tokens[start:end])


def match(template: Template, tokens: Sequence[Token], text: str) -> Match | None:
    """The one way in which the whole message (its tokens, politeness taken off) is this example, or None."""
    ways: _Ways = {0: [{}]}
    for piece in template.pieces:
        ways = _advance(ways, piece, tokens)
        if not ways or sum(map(len, ways.values())) > _MOST_WAYS:
            return None
    found = [_values(template, spans, tokens, text) for spans in ways.get(len(tokens), ())]
    readable = [values for values in found if values is not None]
    return Match(template, readable[0]) if len(readable) == 1 else None


def _advance(ways: _Ways, piece: Piece, tokens: Sequence[Token]) -> _Ways:
    reached: _Ways = {}
    for place, spans in ways.items():
        if isinstance(piece, tuple):
            if tuple(token.text for token in tokens[place : place + len(piece)]) == piece:
                reached.setdefault(place + len(piece), []).extend(spans)
            continue
        for end in ends_of(piece, tokens, place):
            reached.setdefault(end, []).extend(one | {piece.name: (place, end)} for one in spans)
    return reached


def ends_of(parameter: Parameter, tokens: Sequence[Token], start: int) -> Iterator[int]:
    """Where a value of this parameter that starts at this token may end."""
    only = single(parameter.json_schema, parameter.json_schema) or {}
    kind = kind_of(only) if only else "any"
    if kind in ("integer", "number"):
        yield from _number_ends(tokens, start, fraction=kind == "number")
    elif kind == "choice":
        yield from _choice_ends(tokens, start, choices_of(only))
    else:
        yield from _text_ends(tokens, start)


def _number_ends(tokens: Sequence[Token], start: int, *, fraction: bool) -> Iterator[int]:
    place = start
    # order1024 is order 1024, and 12x4 is not 4.
    if not may_start(tokens, start) and not (
        tokens[start - 1].kind == "word" and may_start(tokens, start - 1)
    ):
        return
    for marks in ("#", "+-"):
        if place < len(tokens) and tokens[place].text in marks and tokens[place].kind == "mark":
            place += 1
    if place >= len(tokens) or tokens[place].kind != "number" or (place > start and not glued(tokens, place)):
        return
    place += 1
    if fraction and place + 1 < len(tokens) and tokens[place].text == "." and glued(tokens, place + 1):
        place += 2 if tokens[place + 1].kind == "number" else 0
    if may_end(tokens, place):
        yield place


def _choice_ends(tokens: Sequence[Token], start: int, choices: tuple[Any, ...]) -> Iterator[int]:
    if not may_start(tokens, start):
        return
    ends = {_choice_end(tokens, start, written(choice)) for choice in choices}
    yield from sorted(end for end in ends if end is not None and may_end(tokens, end))


def _choice_end(tokens: Sequence[Token], start: int, choice: str) -> int | None:
    place = start
    for token in tokens_of(choice):
        if token.text in _SEPARATORS:
            continue
        while place > start and place < len(tokens) and tokens[place].text in _SEPARATORS:
            place += 1
        if place >= len(tokens) or tokens[place].text != token.text:
            return None
        place += 1
    return place


def _text_ends(tokens: Sequence[Token], start: int) -> Iterator[int]:
    if not may_start(tokens, start):
        return
    for end in range(start + 1, min(len(tokens), start + _LONGEST_TEXT) + 1):
        last = tokens[end - 1]
        if last.text in _SENTENCE_MARKS and not (glued(tokens, end - 1) and glued(tokens, end)):
            return  # a value does not go on over a comma or the end of a sentence
        if may_end(tokens, end):
            yield end


def _values(
    template: Template, spans: Mapping[str, tuple[int, int]], tokens: Sequence[Token], text: str
) -> dict[str, Any] | None:
    values: dict[str, Any] = dict(template.meant)
    for parameter in template.slots:
        start, end = spans[parameter.name]
        try:
            values[parameter.name] = read_span(parameter, tokens[start:end], text)
        except BadArguments:
            if not _is_number(parameter):
                return None
    return values


def _is_number(parameter: Parameter) -> bool:
    only = single(parameter.json_schema, parameter.json_schema)
    return only is not None and kind_of(only) in ("integer", "number")


def read_span(parameter: Parameter, span: Sequence[Token], text: str) -> Any:
    """The typed value of a piece of the message; raises `BadArguments`."""
    given = narrow_words(text[span[0].start : span[-1].end])
    if len(given) > 2 and _QUOTES.get(given[0]) == given[-1]:
        given = given[1:-1]
    only = single(parameter.json_schema, parameter.json_schema) or {}
    if kind_of(only) == "choice":
        return _chosen(span, choices_of(only))
    return read_value(given, parameter)


def _chosen(span: Sequence[Token], choices: tuple[Any, ...]) -> Any:
    chosen = [choice for choice in choices if _choice_end(span, 0, written(choice)) == len(span)]
    if len(chosen) != 1:
        raise BadArguments("ambiguous")
    return chosen[0]
