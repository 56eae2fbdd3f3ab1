"""The outbox: answers wait here until the process that holds their account has delivered them.

An answer is written in the transaction that makes it true, then sent at once, in order within its conversation. What
happens to a failed send depends on what is known of it: not sent -> again, later; perhaps sent -> again only where
the platform removes duplicates (or can be asked), else ambiguous, and people are told. What was not sent is tried
again for a day, and at once when its account comes back.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

import sqlalchemy as sa
from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import (
    AuthError,
    ConnectorError,
    LinkError,
    RateLimited,
    SealError,
    StoreUnavailable,
    Unknown,
    Unreachable,
)
from parley.failpoints import failpoint
from parley.link.calls import DeliverCall
from parley.link.connection import Disconnected
from parley.messages import kept_routes, thread_links
from parley.messages.inbox import conversation_id
from parley.messages.model import Capabilities, Receipt, Reply, Route, now
from parley.messages.rendering import render_down
from parley.messages.waiting_list import IN_STORE, WaitingList
from parley.people.sealing import Keyring
from parley.settings import Retention
from parley.store import schema
from parley.store.engine import Store
from parley.store.ids import new_id
from parley.store.insert_new import insert_new

logger = logging.getLogger(__name__)

TRIED_FOR = timedelta(days=1)
"""How long a delivery is tried again; later nobody waits for the answer any more."""

AT_ONCE = 8
"""Conversations of one account that are delivered to at the same time."""

MOST_DEATHS = 20
"""Attempts within which the death of a holder is taken to have nothing to do with what it was to deliver.

The first in line meets every death of a bad hour: with 8 it was given up after twelve that had nothing to do with it.
"""

LOOK_AGAIN = 5.0
"""Seconds after which an account without a holder is looked at again, in case nobody said that it is back."""


def back_off(attempts: int) -> float:
    """Seconds before the next attempt: doubling, at most a minute, with jitter so that not all come back at once."""
    return min(60.0, 0.5 * 2.0 ** min(attempts, 10)) * random.uniform(0.5, 1.0)  # noqa: S311 - no secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One reply to one place; already rendered down. `doubt`: an earlier attempt may have arrived.

    While it waits, `reply` may be empty: a large one is kept in the store alone. `waits_since`: in this hub.
    `under_id`: the delivery in whose thread it is shown; `edit_of_id`: the one that it replaces in place.
    """

    id: str
    source: str
    ordinal: int
    message_id: str | None
    conversation_id: str
    reply: Reply
    route: Route
    token: str
    created_at: datetime = field(default_factory=now)
    attempts: int = 0
    doubt: bool = False
    under_id: str | None = None
    edit_of_id: str | None = None
    waits_since: datetime = field(default_factory=now)


_UNSETTLED = sa.and_(
    schema.delivery.c.state.in_(("pending", "sending")), schema.delivery.c.body_sealed.is_not(None)
)
"""`sending` when a hub died: it may have arrived, so it is taken up in doubt."""


@dataclass(frozen=True, slots=True)
class _Wait:
    """Before the next attempt. `account`: the platform cannot be reached now; once it can, waiting is pointless."""

    seconds: float
    account: bool = False


class Holder(Protocol):
    """The process, or the part of this one, that holds an account's connection."""

    async def deliver(self, call: DeliverCall) -> Receipt:
        """Send; raises the connector's error, or `LinkError` when nobody holds the account."""


MOST_UNREADABLE: Final = 10_000
"""Deliveries that cannot be opened, of those that are passed over in a look: a statement has so many parameters."""


class Outbox:
    """Writes deliveries within a transaction, and sends them after it.

    `undelivered` writes, in the transaction that gives a delivery up, what the people on duty are told of it.
    """

    def __init__(
        self,
        store: Store,
        keyring: Keyring,
        retention: Retention,
        *,
        holder_of: Callable[[str], Holder | None],
        capabilities_of: Callable[[str], Capabilities],
        changed: Callable[[Delivery, str], Awaitable[None]],
        undelivered: Callable[[AsyncConnection, Delivery, str, str], Awaitable[list[Delivery]]] | None = None,
        back_off: Callable[[int], float] = back_off,
        waiting: WaitingList | None = None,
    ) -> None:
        self._store = store
        self._keyring = keyring
        self.retention = retention
        self._holder_of = holder_of
        self._capabilities_of = capabilities_of
        self._changed = changed
        self._undelivered = undelivered
        self._back_off = back_off
        self._waiting = WaitingList() if waiting is None else waiting
        self._unreadable: set[str] = set()
        self._busy: set[str] = set()
        self._since = now()
        self._room: dict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(AT_ONCE))
        self._back: dict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._looking: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def waiting(self) -> int:
        """How many deliveries wait to be sent."""
        return len(self._waiting)

    @property
    def oldest(self) -> float:
        """Seconds that the oldest delivery has waited to be sent; 0 where none waits."""
        written = self._waiting.oldest
        return max(0.0, (now() - written).total_seconds()) if written else 0.0

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
        under_id: str | None = None,
        edit_of_id: str | None = None,
        most: int | None = None,
    ) -> list[Delivery]:
        """Insert deliveries for these replies; call `send` with them once the transaction is committed.

        (source, ordinal) is unique: a second write of the same inserts nothing and returns nothing. `under_id` and
        `edit_of_id` are deliveries of the same account and conversation: the native ids come from their receipts, and
        until they have arrived these wait. What stands under one that died is sent plainly; its edit is dropped.
        Of more than `most` parts the rest is left out.
        """
        can = self._capabilities_of(route.account)
        parts = [part for reply in replies for part in render_down(reply, can) if not part.is_empty()][:most]
        conversation = await conversation_id(conn, route)
        made = [
            replace(
                self._make(source, first + n, part, route, message_id, conversation),
                under_id=under_id,
                edit_of_id=edit_of_id,
            )
            for n, part in enumerate(parts)
        ]
        return [one for one in made if await self._insert(conn, one)]

    async def write_again(self, conn: AsyncConnection, delivery_id: str, source: str) -> Delivery | None:
        """A new delivery of the same reply, to the same place under the same token; None when that was erased.

        For one that was given up or may not have arrived, when a person says so. A platform that removes duplicates
        still knows the token, for as long as it keeps it. Raises `SealError`.
        """
        table = schema.delivery
        query = sa.select(table).where(table.c.id == delivery_id, table.c.state.in_(("dead", "ambiguous")))
        row = (await conn.execute(query)).first()
        if row is None or row.body_sealed is None:
            return None
        at = now()
        one = replace(
            self.opened(row),
            id=new_id(),
            source=source,
            ordinal=0,
            attempts=0,
            created_at=at,
            waits_since=at,
        )
        return one if await self._insert(conn, one) else None

    async def _insert(self, conn: AsyncConnection, one: Delivery) -> bool:
        at = now()
        values = {
            "id": one.id,
            "source": one.source,
            "ordinal": one.ordinal,
            "account": one.route.account,
            "conversation_id": one.conversation_id,
            "message_id": one.message_id,
            "route": kept_routes.kept(self._keyring, "delivery", one.id, one.route),
            "body_sealed": self._keyring.seal(
                "delivery", "body_sealed", one.id, one.reply.model_dump_json().encode()
            ),
            "token": one.token,
            "state": "pending",
            "attempts": 0,
            "under_id": one.under_id,
            "edit_of_id": one.edit_of_id,
            "next_attempt_at": at,
            "created_at": one.created_at,
            "erase_after": at + timedelta(days=self.retention.bodies_days),
        }
        done = await conn.execute(insert_new(schema.delivery, ("source", "ordinal")), values)
        return bool(done.rowcount)

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
        """Send these as soon as their conversation is free; returns at once. One that waits already stays as it is."""
        for one in deliveries:
            if self._closed:
                return  # what is stored is taken up by the next hub
            if self._waiting.add(one):
                self._work_on(one.conversation_id)

    async def resume(self) -> None:
        """Take up what an earlier hub left: pending ones, and those whose sending was interrupted."""
        table = schema.delivery
        query = sa.select(table.c.account).where(_UNSETTLED).distinct()

        async def find(conn: AsyncConnection) -> Sequence[str]:
            return (await conn.execute(query)).scalars().all()

        for account in await self._store.read(find):
            await self._take_up(account)

    async def account_is_back(self, account: str) -> None:
        """An account has a holder again: what waits for it goes out now."""
        if back := self._back.pop(account, None):
            back.set()
        await self._take_up(account)

    async def _take_up(self, account: str) -> None:
        """Work on its conversations that have something in the store. What cannot be read now is read later."""
        try:
            await self._look(account)
            while self._waiting.is_forgotten(account):
                await self._look(account)  # for what was written during the last look
        except StoreUnavailable as error:
            logger.warning("what waits for %s is read later: %s", account, error)
            self._begin(self._take_up_later(account))

    async def _look(self, account: str) -> None:
        """Its conversations that have waited longest. Raises `StoreUnavailable`."""
        table = schema.delivery
        count = sa.func.count()
        readable = table.c.id.not_in(sorted(self._unreadable)[:MOST_UNREADABLE])
        here = sa.and_(table.c.account == account, _UNSETTLED, readable)
        query = (
            sa.select(table.c.conversation_id, count)
            .where(here)
            .group_by(table.c.conversation_id)
            .order_by(sa.func.min(table.c.created_at), table.c.conversation_id)
        )
        async with self._looking[account]:
            left_out = before = self._waiting.begin_look(account)
            limited = query.limit(self._waiting.wanted(account))

            async def find(conn: AsyncConnection) -> tuple[Sequence[Any], int]:
                total = (await conn.execute(sa.select(count).where(here))).scalar_one()
                return (await conn.execute(limited)).all(), total

            try:
                rows, left_out = await self._store.read(find)
                for conversation, waiting in rows:
                    if self._waiting.found(account, conversation, waiting):
                        left_out -= waiting
                        self._work_on(conversation)
            finally:
                self._waiting.end_look(account, before, left_out)

    async def _take_up_later(self, account: str) -> None:
        failures = 0
        while True:
            await asyncio.sleep(self._back_off(failures))
            try:
                await self._look(account)
                if not self._waiting.is_forgotten(account):
                    return
                failures = 0
            except StoreUnavailable as error:
                logger.warning("what waits for %s is still not read: %s", account, error)
                failures += 1

    async def _read_next(self, conversation: str) -> None:
        """The next deliveries of a conversation that has none here, in their order. Raises `StoreUnavailable`."""
        # Without their bodies, which may hold files of megabytes, and may wait for a day.
        columns = [column for column in schema.delivery.c if column.name != "body_sealed"]
        table, most = schema.delivery, self._waiting.most_of_one + len(self._unreadable)
        query = (
            sa.select(*columns)
            .where(table.c.conversation_id == conversation, _UNSETTLED)
            .order_by(table.c.created_at, table.c.ordinal)
            .limit(most)
        )

        async def find(conn: AsyncConnection) -> Sequence[Any]:
            return (await conn.execute(query)).all()

        left = before = self._waiting.begin_page(conversation)
        try:
            rows = await self._store.read(find)
            for row in rows:
                if row.id in self._unreadable:
                    continue
                try:
                    self._waiting.add_read(self._taken_up(row, IN_STORE))
                except (SealError, ValidationError) as error:
                    self._cannot_open(row.id, error)
            left = max(before - len(rows), 1) if len(rows) == most else 0
        finally:
            self._waiting.end_page(conversation, before, left)

    @property
    def unreadable(self) -> frozenset[str]:
        """Deliveries that wait and do not open; they hold up no others."""
        return frozenset(self._unreadable)

    def settled_unreadable(self, delivery_id: str) -> None:
        """Somebody has dealt with it: it waits no more."""
        self._unreadable.discard(delivery_id)

    def _cannot_open(self, delivery_id: str, error: Exception) -> None:
        self._unreadable.add(delivery_id)
        logger.error("delivery %s cannot be opened and stays where it is: %s", delivery_id, error)

    async def _row(self, delivery_id: str, *columns: sa.Column[Any]) -> Any:
        query = sa.select(*columns).where(schema.delivery.c.id == delivery_id)

        async def fetch(conn: AsyncConnection) -> Any:
            return (await conn.execute(query)).one()

        return await self._store.read(fetch)

    async def _reply_of(self, one: Delivery) -> Reply | None:
        """Its reply, from the store if need be; None when that cannot be opened."""
        if one.reply is not IN_STORE:
            return one.reply
        table = schema.delivery
        row = await self._row(one.id, table.c.id, table.c.body_sealed)
        try:
            return self._reply(row)
        except (SealError, ValidationError) as error:
            self._cannot_open(one.id, error)
            return None

    def opened(self, row: Any) -> Delivery:
        """A row of the table with its reply opened."""
        return self._taken_up(row, self._reply(row))

    def _reply(self, row: Any) -> Reply:
        body = self._keyring.open("delivery", "body_sealed", row.id, row.body_sealed)
        return Reply.model_validate_json(body)

    def _taken_up(self, row: Any, reply: Reply) -> Delivery:
        return Delivery(
            id=row.id,
            source=row.source,
            ordinal=row.ordinal,
            message_id=row.message_id,
            conversation_id=row.conversation_id,
            reply=reply,
            route=kept_routes.opened(self._keyring, "delivery", row.id, row.route),
            token=row.token,
            created_at=row.created_at,
            attempts=row.attempts,
            doubt=row.state == "sending",
            under_id=row.under_id,
            edit_of_id=row.edit_of_id,
            waits_since=max(row.created_at, self._since),
        )

    def _work_on(self, conversation: str) -> None:
        if conversation not in self._busy:
            self._busy.add(conversation)
            self._begin(self._drain(conversation))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _drain(self, conversation: str) -> None:
        try:
            while one := await self._next(conversation):
                # Taken before the attempt: an account that comes back during it must not be missed.
                back = self._back[one.route.account]
                async with self._room[one.route.account]:
                    wait = await self._attempt(one)
                if wait is None:
                    self._waiting.remove_first(conversation)
                elif wait.account:
                    await _set_within(back, wait.seconds)
                else:
                    await asyncio.sleep(wait.seconds)
            if (account := self._waiting.leave(conversation)) and not self._closed:
                self._begin(self._take_up(account))
        finally:
            self._busy.discard(conversation)

    async def _next(self, conversation: str) -> Delivery | None:
        failures = 0
        while (one := self._waiting.first(conversation)) is None and self._waiting.is_left(conversation):
            try:
                await self._read_next(conversation)
            except StoreUnavailable as error:
                logger.warning("a conversation's next deliveries are read later: %s", error)
                await asyncio.sleep(self._back_off(failures))
                failures += 1
        return one

    async def _attempt(self, one: Delivery) -> _Wait | None:
        """One attempt; returns how long to wait before the next, None when it is settled."""
        holder = self._holder_of(one.route.account)
        if holder is None:
            return await self._without_holder(one)
        try:
            reply = await self._reply_of(one)
        except StoreUnavailable:
            return _Wait(self._back_off(one.attempts))
        if reply is None:
            return None
        one = self._waiting.replace_first(replace(one, reply=reply))
        call = DeliverCall(
            delivery_id=one.id,
            account=one.route.account,
            reply=reply,
            route=one.route,
            token=one.token,
            again=one.doubt,
        )
        if one.under_id or one.edit_of_id:
            placed = await self._placed(one, call)
            if not isinstance(placed, DeliverCall):
                return placed
            call = placed
        if not await self._claim(one):
            return None
        failpoint("delivery.claimed")
        try:
            receipt = await holder.deliver(call)
        except RateLimited as error:
            return await self._again(one, str(error), _Wait(max(error.retry_after, 0.05)))
        except (Unreachable, AuthError) as error:
            return await self._again(one, str(error), _Wait(self._back_off(one.attempts), account=True))
        except Disconnected as error:
            return await self._holder_died(one, str(error))
        except (Unknown, LinkError, TimeoutError) as error:
            return await self._perhaps_sent(one, str(error) or type(error).__name__)
        except ConnectorError as error:
            await self._settle(one, "dead", reason=str(error))
        except Exception as error:  # whatever it was, the ones behind it must not wait for ever
            logger.exception(
                "delivery %s to %s failed in a way that nobody foresaw", one.id, one.route.account
            )
            return await self._perhaps_sent(one, type(error).__name__)
        else:
            failpoint("delivery.told")
            await self._settle(one, "sent", receipt=receipt)
        return None

    async def _placed(self, one: Delivery, call: DeliverCall) -> DeliverCall | _Wait | None:
        """The call with the native id of what it belongs to; how long to wait for that; None when it is dropped."""
        try:
            before = await self._before(one)
        except StoreUnavailable:
            return _Wait(self._back_off(one.attempts))
        if before is not None and before.state in ("pending", "sending"):
            if now() - one.created_at <= TRIED_FOR:
                return _Wait(LOOK_AGAIN)
            before = None
        native_id = _first_id(before.receipt) if before is not None else None
        if one.edit_of_id is None:
            # What should have stood under one that died is better plainly there than not at all.
            route = one.route.model_copy(update={"thread": native_id}) if native_id else one.route
            return call.model_copy(update={"route": route})
        if native_id is None:
            await self._settle(one, "dead", reason="what it would have changed did not arrive")
            return None
        return call.model_copy(update={"edits": native_id})

    async def _before(self, one: Delivery) -> Any:
        table = schema.delivery
        query = sa.select(table.c.state, table.c.receipt).where(
            table.c.id == (one.edit_of_id or one.under_id)
        )

        async def fetch(conn: AsyncConnection) -> Any:
            return (await conn.execute(query)).first()

        return await self._store.read(fetch)

    async def _without_holder(self, one: Delivery) -> _Wait | None:
        if now() - one.waits_since <= TRIED_FOR:
            return _Wait(LOOK_AGAIN, account=True)
        reason = "given up: nobody has held the account for a day"
        await self._settle(one, "ambiguous" if one.doubt else "dead", reason=reason)
        return None

    async def _holder_died(self, one: Delivery, reason: str) -> _Wait | None:
        # Perhaps while it asked the platform: that nobody answered is no answer, so the next holder asks again. Not for
        # ever: a reply may be what kills them.
        if one.attempts >= MOST_DEATHS:
            return await self._perhaps_sent(one, reason)
        doubted = replace(one, doubt=True)
        return await self._again(doubted, reason, _Wait(self._back_off(one.attempts), account=True))

    async def _perhaps_sent(self, one: Delivery, reason: str) -> _Wait | None:
        # A platform that removes duplicates may be sent it again; any other is asked once whether it is there (the
        # holder does so for a call with `again`), and if that cannot be told either, a person must look.
        if self._capabilities_of(one.route.account).idempotent_send or one.edit_of_id or not one.doubt:
            doubted = replace(one, doubt=True)
            return await self._again(doubted, reason, _Wait(self._back_off(one.attempts), account=True))
        await self._settle(one, "ambiguous", reason=reason)
        return None

    async def _again(self, one: Delivery, reason: str, wait: _Wait) -> _Wait | None:
        if now() - one.created_at > TRIED_FOR:
            state = "ambiguous" if one.doubt else "dead"
            await self._settle(one, state, reason=f"given up after {one.attempts + 1} attempts: {reason}")
            return None
        self._waiting.replace_first(replace(one, attempts=one.attempts + 1))
        await self._update(
            one,
            state="sending" if one.doubt else "pending",
            attempts=one.attempts + 1,
            reason=reason,
            next_attempt_at=now() + timedelta(seconds=wait.seconds),
        )
        return wait

    async def _claim(self, one: Delivery) -> bool:
        """Note that it is being sent; false when it has been settled meanwhile.

        That happens to one that was read from the store while it was on its way.
        """
        # The console is in this process: what it shows, and what is stored, cannot differ after a crash in a way that
        # matters, and shows a repeated one once, so the extra commit is spared.
        if self._capabilities_of(one.route.account).idempotent_send:
            return True
        return await self._update(one, state="sending")

    async def _settle(
        self, one: Delivery, state: str, *, reason: str | None = None, receipt: Receipt | None = None
    ) -> None:
        sent_at: datetime | None = receipt.sent_at if receipt else None
        stored = receipt.model_dump(mode="json") if receipt else None
        native_id = _first_id(stored)
        told: list[Delivery] = []

        async def tell(conn: AsyncConnection) -> None:
            told.clear()
            if native_id and one.edit_of_id is None and one.source.startswith("event:"):
                await thread_links.delivered(conn, one.id, native_id)
            # Nobody misses an edit: what it changes says the same, only older.
            if self._undelivered is not None and state != "sent" and one.edit_of_id is None:
                told.extend(await self._undelivered(conn, one, state, reason or ""))

        values = {"state": state, "reason": reason, "receipt": stored, "sent_at": sent_at}
        if not await self._update(one, tell, **values):
            return
        failpoint("delivery.settled")
        self.send(told)
        if state != "sent":
            logger.warning("delivery %s to %s is %s: %s", one.id, one.route.account, state, reason)
        try:
            await self._changed(one, state)
        except Exception:
            logger.exception("delivery %s is %s, and what follows from it failed", one.id, state)

    async def _update(
        self, one: Delivery, also: Callable[[AsyncConnection], Awaitable[None]] | None = None, **values: Any
    ) -> bool:
        """Write this, however long the store is out of order; false when the delivery was settled before."""
        table = schema.delivery
        unsettled = sa.and_(table.c.id == one.id, table.c.state.in_(("pending", "sending")))

        async def update(conn: AsyncConnection) -> bool:
            changed = (await conn.execute(sa.update(table).where(unsettled).values(values))).rowcount
            if changed and also is not None:
                await also(conn)
            return bool(changed)

        failures = 0
        while True:
            try:
                return await self._store.write(update)
            except StoreUnavailable as error:
                # Going on without it would send again what was sent, or forget what was not.
                logger.warning("delivery %s waits for the store: %s", one.id, error)
                await asyncio.sleep(self._back_off(failures))
                failures += 1

    async def aclose(self) -> None:
        """Stop sending; what is not sent stays stored."""
        self._closed = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def last_ordinal(conn: AsyncConnection, source: str) -> int:
    """The greatest ordinal of this source's deliveries; -1 when there are none."""
    table = schema.delivery
    query = sa.select(sa.func.max(table.c.ordinal)).where(table.c.source == source)
    last = (await conn.execute(query)).scalar()
    return -1 if last is None else int(last)


def _first_id(receipt: Any) -> str | None:
    ids = (receipt or {}).get("native_ids") or ()
    return str(ids[0]) if ids else None


async def _set_within(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
