"""Verifying the audit from its first row to its newest, part by part, so that a million rows need little memory.

`walk` checks one part and says where the next one begins. Each row is checked against the one before it, as it is
written in the database to the letter, and each anchor against the row that it names. What is wrong comes back as
sentences that name rows; what cannot be ruled out for want of anchors comes back as notes.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import StoreUnavailable
from parley.people.anchors import Anchor, AnchorFile, Line
from parley.people.audit import Audit, AuditRow, missing
from parley.store.schema import audit

T = TypeVar("T")
Read = Callable[[Callable[[AsyncConnection], Awaitable[T]]], Awaitable[T]]
"""`Store.read`, or something like it."""

PAGE: Final = 250
"""Rows that are read at once: a hub that verifies goes on answering."""

PART: Final = 10_000
"""Rows of one `walk`."""

MOST_PROBLEMS: Final = 100
"""Sentences of one `walk`; the rest is counted."""

_TIME = "%Y-%m-%d %H:%M:%S.%f"
_COLUMNS = ("sequence", "at", "action", "phase", "actor", "subject", "details", "chain")


@dataclass(frozen=True, slots=True)
class Place:
    """How far a verification has come: the last row and the last line of the anchors that were checked."""

    sequence: int = 0
    chain: str = ""
    offset: int = 0
    line: int = 0
    seal: str = ""
    anchored: int = 0

    def to_json(self) -> dict[str, Any]:
        """For whoever asks for the next part."""
        return asdict(self)


@dataclass(slots=True)
class Found:
    """What a part showed. `next`: where to go on, None at the end. `more`: problems beyond those that are told."""

    rows: int = 0
    anchors: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    more: int = 0
    next: Place | None = None

    def tell(self, problem: str) -> None:
        """One more thing that is wrong."""
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append(problem)
        else:
            self.more += 1

    def note(self, words: str) -> None:
        """Something to know; no more of them than of problems."""
        if len(self.notes) < MOST_PROBLEMS:
            self.notes.append(words)


class Unreadable(Exception):
    """A row that is not as we write rows; the text names the column."""


@dataclass(frozen=True, slots=True)
class _Damaged:
    sequence: int
    words: str
    chain: str


_Row = AuditRow | _Damaged


async def walk(
    read: Read[Any], log: Audit, file: AnchorFile | None, place: Place, *, part: int = PART
) -> Found:
    """Check the next `part` rows, and the anchors that name them. Raises `StoreUnavailable`, `OSError`."""
    return await _Walk(read, log, file, place).go(part)


# What a database says of a damaged value depends on where the damage is; a store that is away says so again later.
_UNREADABLE = (Unreadable, ValueError, TypeError, DBAPIError, StoreUnavailable)


class _Walk:
    def __init__(self, read: Read[Any], log: Audit, file: AnchorFile | None, place: Place) -> None:
        self._read = read
        self._log = log
        self._file = file
        self._found = Found()
        self._sequence, self._chain = place.sequence, place.chain
        self._offset, self._line, self._seal = place.offset, place.line, place.seal
        self._anchored = place.anchored
        self._lines: Iterator[Line] = iter(())
        self._waiting: Line | None = None
        if file is not None:
            self._lines = file.lines(offset=place.offset, number=place.line, seal=place.seal)

    async def go(self, part: int) -> Found:
        last = False
        while not last and self._found.rows < part:
            rows = await self._rows(min(PAGE, part - self._found.rows))
            # The thread leaves the event loop to whoever is waiting; hashing a page takes a few milliseconds.
            await asyncio.to_thread(self._check, rows)
            last = not rows
        if last:
            await self._end()
        else:
            self._found.next = Place(
                self._sequence, self._chain, self._offset, self._line, self._seal, self._anchored
            )
        return self._found

    async def _rows(self, most: int) -> Sequence[_Row]:
        after = self._sequence
        try:
            page: list[AuditRow] = await self._read(lambda conn: _page(conn, after, most))
        except _UNREADABLE:
            return [
                await self._one(sequence)
                for sequence in await self._read(lambda conn: _numbers(conn, after, most))
            ]
        return page

    async def _one(self, sequence: int) -> _Row:
        try:
            page: list[AuditRow] = await self._read(lambda conn: _page(conn, sequence - 1, 1))
        except _UNREADABLE as error:
            words = str(error) if isinstance(error, Unreadable) else "it cannot be read"
            return _Damaged(sequence, words, await self._chain_of(sequence))
        return page[0]

    async def _chain_of(self, sequence: int) -> str:
        query = sa.select(audit.c.chain).where(audit.c.sequence == sequence)
        try:
            return str(await self._read(lambda conn: _scalar(conn, query)) or "")
        except _UNREADABLE:
            return ""

    def _check(self, rows: Sequence[_Row]) -> None:
        for row in rows:
            self._found.rows += 1
            expected = self._sequence + 1
            if isinstance(row, AuditRow):
                problem = self._log.problem(row, expected, self._chain)
            else:
                gone = f"{missing(expected, row.sequence - 1)} missing. " if row.sequence > expected else ""
                problem = f"{gone}Row {row.sequence} was changed: {row.words}."
            self._sequence, self._chain = row.sequence, row.chain
            if problem:
                self._found.tell(problem)
            self._check_anchors(row)

    def _check_anchors(self, row: _Row) -> None:
        while (line := self._next_line()) is not None:
            anchor = line.anchor
            if anchor is not None and anchor.sequence > row.sequence:
                self._waiting = line
                return
            self._passed(line)
            if anchor is None or line.problem:
                continue
            when = f"{anchor.at:%Y-%m-%d %H:%M:%S} UTC"
            if anchor.sequence < self._anchored:
                self._found.tell(_put_back(line.number, when, anchor.sequence, self._anchored))
            elif anchor.sequence == row.sequence and anchor.chain != row.chain:
                self._found.tell(
                    f"Row {row.sequence} is not the one that was anchored at {when}: the audit was written anew, "
                    "or an older copy of the database was put back and went on."
                )
            self._anchored = max(self._anchored, anchor.sequence)

    def _next_line(self) -> Line | None:
        line, self._waiting = self._waiting, None
        return line or next(self._lines, None)

    def _passed(self, line: Line) -> None:
        self._offset, self._line = line.end, line.number
        if line.anchor is not None:
            self._seal = line.anchor.seal
            self._found.anchors += 1
        if line.problem:
            self._found.tell(line.problem)
        elif line.anchor is None:
            self._found.note(f"Line {line.number} of the anchors was cut off while it was written.")

    async def _end(self) -> None:
        newest = await asyncio.to_thread(self._newest_anchor)
        if newest is not None and newest.sequence > self._sequence:
            # It may have been written since the last page was read.
            there = sa.select(audit.c.chain).where(audit.c.sequence == newest.sequence)
            if await self._read(lambda conn: _scalar(conn, there)) != newest.chain:
                self._found.tell(
                    f"{missing(self._sequence + 1, newest.sequence)} gone: row {newest.sequence} was there at "
                    f"{newest.at:%Y-%m-%d %H:%M:%S} UTC. The newest rows were cut off, or an older copy of the "
                    "database was put back."
                )
        if self._file is None or not self._line:
            where = f" at {self._file.path}" if self._file else ""
            self._found.note(
                f"There are no anchors{where}: that the newest rows were cut off cannot be ruled out."
            )

    def _newest_anchor(self) -> Anchor | None:
        newest: Anchor | None = None
        while (line := self._next_line()) is not None:
            self._passed(line)
            one = line.anchor
            if one is not None and not line.problem and (newest is None or one.sequence > newest.sequence):
                newest = one
        return newest


def _put_back(line: int, when: str, sequence: int, before: int) -> str:
    return (
        f"Line {line} of the anchors says that row {sequence} was the newest at {when}, after row {before} had been: "
        "an older copy of the database was put back then."
    )


async def _scalar(conn: AsyncConnection, query: Any) -> Any:
    return (await conn.execute(query)).scalar()


async def _numbers(conn: AsyncConnection, after: int, most: int) -> list[int]:
    query = sa.select(audit.c.sequence).where(audit.c.sequence > after).order_by(audit.c.sequence).limit(most)
    return [int(number) for number in (await conn.execute(query)).scalars()]


async def _page(conn: AsyncConnection, after: int, most: int) -> list[AuditRow]:
    # As it is written: a time or a JSON text may be changed to another that means the same.
    written = [sa.cast(audit.c.details, sa.Text()).label("details")]
    at: Any = audit.c.at
    if conn.dialect.name == "sqlite":
        at = sa.type_coerce(audit.c.at, sa.Text()).label("at")
    plain = [audit.c[name] for name in _COLUMNS if name not in ("at", "details")]
    query = (
        sa.select(*plain, at, *written).where(audit.c.sequence > after).order_by(audit.c.sequence).limit(most)
    )
    return [_row(row) for row in (await conn.execute(query)).mappings()]


def _row(row: Any) -> AuditRow:
    values = dict(row)
    for name in ("action", "phase", "actor", "chain"):
        if not isinstance(values[name], str):
            raise Unreadable(f"its {name} is no text")
    if not isinstance(values["subject"], str | None):
        raise Unreadable("its subject is no text")
    return AuditRow(**values | {"at": _time(values["at"]), "details": _details(values["details"])})


def _time(written: Any) -> datetime:
    if isinstance(written, datetime):
        return written
    try:
        at = datetime.strptime(written, _TIME).replace(tzinfo=UTC)
    except (ValueError, TypeError):
        raise Unreadable("its time is none") from None
    if at.strftime(_TIME) != written:
        raise Unreadable("its time is written otherwise")
    return at


def _details(written: Any) -> dict[str, Any]:
    try:
        details = json.loads(written)
    except (ValueError, TypeError, RecursionError):
        raise Unreadable("its details are no JSON") from None
    if not isinstance(details, dict) or json.dumps(details) != written:
        raise Unreadable("its details are written otherwise")
    return details


__all__ = ["PART", "Found", "Place", "walk"]
