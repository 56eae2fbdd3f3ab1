"""Before a start: whether what would be started was approved, exactly so, and nobody has locked it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from parley.people import approvals, freezes
from parley.people.approval_rules import Terms, may_need, terms_for
from parley.people.approvers import Approvers, voices
from parley.people.sealing import Keyring
from parley.runs.approval_texts import clock, say
from parley.runs.catalogue import AutomationSpec
from parley.settings import File


@dataclass(frozen=True, slots=True)
class Frozen:
    """Why something is not started: as it is kept, and as who asks is told, with the words of who locked it."""

    kept: str
    told: str = field(repr=False)


class StartChecks:
    """Looks at approvals and locks; changes nothing."""

    def __init__(self, keyring: Keyring, file: Callable[[], File]) -> None:
        self._keyring = keyring
        self._file = file
        self.approvers: Approvers = Approvers(file)

    def terms(self, spec: AutomationSpec, values: Mapping[str, Any]) -> Terms | None:
        """What has to be approved before this runs; None when nothing has to be."""
        rules = self._file().approvals
        return terms_for(rules, spec, values) if may_need(rules, spec) else None

    def time_zone(self, of: str | None) -> str:
        """Somebody's time zone, or the owner's."""
        return of or self._file().owner.time_zone

    async def frozen(self, conn: AsyncConnection, spec: AutomationSpec, language: str) -> Frozen | None:
        """Why this is not started while somebody has locked it; None when nobody has."""
        one = await freezes.stopping(conn, self._keyring, spec)
        if one is None:
            return None
        until = clock(one.expires_at, self.time_zone(None)) if one.expires_at else ""
        key = "frozen-until" if until else "frozen"
        kept = say(key, language, command=spec.command, by=one.by, until=until)
        return Frozen(kept=kept, told=f"{kept} {one.reason}".rstrip())

    async def missing(
        self, conn: AsyncConnection, row: Any, spec: AutomationSpec, values: Mapping[str, Any], language: str
    ) -> str | None:
        """Why this request's row must not be started for want of an approval; None when it may be.

        What was approved has to be what is started, by those who may still approve it, and for the first time.
        """
        terms = self.terms(spec, values)
        if terms is None:
            return None
        given = await approvals.of_request(conn, row.id)
        if given is None or given.state != "granted":
            return say("missing", language, command=spec.command)
        if not approvals.is_for(self._keyring, given, spec, values, row.actor_id):
            return say("changed", language, command=spec.command)
        if row.queued_at is None or row.queued_at > given.decided_at:
            return say("used", language, command=spec.command)
        able = await self.approvers.of(conn, spec, terms, excluded=() if given.alone else given.excluded)
        needed = max(given.needed, terms.needed)
        if voices((await approvals.words(conn, given.id)).keys(), able) < needed:
            return say("lost-right", language, command=spec.command)
        return None


__all__ = ["Frozen", "StartChecks"]
