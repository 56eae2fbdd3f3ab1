"""Sessions over REST: where the caller is signed in at the console, and the end of it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import AwareDatetime, BaseModel

from parley.people.session_desk import SessionDesk
from parley.people.sessions import Kind, Session
from parley.web.auth import Caller
from parley.web.problems import Problem

router = APIRouter(prefix="/sessions", tags=["sessions"])

Person = Annotated[str, Query(max_length=100, description="Somebody's name, for the owner; oneself without.")]


class SessionOut(BaseModel):
    """A browser that somebody is signed in with. `kind` is how they signed in, `agent` browser and system."""

    id: str
    kind: Kind
    agent: str
    created_at: AwareDatetime
    used_at: AwareDatetime
    expires_at: AwareDatetime


def session_out(one: Session) -> SessionOut:
    """A session, to its person."""
    return SessionOut(
        id=one.id,
        kind=one.kind,
        agent=one.agent,
        created_at=one.created_at,
        used_at=one.used_at,
        expires_at=one.expires_at,
    )


@router.get("", summary="Where one is signed in")
async def get_sessions(request: Request, caller: Caller, person: Person = "") -> list[SessionOut]:
    """In the order in which they began."""
    _, found = await _desk(request).of(caller, person)
    return [session_out(one) for one in found]


@router.delete("/{session_id}", summary="End a session", status_code=204)
async def delete_session(request: Request, caller: Caller, session_id: str, person: Person = "") -> None:
    """At once: what it is used for next is refused."""
    if not await _desk(request).end(caller, [session_id[:100]], person):
        raise Problem(404, "There is no such session.")


def _desk(request: Request) -> SessionDesk:
    desk: SessionDesk = request.app.state.front.sign_in.sessions
    return desk
