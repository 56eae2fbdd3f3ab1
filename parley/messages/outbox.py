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
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Protocol

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
from parley.messages import thread_links
from parley.messages.deliveries import Deliveries, Delivery, first_id, last_ordinal
from parley.messages.model import Capabilities, Receipt, Reply, now
from parley.messages.waiting_list import IN_STORE, WaitingList
from parley.people.sealing import Keyring
from parley.settings import Retention
from parley.store.engine import Store

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


@dataclass(frozen=True, slots=True)
class _Wait:
    """Before the next attempt. `account`: the platform cannot be reached now; once it can, waiting is pointless."""

    seconds: float
    account: bool = False


class Holder(Protocol):
    """The process, or the part of this one, that holds an account's connection."""

    async def deliver(self, call: DeliverCall) -> Receipt:
        """Send; raises the connector's error, or `LinkError` when nobody holds the account."""


class Outbox(Deliveries):
    """Sends what was written, once its transaction is committed.

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
        super().__init__(store, keyring, retention, capabilities_of=capabilities_of)
        self._holder_of = holder_of
        self._changed = changed
        self._undelivered = undelivered
        self._back_off = back_off
        self._waiting = WaitingList() if waiting is None else waiting
        self._unreadable: set[str] = set()
        self._busy: set[str] = set()
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
        for account in await self._accounts():
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
        async with self._looking[account]:
            left_out = before = self._waiting.begin_look(account)
            most = self._waiting.wanted(account)
            try:
                rows, left_out = await self._conversations(account, most, self._unreadable)
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
        most = self._waiting.most_of_one + len(self._unreadable)
        left = before = self._waiting.begin_page(conversation)
        try:
            rows = await self._next_of(conversation, most)
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

    async def _reply_of(self, one: Delivery) -> Reply | None:
        """Its reply, from the store if need be; None when that cannot be opened."""
        if one.reply is not IN_STORE:
            return one.reply
        row = await self._body_of(one.id)
        try:
            return self._reply(row)
        except (SealError, ValidationError) as error:
            self._cannot_open(one.id, error)
            return None

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
        native_id = first_id(before.receipt) if before is not None else None
        if one.edit_of_id is None:
            # What should have stood under one that died is better plainly there than not at all.
            route = one.route.model_copy(update={"thread": native_id}) if native_id else one.route
            return call.model_copy(update={"route": route})
        if native_id is None:
            await self._settle(one, "dead", reason="what it would have changed did not arrive")
            return None
        return call.model_copy(update={"edits": native_id})

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
        native_id = first_id(stored)
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
        failures = 0
        while True:
            try:
                return await self._change(one, values, also)
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


async def _set_within(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


__all__ = ["Delivery", "Holder", "Outbox", "back_off", "last_ordinal"]
