"""Understanding plain language, locally: text -> proposals. Text proposes, code decides.

A proposal is *sure* in two cases only: the message is one of the author's examples word by word; or it is very near to
them, every word that carries meaning is one that the automation's examples use, no number is left over, and every
required value stands in the message. Anything else is at most offered.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from parley.language.similarity import Index, features
from parley.language.slots import Filled, fill
from parley.language.template_index import TemplateIndex
from parley.language.templates import Match, Template, compile_template, match, means_more
from parley.language.tokens import Token, tokens_of, without_politeness
from parley.runs.catalogue import AutomationSpec, Parameter

LOOKED_AT = 2_000
"""Characters of a message that are looked at; a longer one is never sure."""

OFFERED = 3

# Set on the development sentences in tests/language/test_understanding.py; nothing wrong may be sure there.
_SURE = 0.62
_AHEAD = 0.15
_NEAR = 0.24


@dataclass(frozen=True, slots=True)
class Proposal:
    """An automation and the values that the message gives for it; `missing` must be asked for."""

    command: str
    values: Mapping[str, Any]
    missing: tuple[Parameter, ...]
    score: float
    spec: AutomationSpec


@dataclass(frozen=True, slots=True)
class Understanding:
    """What a message may mean. `sure` may go on to rights and confirmation; `nearest` is only to be offered."""

    sure: Proposal | None = None
    nearest: tuple[Proposal, ...] = ()


@dataclass(slots=True)
class _Known:
    """What is known of one automation."""

    spec: AutomationSpec
    templates: list[Template] = field(default_factory=list)
    vocabulary: frozenset[str] = frozenset()


class Understander:
    """Understands messages in terms of these automations; made once for a catalogue, then read-only."""

    def __init__(self, catalogue: Iterable[AutomationSpec]) -> None:
        self._known = {spec.command: _known(spec) for spec in catalogue}
        self._templates = TemplateIndex(
            template for known in self._known.values() for template in known.templates
        )
        self._index = Index({command: _documents(known.spec) for command, known in self._known.items()})

    def understand(self, text: str, allowed: Container[str]) -> Understanding:
        """Proposals among the allowed commands only.

        `sure` from an example word by word may lack values that the message does not give (`missing`); `sure` from
        similarity never does. An automation that is not allowed is never shown, but where it fits best nothing else
        is sure.
        """
        tokens = without_politeness(tokens_of(text[:LOOKED_AT]))
        if not tokens:
            return Understanding()
        exact = self._exact(tokens, text)
        if len(exact) == 1 and len(text) <= LOOKED_AT and exact[0].command in allowed:
            return Understanding(exact[0], (exact[0],))
        return self._similar(tokens, text, exact, allowed)

    def _exact(self, tokens: Sequence[Token], text: str) -> list[Proposal]:
        tried = self._templates.worth_trying(tokens)
        matches = [found for template in tried if (found := match(template, tokens, text)) is not None]
        by_command: dict[str, list[Match]] = defaultdict(list)
        for found in matches:
            by_command[found.template.command].append(found)
        return [self._proposal(command, _agreed(each), 1.0) for command, each in by_command.items()]

    def _similar(
        self, tokens: Sequence[Token], text: str, exact: list[Proposal], allowed: Container[str]
    ) -> Understanding:
        scores = self._index.nearness(features(tokens)) | {one.command: 1.0 for one in exact}
        ranked = sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))
        near = [(command, score) for command, score in ranked if score >= _NEAR and command in allowed][
            :OFFERED
        ]
        known_values = {one.command: one.values for one in exact}
        filled = {command: self._fill(command, tokens, text) for command, _ in near}
        nearest = tuple(
            self._proposal(command, known_values.get(command, filled[command].values), score)
            for command, score in near
        )
        sure = self._sure(ranked, tokens, nearest, filled[near[0][0]].used if near else frozenset())
        return Understanding(sure if not exact and len(text) <= LOOKED_AT else None, nearest)

    def _sure(
        self,
        ranked: list[tuple[str, float]],
        tokens: Sequence[Token],
        nearest: tuple[Proposal, ...],
        used: frozenset[int],
    ) -> Proposal | None:
        if not nearest or ranked[0][0] != nearest[0].command:
            return None
        best = nearest[0]
        second = ranked[1][1] if len(ranked) > 1 else 0.0
        if best.score < _SURE or best.score - second < _AHEAD or best.missing:
            return None
        return best if self._explains(best.command, tokens, used) else None

    def _fill(self, command: str, tokens: Sequence[Token], text: str) -> Filled:
        known = self._known[command]
        return fill(tokens, text, known.spec, known.templates)

    def _explains(self, command: str, tokens: Sequence[Token], used: frozenset[int]) -> bool:
        """Whether nothing in the message is left over that this automation has no word for."""
        vocabulary = self._known[command].vocabulary
        left = [token for place, token in enumerate(tokens) if place not in used]
        return all(token.text in vocabulary or token.text in _SAYS_NOTHING for token in left)

    def _proposal(self, command: str, values: Mapping[str, Any], score: float) -> Proposal:
        spec = self._known[command].spec
        missing = tuple(one for one in spec.parameters if one.required and one.name not in values)
        return Proposal(command, dict(values), missing, round(score, 3), spec)


def _agreed(matches: Sequence[Match]) -> dict[str, Any]:
    """What all examples that match say alike, or that only one of them says."""
    values: dict[str, Any] = {}
    disputed = set()
    for found in matches:
        for name, value in found.values.items():
            if values.setdefault(name, value) != value:
                disputed.add(name)
    return {name: value for name, value in values.items() if name not in disputed}


# Fewer than the words that do not count for similarity: "who can see the report" and "我看了日报" ask for nothing.
_NEUTRAL = "a an the of to for me my i we us our please now show give get need want"
_NEUTRAL_HAN = "的我请帮一下给看想要吧啊呀吗呢#?!,.。、:;\"'"
_SAYS_NOTHING = frozenset([*_NEUTRAL.split(), *_NEUTRAL_HAN])


def _known(spec: AutomationSpec) -> _Known:
    compiled = [compile_template(example, spec) for example in spec.examples]
    # A word that means a value ("privately") explains nothing by itself: near is not near enough then.
    plain = spec.model_copy(update={"examples": tuple(one for one in spec.examples if not means_more(one))})
    words = {
        token.text for document in _sentences(plain) for token in document if token.kind in ("word", "han")
    }
    return _Known(spec, [one for one in compiled if one is not None], frozenset(words))


def _sentences(spec: AutomationSpec) -> Iterable[tuple[Token, ...]]:
    for example in spec.examples:
        yield tokens_of(_without_slots(example))
    yield tokens_of(spec.summary)
    yield tokens_of(spec.command.replace("-", " ").replace("_", " "))


def _without_slots(example: str) -> str:
    outside = example.split("{")
    return " ".join([outside[0], *(part.partition("}")[2] for part in outside[1:])])


def _documents(spec: AutomationSpec) -> Iterable[Any]:
    return [features(sentence) for sentence in _sentences(spec)]
