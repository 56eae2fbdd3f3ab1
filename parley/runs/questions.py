"""Questions of running automations: asked in the thread, kept in the store, answered whenever the person does."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import LinkError
from parley.language.dialogue import question_parameters, question_reply
from parley.link.calls import AskCall
from parley.messages.inbox import conversation_id, insert_new
from parley.messages.model import Reply, now
from parley.messages.outbox import Delivery, Outbox
from parley.messages.watch import Watch
from parley.people.sealing import Keyring
from parley.runs.ledger import Ledger
from parley.runs.requests import open_route
from parley.settings import Limits
from parley.store import schema
from parley.store.engine import Store
from parley.store.ids import new_id

_FIRST_ORDINAL = 1_000_000_000
"""Deliveries of questions are numbered apart from those of progress, which begin at 100 times their ordinal."""


class Questions:
    """Asks, and waits for the answer; the same (run, ordinal) is asked once."""

    def __init__(
        self, store: Store, keyring: Keyring, outbox: Outbox, ledger: Ledger, watch: Watch, limits: Limits
    ) -> None:
        self._store = store
        self._keyring = keyring
        self._outbox = outbox
        self._ledger = ledger
        self._watch = watch
        self.limits = limits

    async def ask(self, call: AskCall) -> dict[str, Any]:
        """The answers, by property. Raises `LinkError` where there is nobody to ask, or nobody answered in time."""
        row = await self._ledger.ask_route(call)
        if row.route is None or row.actor_id is None:
            raise LinkError("this run has no conversation to ask in: it was not started from a chat.")
        question_id, deliveries = await self._store.write(lambda conn: self._insert(conn, call, row))
        self._outbox.send(deliveries)
        async with self._watch.on(f"question:{question_id}") as changed:
            while True:
                changed.clear()
                stored = await self._store.read(lambda conn: _question(conn, question_id))
                if stored.state == "answered":
                    return self._opened(stored)
                if stored.state == "expired" or stored.expires_at < now():
                    raise LinkError("the question was not answered in time.")
                await self._wait(changed, (stored.expires_at - now()).total_seconds())

    def answered(self, question_id: str) -> None:
        """An answer is committed: whoever waits looks again."""
        self._watch.notify(f"question:{question_id}")

    @staticmethod
    async def _wait(changed: asyncio.Event, seconds: float) -> None:
        try:
            async with asyncio.timeout(max(0.1, seconds)):
                await changed.wait()
        except TimeoutError:
            return

    def _opened(self, stored: Any) -> dict[str, Any]:
        body = self._keyring.open("question", "answer_sealed", stored.id, stored.answer_sealed)
        opened: dict[str, Any] = json.loads(body)
        return opened

    async def _insert(self, conn: AsyncConnection, call: AskCall, row: Any) -> tuple[str, list[Delivery]]:
        route, question_id = open_route(self._keyring, row), new_id()
        values = {
            "id": question_id,
            "run_id": call.run_id,
            "ordinal": call.ordinal,
            "conversation_id": await conversation_id(conn, route),
            "asked_of_id": row.actor_id,
            "json_schema": call.json_schema,
            "state": "open",
            "created_at": now(),
            "expires_at": now() + timedelta(seconds=self.limits.ask_age),
        }
        table = schema.question
        done = await conn.execute(insert_new(conn, table, values, ("run_id", "ordinal")))
        if not done.rowcount:
            query = sa.select(table.c.id).where(
                table.c.run_id == call.run_id, table.c.ordinal == call.ordinal
            )
            return str((await conn.execute(query)).scalar_one()), []
        first = _FIRST_ORDINAL + call.ordinal * 100
        replies = _prompt(call, question_id)
        source = f"run:{call.run_id}"
        return question_id, await self._outbox.write(
            conn, source, replies, route, message_id=row.message_id, first=first, under_id=row.under_id
        )


def _prompt(call: AskCall, question_id: str) -> list[Reply]:
    parameters = question_parameters(call.json_schema)
    opening = [Reply(text=call.text)] if call.text else []
    return opening + ([question_reply(parameters[0], question_id)] if parameters else [])


async def _question(conn: AsyncConnection, question_id: str) -> Any:
    table = schema.question
    return (await conn.execute(sa.select(table).where(table.c.id == question_id))).one()
