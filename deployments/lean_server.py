"""What Prefect's server does again and again for the same thing, done once: `install()` before the application is made.

===============================  ============================================  =====================================
in Prefect                       cost                                          here
===============================  ============================================  =====================================
a work pool's and a              10 ms of each flow run created: the JSON      remembered for schemas that were
deployment's JSON schema are     schema of JSON schema, over and over          found well-formed
checked to be well-formed
each event is parsed by each     0.3 ms an event and reader, some thirty       parsed by the first of them
of its readers                   a run
events are written to SQLite in  a tenth of the server's work: a statement     in one that stays the same, with many
one statement for each number    is compiled for each new number               sets of values
of them
===============================  ============================================  =====================================

Answers, states and what is stored stay as they are. For what each request goes through, see `lean_http`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

import sqlalchemy as sa
from prefect.server.database import provide_database_interface
from prefect.server.events.schemas.events import ReceivedEvent
from prefect.server.events.storage import database
from prefect.utilities.schema_tools import validation
from sqlalchemy.ext.asyncio import AsyncSession

from parley.runs import patches
from parley.runs.patches import Patch

MOST_SCHEMAS: Final = 500
MOST_EVENTS: Final = 200
"""Events are parsed by all of their readers within moments; more of them are waiting only at a peak."""

EVENTS_AT_ONCE: Final = 500
"""Below the number of values that a statement of SQLite's may have."""


def install() -> list[str]:
    """Put all of it in place; returns the names of what is left as Prefect has it. A second call changes nothing."""
    return patches.install(PATCHES)


def _checked_once(original: Any) -> Any:
    # Only what passes is remembered: an error is raised each time.
    @lru_cache(maxsize=MOST_SCHEMAS)
    def check(text: str, *arguments: Any, **options: Any) -> None:
        original(json.loads(text), *arguments, **options)

    def check_schema(schema: Any, *arguments: Any, **options: Any) -> None:
        try:
            text = json.dumps(schema, sort_keys=True)
        except (TypeError, ValueError, RecursionError):  # not JSON, or without an end: for the check to say
            original(schema, *arguments, **options)
        else:
            check(text, *arguments, **options)

    return check_schema


def _parsed_once(original: Any) -> Any:
    """The readers of the event bus share one parsed event; none of them changes it."""
    parsed = lru_cache(maxsize=MOST_EVENTS)(original)

    def model_validate_json(data: Any, **options: Any) -> ReceivedEvent:
        parse = parsed if isinstance(data, bytes) and not options else original
        event: ReceivedEvent = parse(data, **options)
        return event

    return model_validate_json


def _write_in_one_statement(_: Any) -> Any:
    async def write_sqlite_events(session: AsyncSession, events: Sequence[ReceivedEvent]) -> None:
        for begin in range(0, len(events), EVENTS_AT_ONCE):
            await _write(session, {event.id: event for event in events[begin : begin + EVENTS_AT_ONCE]})

    return write_sqlite_events


async def _write(session: AsyncSession, events: dict[Any, ReceivedEvent]) -> None:
    db: Any = provide_database_interface()
    known = set(await session.scalars(sa.select(db.Event.id).where(db.Event.id.in_(list(events)))))
    new = [event for event in events.values() if event.id not in known]
    if not new:
        return
    await session.execute(sa.insert(db.Event), [event.as_database_row() for event in new])
    resources = [row for event in new for row in event.as_database_resource_rows()]
    if resources:
        await session.execute(sa.insert(db.EventResource), resources)


PATCHES: Final = (
    Patch(
        validation._VALIDATOR,  # noqa: SLF001 - Prefect's own, used by all of its validation
        "check_schema",
        frozenset({"f7b709036ac988d0"}),
        _checked_once,
    ),
    Patch(ReceivedEvent, "model_validate_json", frozenset({"3233ae5b1d33d598"}), _parsed_once),
    Patch(database, "_write_sqlite_events", frozenset({"df0fa1ecaf56fa30"}), _write_in_one_statement),
)
"""What is replaced where it is the one that is known."""
