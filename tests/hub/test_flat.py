"""Nothing that a message or a question leads to reads a table as a whole: SQLite's own plans say so."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa

from parley.messages.model import now
from parley.processes import stations
from parley.processes.vitals import LATELY
from parley.store.retention import sweep
from tests.hub.house import House

pytestmark = pytest.mark.prefect

SMALL = frozenset(
    (
        "account",
        "alert_state",
        "grant_",
        "standing_approval",
        "follow",
        "event_reader",
        "lease",
        "CONSTANT",
    )
)
"""What a plan may go through as a whole: tables that do not grow with use."""

FEW = (" USING INDEX ix_freeze_in_force",)
"""Indexes that hold only the rows that are in force, however long their table grows."""

READ_ALREADY = ("anon_", "(")
"""How SQLite names what a subquery has read: its own reading is a line of its own."""

Statement = tuple[str, Any]


@contextmanager
def recorded(house: House) -> Iterator[list[Statement]]:
    """Every statement of the hub's connections, with its values, once each."""
    backend = house.hub.store._backend
    engines = [backend._readers.sync_engine, backend._writing.sync_engine]  # type: ignore[attr-defined]
    seen: dict[str, Any] = {}

    def note(_conn: Any, _cursor: Any, statement: str, values: Any, _context: Any, many: bool) -> None:
        seen.setdefault(statement, values[0] if many else values)

    found: list[Statement] = []
    for engine in engines:
        sa.event.listen(engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        for engine in engines:
            sa.event.remove(engine, "before_cursor_execute", note)
        found += [
            one for one in seen.items() if one[0].split()[0] in ("SELECT", "UPDATE", "DELETE", "INSERT")
        ]


async def whole_reads(house: House, statements: list[Statement]) -> list[str]:
    """What reads a growing table from end to end: through no index, or through one without a bound."""

    async def explain(conn: Any) -> list[str]:
        found = []
        for statement, values in statements:
            plan = (await conn.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)).all()
            bounded = re.search(r"\bLIMIT\b", statement) and not any("TEMP B-TREE" in row[-1] for row in plan)
            scans = [
                row[-1]
                for row in plan
                if row[-1].startswith("SCAN ")
                and row[-1].split()[1] not in SMALL
                and not row[-1].split()[1].startswith(READ_ALREADY)
                and not row[-1].endswith(FEW)
            ]
            # The first rows of a table or an index in their own order are no reading of the whole.
            if scans and not bounded:
                found.append(f"{scans}: {statement}")
        return found

    return await house.hub.store.read(explain)


async def test_a_message_with_a_run_and_its_answer(house: House) -> None:
    with recorded(house) as statements:
        await house.say("/look 1")
        await house.say("look up 2")
        await house.say("change web1")
        await house.say("yes")
        await house.answers_to(await house.from_mail("hello", sender="nobody@example.com"))
    assert len(statements) > 20
    assert await whole_reads(house, statements) == []


async def test_what_people_ask_about(house: House) -> None:
    owner, bob = await house.owner(), await house.person("bob", "user")
    await house.say("/look 1")
    await house.say("/look 1", bob)
    with recorded(house) as statements:
        for text in (
            "/help",
            "/help look",
            "/runs",
            "/runs all",
            "/why",
            "/why 12345678",
            "/whoami",
            "/status",
            "/who can look",
            "/link",
            "/lok",
        ):
            await house.say(text)
            await house.say(text, bob)
        for who in (owner, bob):
            await house.hub.front.history(who, limit=20)
            runs = await house.hub.front.runs(who, limit=1, before=None)
            await house.hub.front.runs(who, limit=1, before=runs[0].id)
    assert await whole_reads(house, statements) == []


async def test_what_the_hub_does_by_itself(house: House) -> None:
    await house.say("/look 1")
    with recorded(house) as statements:
        await house.hub._take_up()
        await house.hub.store.read(lambda conn: stations.recent(conn, now() - LATELY))
        await sweep(house.hub.store, now())
    assert await whole_reads(house, statements) == []


async def test_the_detector_sees_a_whole_read(house: House) -> None:
    bad = [
        ("SELECT id FROM message WHERE sender_id = ?", ("x",)),
        ("SELECT id FROM request ORDER BY created_at DESC LIMIT 10", ()),
    ]
    assert len(await whole_reads(house, bad)) == 2
    assert await whole_reads(house, [("SELECT id FROM message ORDER BY id DESC LIMIT 10", ())]) == []
