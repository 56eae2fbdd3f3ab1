"""What waits for an approval, as the people whom it concerns see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import SealError
from parley.people import approvals
from parley.people.approval_rules import Terms
from parley.people.principals import Principal
from parley.people.sealing import Keyring
from parley.runs.approval_texts import spoken, what
from parley.runs.approving import ApprovalDesk
from parley.runs.catalogue import AutomationSpec, Catalogue
from parley.runs.requests import open_values

MOST: Final = 50
"""Open approvals that are looked at for one person, those that end first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenApproval:
    """One that waits. `what` is the command; `mine`: this person asked for it; `may`: they may decide it.

    `approved_by` are names, with those in whose place somebody approved.
    """

    code: str
    request_id: str
    automation: str
    what: str
    actor: str
    needed: int
    approved_by: tuple[str, ...]
    created_at: datetime
    expires_at: datetime
    mine: bool
    may: bool


class OpenApprovals:
    """Lists them."""

    def __init__(self, keyring: Keyring, desk: ApprovalDesk, *, catalogue: Callable[[], Catalogue]) -> None:
        self._keyring = keyring
        self._desk = desk
        self._catalogue = catalogue

    async def of(self, conn: AsyncConnection, who: Principal, language: str) -> list[OpenApproval]:
        """What waits for this person, and what they asked for, the first to end first."""
        found = []
        for row in await approvals.open_ones(conn, MOST):
            spec = self._catalogue().find(row.automation)
            if spec is None:
                continue  # it ends by itself, and nobody can decide it
            try:
                values = self._values(row)
            except SealError:
                continue
            mine, may = row.actor_id == who.id, await self._may(conn, row, who, spec, values)
            if mine or may:
                shown = what(spec, values, language)
                yeses = tuple(spoken(one, language) for one in (await approvals.words(conn, row.id)).values())
                found.append(_open(row, shown, yeses, mine=mine, may=may))
        return found

    def _values(self, row: Any) -> dict[str, Any]:
        return open_values(
            self._keyring, _Request(id=row.request_id, parameters_sealed=row.parameters_sealed)
        )

    async def _may(
        self,
        conn: AsyncConnection,
        row: Any,
        who: Principal,
        spec: AutomationSpec,
        values: Mapping[str, Any],
    ) -> bool:
        if row.alone and row.actor_id == who.id:
            return True
        terms = self._desk.terms(spec, values) or Terms()
        return who.id in await self._desk.approvers.of(conn, spec, terms, excluded=row.excluded)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    id: str
    parameters_sealed: bytes | None


def _open(row: Any, shown: str, yeses: tuple[str, ...], *, mine: bool, may: bool) -> OpenApproval:
    return OpenApproval(
        code=row.code,
        request_id=row.request_id,
        automation=row.automation,
        what=shown,
        actor=row.actor or "-",
        needed=row.needed,
        approved_by=yeses,
        created_at=row.created_at,
        expires_at=row.expires_at,
        mine=mine,
        may=may,
    )


__all__ = ["OpenApproval", "OpenApprovals"]
