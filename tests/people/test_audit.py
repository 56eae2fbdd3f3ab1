from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import AuditUnavailable
from parley.people.audit import Audit, AuditRow, Phase
from parley.people.sealing import Keyring
from parley.store.engine import Store, Work
from parley.store.schema import audit, audit_open

KEYRING = Keyring({"00000001": b"a" * 32})
AUDIT = Audit(KEYRING)


def appended(number: int, log: Audit = AUDIT) -> Work[int]:
    return lambda conn: log.append(
        conn,
        action="run",
        phase=Phase.INTENT,
        actor="principal-1",
        subject=f"request-{number}",
        details={"number": number, "known": True, "note": "查\x7f", "nothing": None},
    )


async def rows(conn: AsyncConnection) -> list[AuditRow]:
    return [AuditRow.of(row) for row in await conn.execute(sa.select(audit).order_by(audit.c.sequence))]


async def test_rows_form_one_chain(store: Store) -> None:
    assert [await store.write(appended(number)) for number in range(3)] == [1, 2, 3]
    stored = await store.read(rows)
    assert [row.subject for row in stored] == ["request-0", "request-1", "request-2"]
    assert AUDIT.verify(stored) == []
    assert AUDIT.verify(stored[2:], after=stored[1]) == []


async def test_many_at_once_still_form_one_chain(store: Store) -> None:
    numbers = await asyncio.gather(*(store.write(appended(number)) for number in range(30)))
    assert sorted(numbers) == list(range(1, 31))
    assert AUDIT.verify(await store.read(rows)) == []


@pytest.mark.servers
async def test_two_hubs_of_one_store_form_one_chain(postgres_store_url: str) -> None:
    """Both read the newest row before they add one: the database lets one of them through, the other looks again."""
    hubs = [await Store.open(postgres_store_url, pool_size=5) for _ in range(2)]
    try:
        numbers = await asyncio.gather(*(hub.write(appended(number)) for number in range(60) for hub in hubs))
        assert sorted(numbers) == list(range(1, 121))
        assert AUDIT.verify(await hubs[0].read(rows)) == []
    finally:
        for hub in hubs:
            await hub.aclose()


async def open_ones(conn: AsyncConnection) -> list[tuple[int, str, str]]:
    found = await conn.execute(sa.select(audit_open).order_by(audit_open.c.sequence))
    return [(row.sequence, row.action, row.subject) for row in found]


def noted(action: str, phase: Phase, subject: str | None = "s") -> Work[int]:
    return lambda conn: AUDIT.append(conn, action=action, phase=phase, actor="ann", subject=subject)


async def test_an_intent_is_open_until_its_outcome(store: Store) -> None:
    for action, phase in (
        ("a", Phase.INTENT),
        ("b", Phase.INTENT),
        ("a", Phase.INTENT),
        ("c", Phase.OUTCOME),
    ):
        await store.write(noted(action, phase))
    await store.write(noted("a", Phase.OUTCOME, None))
    assert await store.read(open_ones) == [(1, "a", "s"), (2, "b", "s"), (3, "a", "s")]
    await store.write(noted("a", Phase.OUTCOME))
    assert await store.read(open_ones) == [(2, "b", "s"), (3, "a", "s")]
    await store.write(noted("a", Phase.OUTCOME))
    await store.write(noted("b", Phase.OUTCOME))
    assert await store.read(open_ones) == []


async def test_both_rows_and_the_effect_are_one_write(store: Store) -> None:
    async def works(conn: AsyncConnection) -> None:
        await AUDIT.record(conn, action="x", actor="ann", subject="s", details={"n": 1})

    async def fails(conn: AsyncConnection) -> None:
        await works(conn)
        raise LookupError

    with pytest.raises(LookupError):
        await store.write(fails)
    assert await store.read(rows) == []
    await store.write(works)
    assert [(row.phase, row.details) for row in await store.read(rows)] == [
        ("intent", {"n": 1}),
        ("outcome", {"n": 1}),
    ]
    assert await store.read(open_ones) == []


async def _execute(conn: AsyncConnection, *, statement: str) -> None:
    await conn.execute(sa.text(statement))


async def test_what_the_database_refuses_is_told_as_that(store: Store) -> None:
    sqlite = "CREATE TRIGGER no_more BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'no more'); END"
    postgres = (
        "CREATE FUNCTION no_more() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no more'; END $$",
        "CREATE TRIGGER no_more BEFORE INSERT ON audit FOR EACH ROW EXECUTE FUNCTION no_more()",
    )
    for statement in [sqlite] if store.backend == "sqlite" else postgres:
        await store.write(partial(_execute, statement=statement))
    with pytest.raises(AuditUnavailable, match="could not be written in the audit"):
        await store.write(appended(0))


async def test_what_a_row_holds_is_bounded(store: Store) -> None:
    async def long(conn: AsyncConnection) -> int:
        return await AUDIT.append(
            conn, action="x" * 400, phase="outcome", actor="y" * 400, details={"d": "z" * 2000, "n": 5}
        )

    await store.write(long)
    (row,) = await store.read(rows)
    assert (len(row.action), len(row.actor)) == (300, 300)
    assert row.details == {"d": f"{'z' * 1000}… (2000 characters)", "n": 5}
    assert AUDIT.verify([row]) == []
    many = {f"d{number}": 1 for number in range(65)}
    with pytest.raises(ValueError, match="64 details"):
        await store.write(
            lambda conn: AUDIT.append(conn, action="x", phase="outcome", actor="y", details=many)
        )


async def test_a_write_that_fails_leaves_no_row_and_no_gap(store: Store) -> None:
    async def fails(conn: AsyncConnection) -> None:
        await appended(0)(conn)
        raise LookupError

    await asyncio.gather(
        store.write(appended(1)), store.write(fails), store.write(appended(2)), return_exceptions=True
    )
    stored = await store.read(rows)
    assert [row.sequence for row in stored] == [1, 2]
    assert AUDIT.verify(stored) == []


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit SET actor = 'nobody'",
        "UPDATE audit SET actor = 'nobody' WHERE sequence = 1",
        "DELETE FROM audit",
        "DELETE FROM audit WHERE sequence = 2",
    ],
)
async def test_the_database_refuses_to_change_or_delete(store: Store, statement: str) -> None:
    for number in range(3):
        await store.write(appended(number))
    with pytest.raises(DBAPIError, match="append-only"):
        await store.write(lambda conn: conn.execute(sa.text(statement)))
    assert AUDIT.verify(await store.read(rows)) == []
    assert len(await store.read(rows)) == 3


async def test_the_database_refuses_each_kinds_own_way_around(store: Store) -> None:
    await store.write(appended(0))
    statement = "TRUNCATE audit"
    if store.backend == "sqlite":
        statement = (
            "INSERT OR REPLACE INTO audit (sequence, at, action, phase, actor, details, chain) "
            "SELECT sequence, at, action, phase, 'x', details, chain FROM audit"
        )
    with pytest.raises(DBAPIError, match="append-only"):
        await store.write(lambda conn: conn.execute(sa.text(statement)))
    assert AUDIT.verify(await store.read(rows)) == []


async def test_every_touch_shows(store: Store) -> None:
    for number in range(5):
        await store.write(appended(number))
    whole = await store.read(rows)
    changed = [*whole[:2], replace(whole[2], actor="nobody"), *whole[3:]]
    assert AUDIT.verify(changed) == ["Row 3 was changed, or the one before it was."]
    assert AUDIT.verify([*whole[:2], *whole[3:]]) == ["Row 3 is missing: row 4 follows row 2."]
    swapped = [replace(whole[1], sequence=1), replace(whole[0], sequence=2), *whole[2:]]
    assert AUDIT.verify(swapped)
    renumbered = [whole[0], *(replace(row, sequence=row.sequence - 1) for row in whole[2:])]
    assert AUDIT.verify(renumbered)
    for chain in ("", "00000001:", "99999999:00", "é", "00000001:" + "0" * 64):
        assert AUDIT.verify([replace(whole[0], chain=chain)])


async def test_the_chain_goes_on_over_a_new_key(store: Store) -> None:
    await store.write(appended(0))
    both = Audit(Keyring({"00000001": b"a" * 32, "00000002": b"b" * 32}))
    await store.write(appended(1, both))
    stored = await store.read(rows)
    assert both.verify(stored) == []
    assert AUDIT.verify(stored) == ["Row 2 was changed, or the one before it was."]


async def test_a_phase_that_does_not_exist_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="maybe"):
        await store.write(lambda conn: AUDIT.append(conn, action="run", phase="maybe", actor="a"))
