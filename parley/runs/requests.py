"""Requests and runs in the store: what was asked for, and each attempt to do it.

Functions of one transaction; the callers decide what happens together. A request keeps its parameters sealed; a run's
token is derived from its id, so that it survives a restart of the hub and is worth nothing for another run.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import SealError
from parley.messages import kept_routes
from parley.messages.model import Route, now
from parley.people.sealing import Keyring
from parley.runs.catalogue import AutomationSpec, Lane
from parley.store import schema
from parley.store.ids import new_id

logger = logging.getLogger(__name__)

OPEN = ("needs-input", "awaiting-approval", "queued", "running")
"""States in which a request still has something to wait for."""

# Made once: to make a statement takes several times as long as to execute it.
_INSERT_REQUEST: Final = sa.insert(schema.request)
_INSERT_RUN: Final = sa.insert(schema.run)

WAITING = ("needs-input", "awaiting-approval")
"""States in which a request waits for a person."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRequest:
    """What a person, a service or a schedule asks for."""

    spec: AutomationSpec
    values: Mapping[str, Any]
    origin: str
    actor_id: str | None
    state: str
    lane: Lane
    route: Route | None = None
    message_id: str | None = None
    conversation_id: str | None = None
    asking: Mapping[str, Any] | None = None
    reason: str | None = None
    expires_at: datetime
    ordinal: int = 0
    under_id: str | None = None
    standing_id: str | None = None
    trail: tuple[str, ...] = ()
    id: str = field(default_factory=new_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedRun:
    """A run that may be dispatched. `again`: it, or an earlier run of its request, was handed over before."""

    run_id: str
    request_id: str
    message_id: str | None
    automation: str
    values: Mapping[str, Any]
    actor: str
    lane: Lane
    attempt: int = 0
    again: bool = False
    queued_at: datetime = field(default_factory=now)

    @property
    def alone(self) -> bool:
        """Whether it shares its flow run with no other: what went wrong with it once must not take others along."""
        return self.again or self.attempt > 0


def digest(keyring: Keyring, spec: AutomationSpec, values: Mapping[str, Any], actor_id: str | None) -> str:
    """Tells requests for the same apart from others; no sealed parameter can be guessed by it."""
    body = json.dumps([spec.name, spec.version, dict(values), actor_id], sort_keys=True, ensure_ascii=False)
    return keyring.keyed_hash(body)


async def insert_request(conn: AsyncConnection, keyring: Keyring, new: NewRequest) -> str:
    """Insert a request; its id."""
    request_id, at = new.id, now()
    values = {
        "id": request_id,
        "message_id": new.message_id,
        "automation": new.spec.command,
        "ordinal": new.ordinal,
        "conversation_id": new.conversation_id,
        "actor_id": new.actor_id,
        "origin": new.origin,
        "automation_version": new.spec.version,
        "parameters_sealed": seal_values(keyring, request_id, new.values),
        "digest": digest(keyring, new.spec, new.values, new.actor_id),
        "state": new.state,
        "lane": new.lane.value,
        "fell_back": False,
        "route": kept_routes.kept(keyring, "request", request_id, new.route) if new.route else None,
        "asking": dict(new.asking) if new.asking else None,
        "reason": new.reason,
        "under_id": new.under_id,
        "standing_id": new.standing_id,
        "trail": list(new.trail) or None,
        "created_at": at,
        "queued_at": at if new.state == "queued" else None,
        "ended_at": None if new.state in OPEN else at,
        "expires_at": new.expires_at,
    }
    await conn.execute(_INSERT_REQUEST, values)
    return request_id


async def insert_run(conn: AsyncConnection, request_id: str, *, epoch: int = 0) -> str:
    """Insert one more run of a request; its id is Prefect's idempotency key.

    `epoch` is greater than those of the runs before it: answers of one request are told apart by it.
    """
    run_id = new_id()
    values = {
        "id": run_id,
        "request_id": request_id,
        "epoch": epoch,
        "state": "created",
        "said": 0,
        "created_at": now(),
    }
    await conn.execute(_INSERT_RUN, values)
    return run_id


async def update_request(
    conn: AsyncConnection, request_id: str, *, where: tuple[str, ...] = OPEN, **values: Any
) -> bool:
    """Change a request that is in one of these states; whether it was."""
    if values.get("state") and values["state"] not in OPEN:
        values.setdefault("ended_at", now())
    done = await conn.execute(_update_of(where), values | {"the_request": request_id})
    return bool(done.rowcount)


@lru_cache(maxsize=100)
def _update_of(states: tuple[str, ...]) -> sa.Update:
    table = schema.request
    return sa.update(table).where(table.c.id == sa.bindparam("the_request"), table.c.state.in_(states))


async def is_as_read(conn: AsyncConnection, row: Any) -> bool:
    """Whether a request still waits for what it waited for when its row was read, before the write that asks this.

    Of two that go on from the same row only the first finds it so.
    """
    table = schema.request
    query = sa.select(table.c.state, table.c.asking).where(table.c.id == row.id)
    found = (await conn.execute(query)).first()
    return found is not None and (found.state, found.asking) == (row.state, row.asking)


def seal_values(keyring: Keyring, request_id: str, values: Mapping[str, Any]) -> bytes:
    """Parameters, sealed for this request."""
    body = json.dumps(dict(values), ensure_ascii=False).encode("utf-8", "surrogatepass")
    return keyring.seal("request", "parameters_sealed", request_id, body)


def open_values(keyring: Keyring, row: Any) -> dict[str, Any]:
    """The parameters of a request's row."""
    if row.parameters_sealed is None:
        return {}
    opened: dict[str, Any] = json.loads(
        keyring.open("request", "parameters_sealed", row.id, row.parameters_sealed)
    )
    return opened


def open_route(keyring: Keyring, row: Any) -> Route:
    """Where a request's row says that it is answered; it must have a route."""
    return kept_routes.opened(keyring, "request", row.id, row.route)


def run_token(keyring: Keyring, run_id: str) -> str:
    """The token that the process gets which runs this."""
    return keyring.keyed_hash(f"run-token:{run_id}")


def is_run_token(keyring: Keyring, run_id: str, token: str) -> bool:
    """Whether this token was given to the process that runs this, also before the keys were changed."""
    return keyring.is_hash_of(token, f"run-token:{run_id}")


def outward(spec: AutomationSpec, request_id: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as Prefect may see them: a `Sealed` one is only a reference."""
    hidden = spec.sealed_names
    return {
        name: f"sealed:{request_id}:{name}" if name in hidden else value for name, value in values.items()
    }


async def principal_name(conn: AsyncConnection, principal_id: str | None) -> str:
    """A principal's name, or a dash."""
    if principal_id is None:
        return "-"
    table = schema.principal
    return str(
        (await conn.execute(sa.select(table.c.name).where(table.c.id == principal_id))).scalar() or "-"
    )


HAS_NO_FLOW_RUN: Final = sa.func.coalesce(schema.run.c.flow_run_id, "") == ""
"""No flow run of its own: not begun, or one that others share. In a form that no index serves, because all that ever
shared one are so."""

_IS_QUEUED: Final = schema.request.c.state == sa.literal_column("'queued'")
"""Written out: SQLite takes the index of these rows only for a condition that is the same word by word."""


async def waiting_runs(
    conn: AsyncConnection,
    keyring: Keyring,
    lane: Lane | None = None,
    *,
    automation: str | None = None,
    known: AbstractSet[str] = frozenset(),
    most: int = 1000,
    since: datetime | None = None,
) -> list[QueuedRun]:
    """Runs that were created and not started, oldest first: what a hub takes up.

    Not those of a flow run that Prefect made by itself: it brings them again, and a second flow run would double them.
    Not those that were cancelled: the reconciler closes them. One that cannot be opened does not hold up the others.
    What was made before `since` may have been handed over by an earlier hub: its flow run may be there, so that it must
    not come into another one.
    """
    fresh = await waiting_ids(conn, lane, automation=automation, known=known, most=most)
    rows = {
        row.run_id: row for row in (await conn.execute(_WITH_REQUEST.where(schema.run.c.id.in_(fresh)))).all()
    }
    found = []
    for row in (rows[run_id] for run_id in fresh):
        try:
            found.append(_queued(keyring, row, since))
        except SealError as error:
            logger.error("run %s waits and cannot be opened: %s", row.run_id, error)  # noqa: TRY400
    return found


async def waiting_ids(
    conn: AsyncConnection,
    lane: Lane | None = None,
    *,
    automation: str | None = None,
    known: AbstractSet[str] = frozenset(),
    most: int,
) -> list[str]:
    """The ids of `waiting_runs`."""
    run, request = schema.run, schema.request
    query = (
        sa.select(run.c.id)
        .join(request, run.c.request_id == request.c.id)
        .where(
            _IS_QUEUED,
            # In a form that no index serves: what waits is found by its request, however many runs there are.
            sa.func.coalesce(run.c.state, "") == "created",
            HAS_NO_FLOW_RUN,
            run.c.cancel_requested_at.is_(None),
        )
        .order_by(request.c.created_at, run.c.id)
        .limit(most + len(known))
    )
    if lane is not None:
        query = query.where(request.c.lane == lane.value)
    if automation is not None:
        query = query.where(request.c.automation == automation)
    ids = (await conn.execute(query)).scalars().all()
    return [run_id for run_id in ids if run_id not in known][:most]


async def count_waiting(conn: AsyncConnection, lane: Lane, automation: str) -> int:
    """How many requests of this line are queued, those that were handed over and not started among them."""
    return (await waiting_by_automation(conn, lane, automation)).get(automation, 0)


async def waiting_by_automation(
    conn: AsyncConnection, lane: Lane, automation: str | None = None
) -> dict[str, int]:
    """How many requests of this lane are queued, by automation."""
    table, count = schema.request, sa.func.count()
    query = (
        sa.select(table.c.automation, count)
        .where(_IS_QUEUED, table.c.lane == lane.value)
        .group_by(table.c.automation)
    )
    if automation is not None:
        query = query.where(table.c.automation == automation)
    return {name: int(number) for name, number in (await conn.execute(query)).all()}


_WITH_REQUEST: Final = (
    sa.select(
        schema.run.c.id.label("run_id"),
        schema.run.c.epoch,
        schema.run.c.batch_id,
        schema.run.c.created_at.label("run_created_at"),
        schema.request,
        schema.principal.c.name.label("actor"),
    )
    .join(schema.request, schema.run.c.request_id == schema.request.c.id)
    .outerjoin(schema.principal, schema.principal.c.id == schema.request.c.actor_id)
)


def _queued(keyring: Keyring, row: Any, since: datetime | None) -> QueuedRun:
    return QueuedRun(
        run_id=row.run_id,
        request_id=row.id,
        message_id=row.message_id,
        automation=row.automation,
        values=open_values(keyring, row),
        actor=row.actor or "-",
        lane=Lane(row.lane),
        again=row.epoch > 0 or row.batch_id is not None or (since is not None and row.run_created_at < since),
        queued_at=row.queued_at or row.created_at,
    )


def later(seconds: float) -> datetime:
    """This many seconds from now."""
    return now() + timedelta(seconds=seconds)


def short(identifier: str) -> str:
    """The part of an id that people type: its last eight characters."""
    return identifier.replace("-", "")[-8:]
