"""Retention: what was said is erased after its time, and later that it was said.

First a body goes (`erase_after`), then the key by which a late redelivery is recognised (`forget_after`), and with it
every row that hangs on the message. What still waits for something (to be handled, run, answered or delivered) stays
whole. Times of a message and its deliveries and files stand in their rows; what has no message goes by `Kept`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.store.engine import Store
from parley.store.schema import (
    approval,
    batch,
    dead_letter,
    delivery,
    event,
    file,
    message,
    question,
    request,
    run,
    thread_link,
    token,
    vote,
)

OPEN_REQUESTS = ("needs-input", "awaiting-approval", "queued", "running")
UNDELIVERED = ("pending", "sending")
_ENDED = request.c.state.not_in(OPEN_REQUESTS)
_AT_WORK = sa.exists().where(request.c.message_id == message.c.id, ~_ENDED)

BATCH = 25
"""Rows of each kind that one write takes at first."""

LEAST_BATCH, MOST_BATCH = 5, 50

AIM = 0.01
"""Seconds that one write should take: whoever writes meanwhile waits so long. Batches shrink and grow to it."""

REST = 2.0
"""After each write the others have the store to themselves for so many times as long as it took."""

LEAST_REST = 0.005
"""Seconds of it at the least."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """How long what has no time of its own is kept: requests and deliveries without a message, events, tokens."""

    bodies: timedelta = timedelta(days=30)
    keys: timedelta = timedelta(days=180)
    events: timedelta = timedelta(days=7)
    tokens: timedelta = timedelta(days=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Erased:
    """What one batch took away. `more`: at least one kind filled its batch, so there may be more of it."""

    bodies: int = 0
    files: int = 0
    messages: int = 0
    requests: int = 0
    deliveries: int = 0
    events: int = 0
    tokens: int = 0
    links: int = 0
    letters: int = 0
    batches: int = 0
    more: bool = False

    def __add__(self, other: Erased) -> Erased:
        return Erased(
            bodies=self.bodies + other.bodies,
            files=self.files + other.files,
            messages=self.messages + other.messages,
            requests=self.requests + other.requests,
            deliveries=self.deliveries + other.deliveries,
            events=self.events + other.events,
            tokens=self.tokens + other.tokens,
            links=self.links + other.links,
            letters=self.letters + other.letters,
            batches=self.batches + other.batches,
            more=other.more,
        )


async def sweep(store: Store, now: datetime, kept: Kept = Kept()) -> Erased:
    """Everything that is due, in many small writes between which others get their turn.

    Nobody waits for the cleaning, and everybody for a commit: a million rows take half an hour rather than all of the
    disk for three minutes.
    """
    total, limit = Erased(more=True), BATCH
    while True:
        began = time.monotonic()
        total += await store.write(partial(erase_expired, now=now, kept=kept, limit=limit))
        if not total.more:
            return total
        took = time.monotonic() - began
        limit = fitting(limit, took)
        await asyncio.sleep(max(LEAST_REST, REST * took))


def fitting(limit: int, took: float) -> int:
    """The size of the next batch, when one of `limit` rows took so many seconds: at most twice or half of it."""
    wanted = limit * min(2.0, max(0.5, AIM / max(took, 0.001)))
    return min(MOST_BATCH, max(LEAST_BATCH, round(wanted)))


async def erase_expired(
    conn: AsyncConnection, now: datetime, kept: Kept = Kept(), *, limit: int = BATCH
) -> Erased:
    """One batch of what is due at `now`, within a write."""
    bodies = [
        await _erase_messages(conn, now, limit),
        await _erase_requests(conn, now - kept.bodies, limit),
        await _erase_deliveries(conn, now, limit),
    ]
    counts = {
        "messages": await _forget_messages(conn, now, limit),
        "requests": await _forget_requests(conn, now - kept.keys, limit),
        "deliveries": await _forget_deliveries(conn, now - kept.keys, limit),
        "files": await _delete_files(conn, now, limit),
        "events": await _delete_events(conn, now - kept.events, limit),
        "tokens": await _delete_tokens(conn, now - kept.tokens, limit),
        "links": await _delete_links(conn, now - kept.keys, limit),
        "letters": await _delete_letters(conn, now - kept.keys, limit),
        "batches": await _delete_batches(conn, now - kept.keys, limit),
    }
    more = any(count >= limit for count in (*counts.values(), *bodies))
    return Erased(**counts, bodies=sum(bodies), more=more)


async def _erase_messages(conn: AsyncConnection, now: datetime, limit: int) -> int:
    """What was said, with the parameters and answers that repeat it."""
    due = sa.select(message.c.id).where(
        message.c.event_sealed.is_not(None),
        message.c.erase_after <= now,
        message.c.state != "received",
        ~_AT_WORK,
    )
    ids = await _ids(conn, due.limit(limit))
    if ids:
        requests = await _ids(conn, sa.select(request.c.id).where(request.c.message_id.in_(ids)))
        await _clear(conn, message.c.event_sealed, message.c.id.in_(ids))
        await _erase_asked(conn, requests)
    return len(ids)


async def _erase_requests(conn: AsyncConnection, cutoff: datetime, limit: int) -> int:
    due = sa.select(request.c.id).where(
        request.c.parameters_sealed.is_not(None),
        request.c.message_id.is_(None),
        request.c.created_at <= cutoff,
        _ENDED,
    )
    ids = await _ids(conn, due.limit(limit))
    await _erase_asked(conn, ids)
    return len(ids)


async def _erase_asked(conn: AsyncConnection, requests: Sequence[str]) -> None:
    if not requests:
        return
    runs = sa.select(run.c.id).where(run.c.request_id.in_(requests))
    await _clear(conn, request.c.parameters_sealed, request.c.id.in_(requests))
    await _clear(conn, question.c.answer_sealed, question.c.run_id.in_(runs))


async def _erase_deliveries(conn: AsyncConnection, now: datetime, limit: int) -> int:
    due = sa.select(delivery.c.id).where(
        delivery.c.body_sealed.is_not(None),
        delivery.c.erase_after <= now,
        delivery.c.state.not_in(UNDELIVERED),
    )
    ids = await _ids(conn, due.limit(limit))
    if ids:
        await _clear(conn, delivery.c.body_sealed, delivery.c.id.in_(ids))
    return len(ids)


async def _forget_messages(conn: AsyncConnection, now: datetime, limit: int) -> int:
    unsent = sa.exists().where(delivery.c.message_id == message.c.id, delivery.c.state.in_(UNDELIVERED))
    due = sa.select(message.c.id).where(
        message.c.forget_after <= now, message.c.state != "received", ~_AT_WORK, ~unsent
    )
    ids = await _ids(conn, due.limit(limit))
    if ids:
        requests = await _ids(conn, sa.select(request.c.id).where(request.c.message_id.in_(ids)))
        await _forget(conn, ids, requests)
    return len(ids)


async def _forget_requests(conn: AsyncConnection, cutoff: datetime, limit: int) -> int:
    """Those without a message: from a schedule, from Prefect."""
    due = sa.select(request.c.id).where(
        request.c.message_id.is_(None), request.c.created_at <= cutoff, _ENDED
    )
    ids = await _ids(conn, due.limit(limit))
    if ids:
        await _forget(conn, [], ids)
    return len(ids)


async def _forget_deliveries(conn: AsyncConnection, cutoff: datetime, limit: int) -> int:
    """Those that answered no message: alerts, reports of schedules."""
    due = sa.select(delivery.c.id).where(
        delivery.c.message_id.is_(None), delivery.c.created_at <= cutoff, delivery.c.state.not_in(UNDELIVERED)
    )
    ids = await _ids(conn, due.limit(limit))
    if ids:
        await conn.execute(sa.delete(file).where(file.c.delivery_id.in_(ids)))
        await conn.execute(sa.delete(delivery).where(delivery.c.id.in_(ids)))
    return len(ids)


async def _delete_files(conn: AsyncConnection, now: datetime, limit: int) -> int:
    unsent = sa.exists().where(delivery.c.id == file.c.delivery_id, delivery.c.state.in_(UNDELIVERED))
    unread = sa.exists().where(message.c.id == file.c.message_id, message.c.state == "received")
    ids = await _ids(
        conn, sa.select(file.c.id).where(file.c.erase_after <= now, ~unsent, ~unread).limit(limit)
    )
    if ids:
        await conn.execute(sa.delete(file).where(file.c.id.in_(ids)))
    return len(ids)


async def _delete_events(conn: AsyncConnection, cutoff: datetime, limit: int) -> int:
    """The oldest are the first: looking at no more than a batch of them needs no index on their time."""
    oldest = (
        sa.select(event.c.sequence, event.c.created_at).order_by(event.c.sequence).limit(limit).subquery()
    )
    due = sa.select(oldest.c.sequence).where(oldest.c.created_at <= cutoff)
    numbers = list((await conn.execute(due)).scalars())
    if numbers:
        await conn.execute(sa.delete(event).where(event.c.sequence.in_(numbers)))
    return len(numbers)


async def _delete_tokens(conn: AsyncConnection, cutoff: datetime, limit: int) -> int:
    dead = sa.or_(token.c.expires_at <= cutoff, token.c.revoked_at <= cutoff)
    ids = await _ids(conn, sa.select(token.c.id).where(dead).limit(limit))
    if ids:
        await conn.execute(sa.delete(token).where(token.c.id.in_(ids)))
    return len(ids)


async def _delete_links(conn: AsyncConnection, cutoff: datetime, limit: int) -> int:
    """Threads in which nothing was said for so long: what comes about their key makes a new one."""
    ids = await _ids(conn, sa.select(thread_link.c.id).where(thread_link.c.used_at <= cutoff).limit(limit))
    if ids:
        await conn.execute(sa.delete(thread_link).where(thread_link.c.id.in_(ids)))
    return len(ids)


async def _delete_letters(conn: AsyncConnection, cutoff: datetime, limit: int) -> int:
    """Dead letters, open ones too: what they are about has been forgotten by then."""
    due = sa.select(dead_letter.c.id).where(dead_letter.c.created_at <= cutoff)
    ids = await _ids(conn, due.limit(limit))
    if ids:
        await conn.execute(sa.delete(dead_letter).where(dead_letter.c.id.in_(ids)))
    return len(ids)


async def _delete_batches(conn: AsyncConnection, cutoff: datetime, limit: int) -> int:
    """Batches, once all of their runs are forgotten."""
    theirs = sa.exists().where(run.c.batch_id == batch.c.id)
    due = sa.select(batch.c.id).where(batch.c.state == "closed", batch.c.created_at <= cutoff, ~theirs)
    ids = await _ids(conn, due.limit(limit))
    if ids:
        await conn.execute(sa.delete(batch).where(batch.c.id.in_(ids)))
    return len(ids)


async def _forget(conn: AsyncConnection, messages: Sequence[str], requests: Sequence[str]) -> None:
    """Delete these and all that hangs on them, the outermost rows first."""
    runs = await _ids(conn, sa.select(run.c.id).where(run.c.request_id.in_(requests)))
    sources = [
        *(f"message:{one}" for one in messages),
        *(f"request:{one}" for one in requests),
        *(f"run:{one}" for one in runs),
    ]
    theirs = sa.or_(delivery.c.message_id.in_(messages), delivery.c.source.in_(sources))
    deliveries = await _ids(conn, sa.select(delivery.c.id).where(theirs))
    approvals = await _ids(conn, sa.select(approval.c.id).where(approval.c.request_id.in_(requests)))
    for table, condition in (
        (file, sa.or_(file.c.delivery_id.in_(deliveries), file.c.message_id.in_(messages))),
        (delivery, delivery.c.id.in_(deliveries)),
        (question, question.c.run_id.in_(runs)),
        (run, run.c.id.in_(runs)),
        (vote, vote.c.approval_id.in_(approvals)),
        (approval, approval.c.id.in_(approvals)),
        (request, request.c.id.in_(requests)),
        (message, message.c.id.in_(messages)),
    ):
        await conn.execute(sa.delete(table).where(condition))


async def _clear(conn: AsyncConnection, column: sa.Column[bytes], condition: sa.ColumnElement[bool]) -> None:
    await conn.execute(sa.update(column.table).where(condition, column.is_not(None)).values({column: None}))


async def _ids(conn: AsyncConnection, query: sa.Select[tuple[str]]) -> list[str]:
    return list((await conn.execute(query)).scalars())
