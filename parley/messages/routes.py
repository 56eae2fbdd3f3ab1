"""Routes: which events go where. Compiled once for each parley.toml and catalogue; matching takes a step a route.

A route leads to conversations, to an automation, or to both. Routes come from `[[routes]]`, from `on=` of automations,
and from `/follow` (those are in the store; see parley.messages.follows).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from parley.messages.filters import Condition, Template
from parley.messages.published import Published
from parley.messages.topics import Pattern
from parley.runs.catalogue import Catalogue
from parley.settings import EventRoute, File

_WHICH: Final = frozenset({"kind", "conversation", "private"})


@dataclass(frozen=True, slots=True)
class Start:
    """An automation that an event starts, with its parameters: named ones filled from the event.

    `label`: what the button shows with which it is offered, filled from the event; the command line without one.
    """

    automation: str
    parameters: Mapping[str, Template]
    route: str
    label: Template | None = None

    def what(self) -> tuple[str, tuple[tuple[str, str], ...]]:
        """The same for two routes that would start the same with the same parameters."""
        return self.automation, tuple(sorted((name, one.text) for name, one in self.parameters.items()))


@dataclass(frozen=True, slots=True)
class Matched:
    """Where one event goes: conversations (`account:native id`) in the order of the routes, and automations."""

    places: tuple[str, ...] = ()
    starts: tuple[Start, ...] = ()


@dataclass(frozen=True, slots=True)
class _Way:
    name: str
    patterns: tuple[Pattern, ...]
    conditions: tuple[Condition, ...]
    places: tuple[str, ...]
    start: Start | None
    bots: bool

    @property
    def takes_private(self) -> bool:
        """Whether it says which conversations it means: what was said in private goes to no other room by accident."""
        return any(condition.field in _WHICH for condition in self.conditions)

    def takes(self, event: Published, fields: Mapping[str, Any]) -> bool:
        return any(pattern.matches(event.topic) for pattern in self.patterns) and all(
            condition.holds(fields) for condition in self.conditions
        )


class Routes:
    """All routes of one parley.toml and one catalogue."""

    def __init__(self, file: File, catalogue: Catalogue) -> None:
        self._ways = (*_of_file(file.routes), *_of_catalogue(catalogue))
        firsts = {pattern.first for way in self._ways for pattern in way.patterns}
        # Ways that begin with a word are only looked at for topics that do.
        self._near = {word: self._beginning(word) for word in firsts if word is not None}
        self._far = self._beginning(None)

    def for_event(self, event: Published) -> Matched:
        """Where this goes; each conversation, and each automation with the same parameters, once.

        What was said to us alone goes only where a route says that it means such conversations, by their `kind`, their
        id or `private`.
        """
        fields = event.fields()
        said = event.topic.startswith("message.")
        bot, private = (said and bool(event.data.get(name)) for name in ("bot", "private"))
        near = self._looked_at(event.topic)
        ways = [way for way in near if (way.bots or not bot) and way.takes(event, fields)]
        open_ = (way for way in ways if way.takes_private or not private)
        places = dict.fromkeys(place for way in open_ for place in way.places)
        starts = {way.start.what(): way.start for way in reversed(ways) if way.start}
        return Matched(tuple(places), tuple(reversed(starts.values())))

    def may_take(self, topic: str) -> bool:
        """Whether a route may want events of this topic: cheap, before an event is made or stored."""
        return any(pattern.matches(topic) for way in self._looked_at(topic) for pattern in way.patterns)

    def _looked_at(self, topic: str) -> Sequence[_Way]:
        return self._near.get(topic.partition(".")[0], self._far)

    def _beginning(self, word: str | None) -> Sequence[_Way]:
        return [way for way in self._ways if any(pattern.first in (None, word) for pattern in way.patterns)]

    def __len__(self) -> int:
        return len(self._ways)


def places_of(file: File) -> Iterable[tuple[str, str]]:
    """Every conversation that parley.toml's routes and bridges name, with where it is named."""
    for route in file.routes:
        yield from ((place, f"route {route.name!r}") for place in route.to)
    for bridge in file.bridges:
        yield from ((place, f"bridge {bridge.name!r}") for place in bridge.rooms)


def _of_file(routes: Sequence[EventRoute]) -> Iterable[_Way]:
    for route in routes:
        start = (
            Start(route.run, _templates(route.parameters), route.name, _label(route.label))
            if route.run
            else None
        )
        yield _Way(
            name=route.name,
            patterns=tuple(map(Pattern, route.patterns)),
            conditions=_conditions(route.where),
            places=route.to,
            start=start,
            bots=route.bots,
        )


def _of_catalogue(catalogue: Catalogue) -> Iterable[_Way]:
    for spec in catalogue:
        for on in spec.on:
            yield _Way(
                name=f"on= of /{spec.command}",
                patterns=(Pattern(on.pattern),),
                conditions=_conditions(on.where),
                places=(),
                start=Start(
                    spec.command, _templates(on.parameters), f"on= of /{spec.command}", _label(on.label)
                ),
                bots=False,
            )


def _conditions(where: Mapping[str, str | Sequence[str]]) -> tuple[Condition, ...]:
    return tuple(
        Condition(name, (globs,) if isinstance(globs, str) else globs) for name, globs in where.items()
    )


def _label(text: str) -> Template | None:
    return Template(text) if text.strip() else None


def _templates(parameters: Mapping[str, str]) -> Mapping[str, Template]:
    return {name: Template(text) for name, text in parameters.items()}
