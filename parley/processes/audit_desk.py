"""The audit for whoever may read it: shown, exported, verified, and told as the story of one request.

Verbs of the person at the machine, and what REST gives out to the owner and auditors.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Final

from parley.errors import BadArguments, Denied
from parley.people import audit_reading
from parley.people.anchors import AnchorFile
from parley.people.audit import Audit, AuditRow
from parley.people.audit_reading import Wanted, as_json
from parley.people.audit_walk import PART, Place, walk
from parley.people.principals import Principal, Role
from parley.processes import audit_story
from parley.store.engine import Store

MAY_READ: Final = (Role.OWNER, Role.AUDITOR)


class AuditDesk:
    """Reads and verifies; changes nothing."""

    def __init__(self, store: Store, log: Audit, anchors: AnchorFile) -> None:
        self._store = store
        self._log = log
        self._anchors = anchors
        self.verbs: dict[str, Callable[..., Awaitable[Any]]] = {
            "audit_show": self.show,
            "audit_page": self.page,
            "audit_request": self.request,
            "audit_verify": self.verify,
        }

    async def show(self, limit: int = 50, **wanted: str | None) -> list[dict[str, Any]]:
        """The newest rows of these, oldest first."""
        asked = _wanted(**wanted)
        rows: list[AuditRow] = []
        while len(rows) < limit:
            before = rows[-1].sequence if rows else None
            left = limit - len(rows)
            page = await self._newest(asked, left, before)
            rows += page
            if len(page) < min(left, audit_reading.MOST):
                break
        return [as_json(row) for row in reversed(rows)]

    async def page(
        self, after: int = 0, limit: int = audit_reading.MOST, **wanted: str | None
    ) -> list[dict[str, Any]]:
        """Rows of these behind the number `after`, oldest first."""
        asked = _wanted(**wanted)
        rows = await self._store.read(
            lambda conn: audit_reading.following(conn, asked, after=after, limit=limit)
        )
        return [as_json(row) for row in rows]

    async def request(self, identifier: str) -> list[audit_story.Line]:
        """One request from the message to the delivery. Raises `BadArguments` when there is none."""
        told = await self._store.read(lambda conn: audit_story.tell(conn, identifier))
        if not told:
            raise BadArguments(
                f"There is no request {identifier[:36]!r}: give its id, or its last eight characters."
            )
        return told

    async def verify(self, place: dict[str, Any] | None = None, part: int = PART) -> dict[str, Any]:
        """Check the next part from `place` on; `next` is where to go on, None at the end."""
        found = await walk(
            self._store.read, self._log, self._anchors, Place(**place or {}), part=min(part, PART)
        )
        return asdict(found)

    async def read(
        self, reader: Principal, wanted: Wanted, *, limit: int, before: int | None
    ) -> Sequence[AuditRow]:
        """Newest first. Raises `Denied` for anybody but the owner and auditors."""
        if reader.role not in MAY_READ or not reader.enabled:
            raise Denied("Only the owner and auditors may read the audit.")
        return await self._newest(wanted, limit, before)

    async def _newest(self, wanted: Wanted, limit: int, before: int | None) -> Sequence[AuditRow]:
        return await self._store.read(
            lambda conn: audit_reading.newest(conn, wanted, limit=limit, before=before)
        )


def _wanted(
    since: str | None = None,
    until: str | None = None,
    action: str | None = None,
    actor: str | None = None,
    subject: str | None = None,
) -> Wanted:
    return Wanted(since=_time(since), until=_time(until), action=action, actor=actor, subject=subject)


def _time(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        given = datetime.fromisoformat(text)
        return given.astimezone(UTC) if given.tzinfo else given.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise BadArguments(
            f"{text[:40]!r} is no time: write 2026-11-23 or 2026-11-23T14:30:00+01:00."
        ) from None


__all__ = ["AuditDesk"]
