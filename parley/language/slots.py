"""Filling slots from a message that is no example: only what is unambiguous, only what stands in the message."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from parley.errors import BadArguments
from parley.language.binding import is_free_text
from parley.language.schemas import kind_of, single
from parley.language.templates import Template, ends_of, read_span
from parley.language.tokens import Token, may_end, may_start
from parley.runs.catalogue import AutomationSpec, Parameter

_LONGEST_CHUNK = 12


@dataclass(frozen=True, slots=True)
class Filled:
    """Typed values by parameter, and the places of the tokens that they used."""

    values: dict[str, Any]
    used: frozenset[int]


def fill(tokens: Sequence[Token], text: str, spec: AutomationSpec, templates: Sequence[Template]) -> Filled:
    """The values that can be read in one way only; each token is used once."""
    candidates = {one.name: _candidates(one, tokens, text, templates) for one in spec.parameters}
    values: dict[str, Any] = {}
    used: set[int] = set()
    for parameter in sorted(
        spec.parameters, key=is_free_text
    ):  # choices and numbers first, text takes what is left
        free = [span for span in candidates[parameter.name] if not used & set(range(*span))]
        if len(free) == 1 and not _contested(parameter, free[0], spec, candidates):
            start, end = free[0]
            values[parameter.name] = read_span(parameter, tokens[start:end], text)
            used |= set(range(start, end))
    return Filled(values, frozenset(used))


def _contested(
    parameter: Parameter,
    span: tuple[int, int],
    spec: AutomationSpec,
    candidates: dict[str, list[tuple[int, int]]],
) -> bool:
    """Whether another parameter of the same sort wants the same piece: which of the two was meant is not known."""
    return any(
        other.name != parameter.name
        and is_free_text(other) == is_free_text(parameter)
        and any(start < span[1] and span[0] < end for start, end in candidates[other.name])
        for other in spec.parameters
    )


def _candidates(
    parameter: Parameter, tokens: Sequence[Token], text: str, templates: Sequence[Template]
) -> list[tuple[int, int]]:
    spans = (
        _after_context(parameter, tokens, templates) if is_free_text(parameter) else _typed(parameter, tokens)
    )
    readable = [span for span in dict.fromkeys(spans) if _reads(parameter, tokens[slice(*span)], text)]
    return [span for span in readable if not any(_inside(span, other) for other in readable)]


def _inside(span: tuple[int, int], other: tuple[int, int]) -> bool:
    return span != other and other[0] <= span[0] and span[1] <= other[1]


def _reads(parameter: Parameter, span: Sequence[Token], text: str) -> bool:
    try:
        read_span(parameter, span, text)
    except BadArguments:
        return False
    return True


def _typed(parameter: Parameter, tokens: Sequence[Token]) -> Iterator[tuple[int, int]]:
    only = single(parameter.json_schema, parameter.json_schema)
    if only is None or kind_of(only) not in ("choice", "integer", "number", "string"):
        return  # yes and no, lists, objects: a word of the sentence is too easily taken for one
    for start in range(len(tokens)):
        for end in ends_of(parameter, tokens, start):
            yield start, end


def _after_context(
    parameter: Parameter, tokens: Sequence[Token], templates: Sequence[Template]
) -> Iterator[tuple[int, int]]:
    """A piece like `web1` or `db.example.com` after the word which stands before the slot in an example.

    A plain word is left alone: in "run away on holiday", holiday is no host.
    """
    for context in {_before(parameter, template) for template in templates} - {()}:
        for start in range(len(context), len(tokens)):
            if tuple(token.text for token in tokens[start - len(context) : start]) == context:
                yield from _chunk(tokens, start)


def _before(parameter: Parameter, template: Template) -> tuple[str, ...]:
    for piece, after in zip(template.pieces, template.pieces[1:], strict=False):
        if after is parameter and isinstance(piece, tuple):
            return piece[-1:] if piece[-1].isascii() else piece[-2:]
    return ()


def _chunk(tokens: Sequence[Token], start: int) -> Iterator[tuple[int, int]]:
    if tokens[start].kind not in ("word", "number") or not may_start(tokens, start):
        return
    for end in range(start + 1, min(len(tokens), start + _LONGEST_CHUNK) + 1):
        if may_end(tokens, end):
            if end - start > 1 or tokens[start].kind == "number":
                yield start, end
            return
