"""Reading the store for people: messages with their answers, requests, the console's conversation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.messages.model import Reply
from parley.messages.state import FINAL, public_state
from parley.people.sealing import Keyring
from parley.store import schema
from parley.web.front import MessageView, ReplyView, RunView

# Made once: to make a statement takes several times as long as to execute it. What is sealed is left out where nobody
# reads it: a message may hold files of megabytes.
_MESSAGE: Final = sa.select(
    *(schema.message.c[name] for name in ("principal_id", "state", "reason", "received_at", "handled_at"))
).where(schema.message.c.id == sa.bindparam("message"))
_REQUESTS: Final = (
    sa.select(
        *(
            schema.request.c[name]
            for name in (
                "id",
                "automation",
                "state",
                "reason",
                "created_at",
                "queued_at",
                "started_at",
                "ended_at",
            )
        )
    )
    .where(schema.request.c.message_id == sa.bindparam("message"))
    .order_by(schema.request.c.ordinal)
)
_LATEST_RUN: Final = (
    sa.select(schema.run, schema.batch.c.flow_run_id.label("shared_flow_run_id"))
    .outerjoin(schema.batch, schema.batch.c.id == schema.run.c.batch_id)
    .where(schema.run.c.request_id == sa.bindparam("request"))
    .order_by(schema.run.c.created_at.desc())
    .limit(1)
)
_DELIVERIES: Final = (
    sa.select(schema.delivery)
    .where(schema.delivery.c.message_id == sa.bindparam("message"))
    .order_by(schema.delivery.c.created_at, schema.delivery.c.id)
)
_STATES: Final = (
    sa.select(
        schema.message.c.principal_id,
        schema.message.c.state,
        schema.message.c.reason,
        schema.request.c.state.label("request_state"),
    )
    .outerjoin(schema.request, schema.request.c.message_id == schema.message.c.id)
    .where(schema.message.c.id == sa.bindparam("message_id"))
)


async def message_view(
    conn: AsyncConnection, keyring: Keyring, message_id: str
) -> tuple[MessageView, str | None] | None:
    """A message as people see it, and whose it is."""
    row = (await conn.execute(_MESSAGE, {"message": message_id})).first()
    if row is None:
        return None
    requests = (await conn.execute(_REQUESTS, {"message": message_id})).all()
    state = public_state(row.state, [one.state for one in requests], row.reason)
    run = await _latest_run(conn, requests)
    replies = await _replies(conn, keyring, message_id)
    view = MessageView(
        id=message_id,
        state=state,
        final=state in FINAL,
        run_id=run.id if run else None,
        flow_run_id=(run.flow_run_id or run.shared_flow_run_id) if run else None,
        automation=requests[-1].automation if requests else None,
        reason=requests[-1].reason if requests else row.reason,
        replies=replies,
        received_at=row.received_at,
        timings=_timings(row, requests, run),
    )
    return view, row.principal_id


@dataclass(frozen=True, slots=True)
class Standing:
    """Whose a message is, and whether nothing more happens to it by itself, as `MessageView.final` says it."""

    owner: str | None
    final: bool


async def standing(conn: AsyncConnection, message_id: str) -> Standing | None:
    """How a message stands, by one look; None when there is none."""
    rows = (await conn.execute(_STATES, {"message_id": message_id})).all()
    if not rows:
        return None
    states = [row.request_state for row in rows if row.request_state]
    return Standing(rows[0].principal_id, public_state(rows[0].state, states, rows[0].reason) in FINAL)


async def _latest_run(conn: AsyncConnection, requests: Sequence[Any]) -> Any:
    if not requests:
        return None
    return (await conn.execute(_LATEST_RUN, {"request": requests[-1].id})).first()


async def _replies(conn: AsyncConnection, keyring: Keyring, message_id: str) -> tuple[ReplyView, ...]:
    return tuple(
        ReplyView(id=row.id, reply=_opened(keyring, row), state=row.state, created_at=row.created_at)
        for row in (await conn.execute(_DELIVERIES, {"message": message_id})).all()
    )


def _opened(keyring: Keyring, row: Any) -> Reply:
    if row.body_sealed is None:
        return Reply(text="(erased)")
    return Reply.model_validate_json(keyring.open("delivery", "body_sealed", row.id, row.body_sealed))


def _timings(message: Any, requests: Sequence[Any], run: Any) -> dict[str, float]:
    # Each station's end, in milliseconds after the message was received.
    ends = {"handled_ms": message.handled_at}
    if run is not None:
        ends |= {"queued_ms": requests[-1].queued_at, "started_ms": run.started_at}
    last = requests[-1].ended_at if requests else message.handled_at
    ends["total_ms"] = last or (requests[-1].created_at if requests and requests[-1].state in FINAL else None)
    return {
        name: round((at - message.received_at).total_seconds() * 1000, 1) for name, at in ends.items() if at
    }


async def reply_in(
    conn: AsyncConnection, keyring: Keyring, place: tuple[str, str], reply_id: str
) -> Reply | None:
    """A reply in this (account, conversation)."""
    conversation, delivery = schema.conversation, schema.delivery
    here = sa.and_(conversation.c.account == place[0], conversation.c.native_id == place[1])
    query = sa.select(delivery).join(conversation, conversation.c.id == delivery.c.conversation_id)
    row = (await conn.execute(query.where(delivery.c.id == reply_id, here))).first()
    return _opened(keyring, row) if row is not None else None


async def run_views(
    conn: AsyncConnection, *, actor_id: str | None, limit: int, before: str | None
) -> list[RunView]:
    """Requests, newest first."""
    request, principal = schema.request, schema.principal
    query = sa.select(request, principal.c.name.label("actor")).outerjoin(
        principal, principal.c.id == request.c.actor_id
    )
    if actor_id:
        query = query.where(request.c.actor_id == actor_id)
    if before:
        query = query.where(request.c.id < before)
    rows = (await conn.execute(query.order_by(request.c.id.desc()).limit(limit))).all()
    flow_runs = await _flow_runs(conn, [row.id for row in rows])
    return [
        RunView(
            id=row.id,
            automation=row.automation,
            state=row.state,
            origin=row.origin,
            actor=row.actor or "-",
            reason=row.reason,
            flow_run_id=flow_runs.get(row.id),
            created_at=row.created_at,
            ended_at=row.ended_at,
        )
        for row in rows
    ]


async def _flow_runs(conn: AsyncConnection, requests: list[str]) -> dict[str, str]:
    table, batch = schema.run, schema.batch
    query = (
        sa.select(
            table.c.request_id,
            sa.func.coalesce(table.c.flow_run_id, batch.c.flow_run_id).label("flow_run_id"),
        )
        .outerjoin(batch, batch.c.id == table.c.batch_id)
        .where(table.c.request_id.in_(requests))
        .order_by(table.c.created_at)
    )
    return {row.request_id: row.flow_run_id for row in (await conn.execute(query)).all() if row.flow_run_id}


async def history(
    conn: AsyncConnection, keyring: Keyring, account: str, conversation: str, limit: int
) -> list[dict[str, Any]]:
    """The last things said in a conversation, oldest first."""
    here = sa.and_(schema.conversation.c.account == account, schema.conversation.c.native_id == conversation)
    said = await _said(conn, keyring, here, limit)
    answered = await _answered(conn, keyring, here, limit)
    return sorted(said + answered, key=lambda one: one["at"])[-limit:]


def _newest(table: sa.Table, at: sa.Column[Any], here: sa.ColumnElement[bool], limit: int) -> sa.Select[Any]:
    """The newest rows of all threads of a conversation: the newest of each, so that none is read as a whole."""
    place = schema.conversation
    of_thread = table.alias("of_thread")
    newest = (
        sa.select(of_thread.c.id)
        .where(of_thread.c.conversation_id == place.c.id)
        .order_by(of_thread.c[at.name].desc())
        .limit(limit)
        .correlate(place)
    )
    return (
        sa.select(table)
        .select_from(place)
        .join(table, table.c.id.in_(newest))
        .where(here)
        .order_by(at.desc())
        .limit(limit)
    )


async def _said(
    conn: AsyncConnection, keyring: Keyring, here: sa.ColumnElement[bool], limit: int
) -> list[dict[str, Any]]:
    table = schema.message
    rows = []
    for row in (await conn.execute(_newest(table, table.c.received_at, here, limit))).all():
        if row.event_sealed is None:
            continue
        event = json.loads(keyring.open("message", "event_sealed", row.id, row.event_sealed))
        text = event.get("text") or event.get("value") or ""
        rows.append({"who": "me", "id": row.id, "text": text, "at": row.received_at.isoformat()})
    return rows


async def _answered(
    conn: AsyncConnection, keyring: Keyring, here: sa.ColumnElement[bool], limit: int
) -> list[dict[str, Any]]:
    table = schema.delivery
    return [
        {
            "who": "parley",
            "id": row.id,
            "message_id": row.message_id,
            "reply": _opened(keyring, row),
            "at": row.created_at.isoformat(),
        }
        for row in (await conn.execute(_newest(table, table.c.created_at, here, limit))).all()
    ]
