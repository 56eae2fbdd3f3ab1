"""Bridges: rooms on several platforms that are one. Which rooms a message goes to, and when a bridge is stopped.

A room in two bridges joins them: what is said in A reaches C over B. Each room is reached once, so rings end.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from parley.settings import Bridge

STOPPED_FOR: Final = timedelta(minutes=10)
"""How long a bridge stands still for a room from which too much came."""

_MINUTE = timedelta(minutes=1)
_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(slots=True)
class _Pace:
    """What came from one room over one bridge within the last minute."""

    at: deque[datetime] = field(default_factory=deque)
    stopped_until: datetime | None = None
    latest: datetime = _NEVER

    def begin_anew(self) -> None:
        """Count from nothing, and let pass what comes."""
        self.at.clear()
        self.stopped_until = None


@dataclass(frozen=True, slots=True)
class Crossing:
    """Where a message goes: rooms as `account:native id`; `stopped`: bridges that this very message stopped."""

    rooms: tuple[str, ...] = ()
    stopped: tuple[str, ...] = ()


class Bridges:
    """All bridges of one parley.toml."""

    def __init__(self, bridges: Sequence[Bridge]) -> None:
        self._over: dict[str, list[Bridge]] = defaultdict(list)
        for bridge in bridges:
            for room in bridge.rooms:
                self._over[room].append(bridge)
        self._over = dict(self._over)
        self._paces: dict[tuple[str, str], _Pace] = {}

    def __contains__(self, room: object) -> bool:
        return room in self._over

    def cross(self, room: str, at: datetime, *, bot: bool = False) -> Crossing:
        """The other rooms that this message reaches now, nearest first; it counts."""
        reached: dict[str, None] = {room: None}
        stopped: list[str] = []
        waiting = deque([room])
        while waiting:
            for bridge in self._over.get(here := waiting.popleft(), ()):
                others = [other for other in bridge.rooms if other not in reached]
                if not others or (bot and not bridge.bots):
                    continue
                open_, first = self._passes(bridge, here, at)
                if first:
                    stopped.append(bridge.name)
                if not open_:
                    continue
                reached.update(dict.fromkeys(others))
                waiting.extend(others)
        return Crossing(tuple(reached)[1:], tuple(stopped))

    def _passes(self, bridge: Bridge, room: str, at: datetime) -> tuple[bool, bool]:
        """Whether the bridge takes one more from this room, and whether this is the one that stops it."""
        pace = self._paces.setdefault((bridge.name, room), _Pace())
        if at < pace.latest:
            pace.begin_anew()  # the clock was set back: nothing that was counted by it can be compared
        pace.latest = at
        if pace.stopped_until is not None and at < pace.stopped_until:
            return False, False
        while pace.at and at - pace.at[0] >= _MINUTE:
            pace.at.popleft()
        if len(pace.at) >= bridge.per_minute:
            pace.stopped_until = at + STOPPED_FOR
            pace.at.clear()
            return False, True
        pace.at.append(at)
        return True, False
