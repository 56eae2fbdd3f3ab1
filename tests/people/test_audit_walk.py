"""What somebody does to the database behind our back is found, and said where."""

from __future__ import annotations

import shutil
import sqlite3
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from parley.people import audit_reading
from parley.people.anchors import AnchorFile
from parley.people.audit import Audit
from parley.people.audit_walk import Found, Place, walk
from parley.people.sealing import Keyring
from parley.store.engine import Store
from tests import prepared

KEYRING = Keyring({"00000001": b"a" * 32})
AUDIT = Audit(KEYRING)


async def append(store: Store, count: int) -> None:
    async def write(conn: AsyncConnection) -> None:
        for number in range(count):
            await AUDIT.append(
                conn,
                action="run:repair",
                phase="outcome",
                actor="ann",
                subject=f"request:{number}",
                details={"state": "done", "n": number, "note": "查"},
            )

    await store.write(write)


async def anchor(store: Store, file: AnchorFile) -> None:
    head = await store.read(audit_reading.head)
    assert head is not None
    file.add(head)


async def verified(store: Store, file: AnchorFile | None, part: int = 7) -> Found:
    total, place = Found(), Place()
    while True:
        found = await walk(store.read, AUDIT, file, place, part=part)
        total.rows += found.rows
        total.anchors += found.anchors
        total.problems += found.problems
        total.notes += found.notes
        if found.next is None:
            return total
        place = Place(**found.next.to_json())


@pytest.fixture
def anchors(tmp_path: Path) -> AnchorFile:
    return AnchorFile(tmp_path / "keys" / "anchors", KEYRING)


@pytest.mark.parametrize("part", [1, 7, 10_000])
async def test_a_whole_audit_is_whole(store: Store, anchors: AnchorFile, part: int) -> None:
    for _ in range(3):
        await append(store, 10)
        await anchor(store, anchors)
    found = await verified(store, anchors, part)
    assert (found.rows, found.anchors, found.problems, found.notes) == (30, 3, [], [])


async def test_without_anchors_it_says_what_it_cannot_say(store: Store, anchors: AnchorFile) -> None:
    await append(store, 3)
    found = await verified(store, anchors)
    assert found.problems == []
    assert "cannot be ruled out" in found.notes[0]


async def test_an_empty_audit_is_whole(store: Store, anchors: AnchorFile) -> None:
    assert (await verified(store, anchors)).problems == []


@dataclass
class Behind:
    """The database as somebody has it who goes around us."""

    path: Path

    def does(self, *statements: str) -> None:
        with closing(sqlite3.connect(self.path)) as conn:
            triggers = conn.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
            for name, _ in triggers:
                conn.execute(f"DROP TRIGGER {name}")
            for statement in statements:
                conn.execute(statement)
            for _, sql in triggers:
                conn.execute(sql)
            conn.commit()


@pytest.fixture
async def behind(tmp_path: Path, anchors: AnchorFile) -> Behind:
    """Twenty rows, anchored at 10 and 20, in a store that nobody has open."""
    path = tmp_path / "parley.db"
    prepared.store(path)
    store = await Store.open(path)
    for _ in range(2):
        await append(store, 10)
        await anchor(store, anchors)
    await store.aclose()
    with closing(sqlite3.connect(path)) as conn:
        conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return Behind(path)


async def opened(path: Path, file: AnchorFile) -> Found:
    store = await Store.open(path)
    try:
        return await verified(store, file)
    finally:
        await store.aclose()


_SWAP = (
    "UPDATE audit SET sequence = 1000 WHERE sequence = 5",
    "UPDATE audit SET sequence = 5 WHERE sequence = 6",
    "UPDATE audit SET sequence = 6 WHERE sequence = 1000",
)


@pytest.mark.parametrize(
    ("statements", "said"),
    [
        (["DELETE FROM audit WHERE sequence = 5"], ["Row 5 is missing: row 6 follows row 4."]),
        (["DELETE FROM audit WHERE sequence IN (5, 6)"], ["Rows 5 to 6 are missing: row 7 follows row 4."]),
        (["DELETE FROM audit WHERE sequence = 1"], ["Row 1 is missing: row 2 follows row 0."]),
        (
            ["UPDATE audit SET actor = 'bob' WHERE sequence = 5"],
            ["Row 5 was changed, or the one before it was."],
        ),
        (
            ["UPDATE audit SET details = 'x' WHERE sequence = 5"],
            ["Row 5 was changed: its details are no JSON."],
        ),
        (
            ["UPDATE audit SET details = replace(hex(zeroblob(2500)), '0', '[') WHERE sequence = 5"],
            ["Row 5 was changed: its details are no JSON."],
        ),
        (["UPDATE audit SET at = 'x' WHERE sequence = 5"], ["Row 5 was changed: its time is none."]),
        (
            ["UPDATE audit SET action = x'ff' WHERE sequence = 5"],
            ["Row 5 was changed: its action is no text."],
        ),
        (
            ["UPDATE audit SET action = CAST(x'ff' AS TEXT) WHERE sequence = 5"],
            ["Row 5 was changed: it cannot be read."],
        ),
        (
            _SWAP,
            ["Row 5 was changed, or the one before it was.", "Row 6 was changed, or the one before it was."],
        ),
        (["DELETE FROM audit WHERE sequence > 17"], ["Rows 18 to 20 are gone: row 20 was there at "]),
        (["DELETE FROM audit"], ["Rows 1 to 20 are gone: row 20 was there at "]),
    ],
)
async def test_deleted_changed_moved_and_cut_off(
    behind: Behind, anchors: AnchorFile, statements: list[str], said: list[str]
) -> None:
    behind.does(*statements)
    problems = (await opened(behind.path, anchors)).problems
    for words in said:
        assert any(problem.startswith(words) for problem in problems), problems


async def test_what_means_the_same_and_is_written_otherwise_is_found_too(
    behind: Behind, anchors: AnchorFile
) -> None:
    behind.does("UPDATE audit SET details = replace(details, ': ', ':') WHERE sequence = 3")
    behind.does("UPDATE audit SET at = replace(at, ' ', 'T') WHERE sequence = 4")
    assert (await opened(behind.path, anchors)).problems == [
        "Row 3 was changed: its details are written otherwise.",
        "Row 4 was changed: its time is none.",
    ]


async def test_an_older_copy_of_the_whole_database(
    behind: Behind, anchors: AnchorFile, tmp_path: Path
) -> None:
    """A whole chain, in which nothing is wrong: only the anchors tell."""
    older = tmp_path / "older.db"
    shutil.copy(behind.path, older)
    store = await Store.open(behind.path)
    await append(store, 5)
    await anchor(store, anchors)
    await store.aclose()
    found = await opened(older, anchors)
    assert len(found.problems) == 1
    assert found.problems[0].startswith("Rows 21 to 25 are gone: row 25 was there at ")
    # And when the older one went on for a while, so that there are as many rows again:
    store = await Store.open(older)
    await append(store, 7)
    await anchor(store, anchors)
    await store.aclose()
    found = await opened(older, anchors)
    assert len(found.problems) == 1
    assert found.problems[0].startswith("Row 25 is not the one that was anchored at ")


async def test_a_shorter_copy_that_was_anchored_again(
    behind: Behind, anchors: AnchorFile, tmp_path: Path
) -> None:
    behind.does("DELETE FROM audit WHERE sequence > 12")
    store = await Store.open(behind.path)
    await append(store, 2)
    await anchor(store, anchors)
    await store.aclose()
    problems = (await opened(behind.path, anchors)).problems
    assert any("an older copy of the database was put back" in problem for problem in problems), problems


def _places(path: Path) -> Iterator[tuple[int, int]]:
    """Where the texts of each row lie in the file: byte and row."""
    content = path.read_bytes()
    with closing(sqlite3.connect(path)) as conn:
        query = "SELECT sequence, at || action || phase || actor || subject || details || chain FROM audit"
        for sequence, text in conn.execute(query):
            start = content.find(text.encode())
            assert start >= 0
            for place in range(start, start + len(text.encode())):
                yield place, sequence


async def test_each_byte_of_a_row_counts(behind: Behind, anchors: AnchorFile) -> None:
    """One byte of the file is changed: the row is named. All bytes of two rows, one bit of each."""
    whole = behind.path.read_bytes()
    places = [(place, row) for place, row in _places(behind.path) if row in (1, 20)]
    assert len(places) == 2 * 171  # every byte of both
    with behind.path.open("r+b") as file:
        for place, row in places:
            _put(file, place, bytes([whole[place] ^ (1, 2, 32)[place % 3]]))
            problems = await _fresh(behind.path, anchors)
            assert any(problem.startswith(f"Row {row} ") for problem in problems), (place, row, problems)
            _put(file, place, whole[place : place + 1])
    assert await _fresh(behind.path, anchors) == []


def _put(file: BinaryIO, place: int, byte: bytes) -> None:
    file.seek(place)
    file.write(byte)
    file.flush()


async def _fresh(path: Path, file: AnchorFile) -> list[str]:
    engine = create_async_engine(
        f"sqlite+aiosqlite:///file:{path}?mode=ro&immutable=1&uri=true", poolclass=NullPool
    )

    async def read(work: Callable[[AsyncConnection], object]) -> object:
        async with engine.connect() as conn:
            return await work(conn)  # type: ignore[misc]

    found = await walk(read, AUDIT, file, Place())
    await engine.dispose()
    return found.problems


@pytest.mark.slow
async def test_a_long_audit_needs_little_memory(tmp_path: Path, anchors: AnchorFile) -> None:
    path = tmp_path / "long.db"
    prepared.store(path)
    store = await Store.open(path)
    for _ in range(20):
        await append(store, 1000)
        await anchor(store, anchors)
    tracemalloc.start()
    found = await verified(store, anchors, part=10_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    await store.aclose()
    assert (found.rows, found.problems) == (20_000, [])
    assert peak < 8 * 1024 * 1024
