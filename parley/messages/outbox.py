"""The outbox: answers wait here until the process that holds their account has delivered them.

An answer is written in the transaction that makes it true, then sent at once, in order within its conversation. What
happens to a failed send depends on what is known of it: not sent -> again, later; perhaps sent -> again only where
the platform removes duplicates (or can be asked), else ambiguous, and people are told.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import (
    AuthError,
    ConnectorError,
    LinkError,
    RateLimited,
    Rejected,
    Unknown,
    Unreachable,
    Unsupported,
)
from parley.link.calls import DeliverCall
from parley.messages.inbox import conversation_id, insert_new
from parley.messages.model import Capabilities, Receipt, Reply, Route, now
from parley.messages.rendering import render_down
from parley.people.sealing import Keyring
from parley.settings import Retention
from parley.store import schema
from parley.store.engine import Store
from parley.store.ids import new_id

logger = logging.getLogger(__name__)

MOST_ATTEMPTS = 30
AT_ONCE = 8
"""Conversations of one account that are delivered to at the same time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One reply to one place; already rendered down. `doubt`: an earlier attempt may have arrived."""

    id: str
    source: str
    ordinal: int
    message_id: str | None
    conversation_id: str
    reply: Reply
    route: Route
    token: str
    attempts: int = 0
    doubt: bool = False


class Holder(Protocol):
    """The process, or the part of this one, that holds an account's connection."""

    async def deliver(self, call: DeliverCall) -> Receipt:
        """Send; raises the connector's error, or `LinkError` when nobody holds the account."""


class Outbox:
    """Writes deliveries within a transaction, and sends them after it."""

    def __init__(
        self,
        store: Store,
        keyring: Keyring,
        retention: Retention,
        *,
        holder_of: Callable[[str], Holder | None],
        capabilities_of: Callable[[str], Capabilities],
        changed: Callable[[Delivery, str], Awaitable[None]],
    ) -> None:
        self._store = store
        self._keyring = keyring
        self._retention = retention
        self._holder_of = holder_of
        self._capabilities_of = capabilities_of
        self._changed = changed
        self._waiting: dict[str, list[Delivery]] = defaultdict(list)
        self._busy: set[str] = set()
        self._room: dict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(AT_ONCE))
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def waiting(self) -> int:
        """How many deliveries wait to be sent."""
        return sum(len(queue) for queue in self._waiting.values())

    # -- writing

    async def write(
        self,
        conn: AsyncConnection,
        source: str,
        replies: Iterable[Reply],
        route: Route,
        *,
        message_id: str | None = None,
        first: int = 0,
    ) -> list[Delivery]:
        """Insert deliveries for these replies; call `send` with them once the transaction is committed.

        (source, ordinal) is unique: a second write of the same inserts nothing and returns nothing.
        """
        can = self._capabilities_of(route.account)
        parts = [part for reply in replies for part in render_down(reply, can) if not part.is_empty()]
        conversation = await conversation_id(conn, route)
        made = [
            self._make(source, first + n, part, route, message_id, conversation)
            for n, part in enumerate(parts)
        ]
        return [one for one in made if await self._insert(conn, one)]

    async def _insert(self, conn: AsyncConnection, one: Delivery) -> bool:
        at = now()
        values = {
            "id": one.id,
            "source": one.source,
            "ordinal": one.ordinal,
            "account": one.route.account,
            "conversation_id": one.conversation_id,
            "message_id": one.message_id,
            "route": one.route.model_dump(mode="json"),
            "body_sealed": self._keyring.seal(
                "delivery", "body_sealed", one.id, one.reply.model_dump_json().encode()
            ),
            "token": one.token,
            "state": "pending",
            "attempts": 0,
            "next_attempt_at": at,
            "created_at": at,
            "erase_after": at + timedelta(days=self._retention.bodies_days),
        }
        return bool(
            (await conn.execute(insert_new(conn, schema.delivery, values, ("source", "ordinal")))).rowcount
        )

    @staticmethod
    def _make(
        source: str, ordinal: int, reply: Reply, route: Route, message_id: str | None, conversation: str
    ) -> Delivery:
        identity = new_id()
        return Delivery(
            id=identity,
            source=source,
            ordinal=ordinal,
            message_id=message_id,
            conversation_id=conversation,
            reply=reply,
            route=route,
            token=identity,
        )

    # -- sending

    def send(self, deliveries: Iterable[Delivery]) -> None:
        """Send these as soon as their conversation is free; returns at once."""
        for one in deliveries:
            self._waiting[one.conversation_id].append(one)
            self._work_on(one.conversation_id)

    async def resume(self) -> None:
        """Take up what an earlier hub left: pending ones, and those whose sending was interrupted."""
        for row in await self._store.read(_left):
            self._take_up(row)

    async def account_is_back(self, account: str) -> None:
        """An account has a holder again: what waits for it goes out now."""

        async def due(conn: AsyncConnection) -> Sequence[Any]:
            table = schema.delivery
            query = (
                sa.select(table)
                .where(table.c.state == "pending", table.c.account == account)
                .order_by(table.c.created_at, table.c.ordinal)
            )
            return (await conn.execute(query.limit(1000))).all()

        for row in await self._store.read(due):
            self._take_up(row)

    def opened(self, row: Any) -> Delivery:
        """A row of the table with its reply opened."""
        body = self._keyring.open("delivery", "body_sealed", row.id, row.body_sealed)
        return Delivery(
            id=row.id,
            source=row.source,
            ordinal=row.ordinal,
            message_id=row.message_id,
            conversation_id=row.conversation_id,
            reply=Reply.model_validate_json(body),
            route=Route.model_validate(row.route),
            token=row.token,
            attempts=row.attempts,
            doubt=row.state == "sending",
        )

    def _take_up(self, row: Any) -> None:
        queue = self._waiting[row.conversation_id]
        if row.body_sealed is None or any(one.id == row.id for one in queue):
            return
        self.send([self.opened(row)])

    def _work_on(self, conversation: str) -> None:
        if conversation in self._busy:
            return
        self._busy.add(conversation)
        task = asyncio.create_task(self._drain(conversation))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _drain(self, conversation: str) -> None:
        try:
            while self._waiting[conversation]:
                one = self._waiting[conversation][0]
                async with self._room[one.route.account]:
                    wait = await self._attempt(one)
                if wait is None:
                    self._waiting[conversation].pop(0)
                else:
                    await asyncio.sleep(wait)
        finally:
            self._busy.discard(conversation)
            if not self._waiting[conversation]:
                del self._waiting[conversation]

    async def _attempt(self, one: Delivery) -> float | None:
        """One attempt; returns how long to wait before the next, None when it is settled."""
        holder = self._holder_of(one.route.account)
        if holder is None:
            return self._back_off(one, floor=1.0)
        await self._mark_sending(one)
        call = DeliverCall(
            delivery_id=one.id,
            account=one.route.account,
            reply=one.reply,
            route=one.route,
            token=one.token,
            again=one.doubt,
        )
        try:
            receipt = await holder.deliver(call)
        except RateLimited as error:
            return await self._again(one, str(error), max(error.retry_after, 0.05))
        except (Unreachable, AuthError) as error:
            return await self._again(one, str(error), self._back_off(one))
        except (Rejected, Unsupported) as error:
            await self._settle(one, "dead", reason=str(error))
        except (Unknown, LinkError, TimeoutError) as error:
            return await self._perhaps_sent(one, str(error))
        except ConnectorError as error:
            await self._settle(one, "dead", reason=str(error))
        else:
            await self._settle(one, "sent", receipt=receipt)
        return None

    async def _perhaps_sent(self, one: Delivery, reason: str) -> float | None:
        # A platform that removes duplicates may be sent it again; any other is asked once whether it is there (the
        # holder does so for a call with `again`), and if that cannot be told either, a person must look.
        if self._capabilities_of(one.route.account).idempotent_send or not one.doubt:
            return await self._again(one, reason, self._back_off(one), doubt=True)
        await self._settle(one, "ambiguous", reason=reason)
        return None

    async def _again(self, one: Delivery, reason: str, wait: float, *, doubt: bool = False) -> float | None:
        if one.attempts + 1 >= MOST_ATTEMPTS:
            await self._settle(one, "dead", reason=f"given up after {one.attempts + 1} attempts: {reason}")
            return None
        queue = self._waiting[one.conversation_id]
        queue[0] = replace(one, attempts=one.attempts + 1, doubt=doubt or one.doubt)
        state = "sending" if queue[0].doubt else "pending"
        await self._update(
            one,
            state=state,
            attempts=one.attempts + 1,
            reason=reason,
            next_attempt_at=now() + timedelta(seconds=wait),
        )
        return wait

    @staticmethod
    def _back_off(one: Delivery, floor: float = 0.5) -> float:
        return min(60.0, floor * 2.0 ** min(one.attempts, 10)) * random.uniform(0.5, 1.0)

    async def _mark_sending(self, one: Delivery) -> None:
        # The console is in this process: what it shows, and what is stored, cannot differ after a crash in a way that
        # matters, so the extra commit is spared.
        if not self._capabilities_of(one.route.account).idempotent_send:
            await self._update(one, state="sending")

    async def _settle(
        self, one: Delivery, state: str, *, reason: str | None = None, receipt: Receipt | None = None
    ) -> None:
        sent_at: datetime | None = receipt.sent_at if receipt else None
        stored = receipt.model_dump(mode="json") if receipt else None
        await self._update(one, state=state, reason=reason, receipt=stored, sent_at=sent_at)
        if state != "sent":
            logger.warning("delivery %s to %s is %s: %s", one.id, one.route.account, state, reason)
        await self._changed(one, state)

    async def _update(self, one: Delivery, **values: Any) -> None:
        async def update(conn: AsyncConnection) -> None:
            await conn.execute(
                sa.update(schema.delivery).where(schema.delivery.c.id == one.id).values(values)
            )

        await self._store.write(update)

    async def aclose(self) -> None:
        """Stop sending; what is not sent stays stored."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _left(conn: AsyncConnection) -> Sequence[Any]:
    table = schema.delivery
    # `sending` when a hub died: it may have arrived, so it is taken up in doubt.
    states = table.c.state.in_(("pending", "sending"))
    return (
        await conn.execute(sa.select(table).where(states).order_by(table.c.created_at, table.c.ordinal))
    ).all()
