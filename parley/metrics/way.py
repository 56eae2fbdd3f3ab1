"""The stations of a message's way: how long each one took, by command.

The legs follow each other without a gap, so that their sums add up to what a person waited:

- `received`: the event came to the hub -> it is committed to the inbox, and the platform may be told so
- `understood`: -> what it means is decided and committed (or answered, where nothing is to be run)
- `allowed`: -> it may run: at once, or after a person gave what was missing, or confirmed
- `handed`: -> there is room, and Prefect has made its flow run
- `started`: -> a process has it, and was granted its start
- `done`: -> it ended, however, and its answer is committed to the outbox
- `delivered`: -> the platform has taken the answer

Until a message is understood nobody knows its command: that, and what needs no automation, counts as `-`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, Literal

from prometheus_client import CollectorRegistry, Histogram

from parley.metrics.bounded import Bounded
from parley.store.ids import made_at

Station = Literal["received", "understood", "allowed", "handed", "started", "done", "delivered"]

STATIONS: Final[tuple[Station, ...]] = (
    "received",
    "understood",
    "allowed",
    "handed",
    "started",
    "done",
    "delivered",
)
"""In the order of the way."""

NO_COMMAND: Final = "-"

MOST_UNDER_WAY: Final = 10_000
"""Answers that are remembered until they are delivered; the oldest are forgotten, which loses a figure only."""

BUCKETS: Final = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.48, 1, 2.5, 5, 10, 30, 60, 300, 1800)
"""Seconds. 0.48 is the goal for a whole answer."""


class Way:
    """Counts what passes the stations. Each call takes a few microseconds at the most."""

    def __init__(self, registry: CollectorRegistry, bounded: Bounded) -> None:
        self._bounded = bounded
        self._stations = Histogram(
            "ai_assistant_station_seconds",
            "From the station before to this one on a message's way.",
            ["station", "command"],
            buckets=BUCKETS,
            registry=registry,
        )
        self._whole = Histogram(
            "ai_assistant_delivered_seconds",
            "From the receipt of a message to the platform taking its answer.",
            ["command"],
            buckets=BUCKETS,
            registry=registry,
        )
        # The child for its labels is looked up once: `labels()` costs as much as the observation.
        self._observe: dict[tuple[str, str], Callable[[float], None]] = {}
        self._written: OrderedDict[str, tuple[str, datetime]] = OrderedDict()

    def reached(self, station: Station, seconds: float, command: str = NO_COMMAND) -> None:
        """A message got from the station before to this one."""
        observe = self._observe.get((station, command))
        if observe is None:
            named = command if command == NO_COMMAND else self._bounded("command", command)
            observe = self._stations.labels(station, named).observe
            if named == command:
                self._observe[station, command] = observe
        observe(max(0.0, seconds))

    def written(self, source: str, command: str, received_at: datetime) -> None:
        """The answer of this source ("request:<id>") is in the outbox."""
        self._written[source] = (command, received_at)
        if len(self._written) > MOST_UNDER_WAY:
            self._written.popitem(last=False)

    def delivered(self, source: str, seconds: float, at: datetime) -> None:
        """A delivery of this source was taken by its platform, this long after it was written: the first one counts."""
        kind, _, identity = source.partition(":")
        if kind == "message":
            command, received_at = NO_COMMAND, made_at(identity)
        else:
            command, received_at = self._written.pop(source, (NO_COMMAND, None))
        if received_at is None:
            return  # no answer, or one that an earlier hub wrote
        self.reached("delivered", seconds, command)
        whole = self._whole.labels(command if command == NO_COMMAND else self._bounded("command", command))
        whole.observe(max(0.0, (at - received_at).total_seconds()))


def received_at(message_id: str | None, otherwise: datetime) -> datetime:
    """When a message came, to the millisecond: its id says so. `otherwise`: for what had no message."""
    return (made_at(message_id) if message_id else None) or otherwise.astimezone(UTC)
