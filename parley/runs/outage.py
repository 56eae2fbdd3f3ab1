"""While Prefect, or every worker, is away: who asked is told once that it waits, and the people on duty, once each
time, that Prefect's server does not answer and that it is back.

Nothing is refused meanwhile. What the people on duty were told is kept in the store, so that a hub that starts anew
neither repeats it nor forgets to say that it is over.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Final, Literal

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import ParleyError
from parley.messages.model import Reply, now
from parley.messages.outbox import Delivery, Outbox
from parley.people import principals
from parley.people.sealing import Keyring
from parley.runs import failures
from parley.runs.dispatch import Dispatcher
from parley.runs.failures import Notice
from parley.runs.prefect_api import PrefectApi
from parley.runs.requests import QueuedRun, open_route
from parley.runs.sentences import sentence
from parley.runs.steadiness import Steadiness
from parley.store import schema
from parley.store.engine import Store

logger = logging.getLogger(__name__)

EVERY: Final = 2.0
"""Seconds between two looks."""

TOLD_AFTER: Final = 4.0
"""Seconds that a run waits for what is away before its asker is told."""

STARTING: Final = 20.0
"""Seconds after the hub's start within which nobody is told: the others are starting, too."""

AT_ONCE: Final = 50
"""Askers that are told at one look."""

ALARM: Final = "prefect's server"
"""The row of `alert_state`; no command has such a name."""

ASKED: Final = ("command", "language", "rest")
"""Origins of what a person asked for and waits for."""


class Outage:
    """Looks at Prefect and at what waits for it; `run` until cancelled."""

    def __init__(
        self,
        store: Store,
        keyring: Keyring,
        outbox: Outbox,
        prefect: PrefectApi,
        dispatcher: Dispatcher,
        *,
        tell_duty: Callable[[AsyncConnection, Notice], Awaitable[list[Delivery]]],
        language: Callable[[], str],
    ) -> None:
        self._store = store
        self._keyring = keyring
        self._outbox = outbox
        self._prefect = prefect
        self._dispatcher = dispatcher
        self._tell_duty = tell_duty
        self._language = language
        self._steadiness: Steadiness | None = None
        self._held_since: float | None = None
        self._told: set[str] = set()

    async def run(self) -> None:
        """Look until cancelled; a look that fails is no reason to stop looking."""
        began = asyncio.get_running_loop().time()
        while True:
            try:
                await self.look(began)
            except ParleyError as error:
                logger.info("%s", error)
            except Exception:
                logger.exception("what waits for Prefect could not be looked at")
            await asyncio.sleep(EVERY)

    async def look(self, began: float = 0.0) -> None:
        """One look. `began`: when the hub started, by the clock of the loop."""
        at = asyncio.get_running_loop().time()
        gate = self._dispatcher.gate
        answers = await self._prefect.answers() or gate.answered_within(TOLD_AFTER)
        await self._watch_prefect(answers and gate.shut_for() < 2 * TOLD_AFTER, at)
        waits_for = self._waits_for(answers)
        if waits_for is None:
            self._held_since = None
            self._told.clear()
            return
        self._held_since = at if self._held_since is None else self._held_since
        if at - self._held_since >= TOLD_AFTER - EVERY and at - began >= STARTING:
            await self._tell_askers(waits_for)

    def _waits_for(self, answers: bool) -> str | None:
        if self._dispatcher.gate.answered_within(TOLD_AFTER):
            return None
        return self._dispatcher.waits_for() if answers else "prefect"

    # -- the people on duty

    async def _watch_prefect(self, answers: bool, at: float) -> None:
        if self._steadiness is None:
            alarmed = await self._store.read(lambda conn: failures.is_raised(conn, ALARM))
            self._steadiness = Steadiness(away=alarmed)
        said = self._steadiness.look(answers, at)
        if said is not None:
            try:
                await self._say_on_duty(said)
            except ParleyError:
                self._steadiness.away = said != "away"  # it was not said: the next look says it
                raise

    async def _say_on_duty(self, said: Literal["away", "back"]) -> None:
        waiting = sum(self._dispatcher.queue_sizes().values())

        async def tell(conn: AsyncConnection) -> list[Delivery]:
            number = await failures.set_raised(conn, ALARM, said == "away")
            if number is None:
                return []  # another hub, or this one before it died, has said it
            values: dict[str, Any] = {"url": self._prefect.url, "waiting": waiting}
            notice = Notice(source=f"prefect-{said}:{number}", key=f"prefect-{said}", values=values)
            return await self._tell_duty(conn, notice)

        logger.warning("Prefect at %s is %s; %d runs wait", self._prefect.url, said, waiting)
        self._outbox.send(await self._store.write(tell))

    # -- who asked

    async def _tell_askers(self, waits_for: str) -> None:
        since = now() - timedelta(seconds=TOLD_AFTER)
        # A write that takes them all is one commit; who is not told now is told at the next look.
        ones = [
            one
            for one in self._dispatcher.waiting()
            if one.queued_at < since and one.request_id not in self._told
        ][:AT_ONCE]
        if not ones:
            return

        async def tell(conn: AsyncConnection) -> list[Delivery]:
            return [delivery for one in ones for delivery in await self._tell(conn, one, waits_for)]

        self._outbox.send(await self._store.write(tell))
        self._told.update(one.request_id for one in ones)

    async def _tell(self, conn: AsyncConnection, one: QueuedRun, waits_for: str) -> list[Delivery]:
        table = schema.request
        query = sa.select(table).where(
            table.c.id == one.request_id, table.c.state == "queued", table.c.origin.in_(ASKED)
        )
        row = (await conn.execute(query)).first()
        if row is None or not row.route:
            return []
        actor = await principals.get(conn, row.actor_id) if row.actor_id else None
        language = (actor.language if actor else None) or self._language()
        text = sentence(f"waits-for-{waits_for}", language, command=row.automation)
        # No `message_id`: it is no part of the answer. Its source is unique, so it is said once, whoever says it.
        return await self._outbox.write(
            conn,
            f"waiting:{row.id}",
            [Reply(text=text)],
            open_route(self._keyring, row),
            under_id=row.under_id,
        )
