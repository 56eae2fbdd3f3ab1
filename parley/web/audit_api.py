"""The audit over REST. For the owner and auditors."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import AfterValidator, AwareDatetime, BaseModel

from parley.people.audit_reading import Wanted, as_json
from parley.web.auth import Caller
from parley.web.cursors import cursor, read_cursor
from parley.web.front import Front
from parley.web.problems import Problem
from parley.web.wire import Page

router = APIRouter(prefix="/audit", tags=["audit"])


def _aware(at: datetime | None) -> datetime | None:
    """In UTC, which is meant where no zone is given."""
    if at is None or at.tzinfo is None:
        return at and at.replace(tzinfo=UTC)
    try:
        return at.astimezone(UTC)
    except OverflowError:
        raise ValueError("no year from 1 to 9999 in UTC") from None


Time = Annotated[datetime | None, AfterValidator(_aware)]

Pattern = Annotated[str | None, Query(max_length=200, description="`*` stands for any characters.")]


class AuditOut(BaseModel):
    """One row. `chain` proves it together with the row before, for whoever has the key."""

    sequence: int
    at: AwareDatetime
    action: str
    phase: str
    actor: str
    subject: str | None
    details: dict[str, Any]
    chain: str


@router.get("", summary="Who did what")
async def get_audit(
    request: Request,
    caller: Caller,
    since: Annotated[Time, Query(description="From this time on.")] = None,
    until: Annotated[Time, Query(description="Before this time.")] = None,
    action: Pattern = None,
    actor: Pattern = None,
    subject: Pattern = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    page: Annotated[str | None, Query(alias="cursor", max_length=400)] = None,
) -> Page[AuditOut]:
    """Newest first. For the owner and auditors."""
    front: Front = request.app.state.front
    wanted = Wanted(since=since, until=until, action=action, actor=actor, subject=subject)
    rows = await front.audit(caller, wanted, limit=limit + 1, before=_number(read_cursor(page)))
    more = cursor(str(rows[limit - 1].sequence)) if len(rows) > limit else None
    return Page(items=[AuditOut.model_validate(as_json(row)) for row in rows[:limit]], next=more)


def _number(given: str | None) -> int | None:
    if given is None:
        return None
    if not (given.isascii() and given.isdigit() and len(given) < 19):
        raise Problem(400, "This cursor is not one that was given here.", kind="bad-cursor")
    return int(given)
