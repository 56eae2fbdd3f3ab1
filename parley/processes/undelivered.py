"""What follows from a delivery that was given up, or that may not have arrived: a dead letter, and people are told.

The people on duty hear of it once an hour and account, whoever was waiting hears of it once for each answer: in the
same conversation where that can be reached, else in their console.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.messages.model import Button, Reply, Route, now
from parley.messages.outbox import Delivery, Outbox
from parley.people import principals
from parley.people.principals import Principal, PrincipalKind
from parley.processes.accounts import CONSOLE, Accounts
from parley.runs import dead_letters
from parley.runs.closing import Closing
from parley.runs.failures import Notice
from parley.runs.requests import short
from parley.runs.sentences import sentence
from parley.store import schema

ASIDE: Final = ("waiting:", "unanswered:")
"""Sources of words beside an answer: nobody misses them, and one about one could go round for ever."""

ANSWERS: Final = ("run:", "request:", "event:", "replay:")
"""Sources of what somebody waits for, also without a message."""


class Undelivered:
    """Called within the transaction that settles the delivery."""

    def __init__(
        self,
        outbox: Callable[[], Outbox],
        closing: Callable[[], Closing],
        accounts: Accounts,
        *,
        language: Callable[[], str],
    ) -> None:
        self._outbox = outbox
        self._closing = closing
        self._accounts = accounts
        self._language = language

    async def __call__(self, conn: AsyncConnection, one: Delivery, state: str, reason: str) -> list[Delivery]:
        """What is told of it."""
        if one.source.startswith(ASIDE):
            return []
        asker = await self._asker(conn, one)
        letter_id = await dead_letters.record(
            conn,
            "delivery",
            f"delivery:{one.id}",
            reason or state,
            account=one.route.account,
            actor_id=asker.id if asker else None,
            doubtful=state == "ambiguous",
        )
        if one.message_id is None and not one.source.startswith(ANSWERS):
            return []  # a notice to the people on duty: one about a notice could go round for ever
        return [
            *await self._tell_duty(conn, one, state, reason, letter_id),
            *await self._tell_asker(conn, one, state, asker, letter_id),
        ]

    async def _tell_duty(
        self, conn: AsyncConnection, one: Delivery, state: str, reason: str, letter_id: str
    ) -> list[Delivery]:
        account, code = one.route.account, short(letter_id)
        # One an hour and account says enough: (source, ordinal) is unique.
        notice = Notice(
            source=f"undelivered:{account}:{state}:{now():%Y-%m-%dT%H}",
            key=state,
            values={"account": account, "id": code, "reason": reason[:300]},
            buttons=(
                Button(label=sentence("send-again", self._language()), value=f"/dlq replay {code} confirm"),
                Button(label=sentence("close", self._language()), value=f"/dlq discard {code}"),
            ),
        )
        return await self._closing().tell_duty(conn, notice, account)

    async def _tell_asker(
        self, conn: AsyncConnection, one: Delivery, state: str, asker: Principal | None, letter_id: str
    ) -> list[Delivery]:
        if asker is None or asker.kind is PrincipalKind.SERVICE:
            return []
        here = self._accounts.holder(one.route.account) is not None
        route = one.route if here else Route(account=CONSOLE, conversation=asker.name)
        text = sentence(
            f"answer-{state}",
            asker.language or self._language(),
            account=one.route.account,
            id=short(letter_id),
        )
        # A long answer has several parts, and all of them may fail: said once for all.
        return await self._outbox().write(conn, f"unanswered:{one.source}", [Reply(text=text)], route)

    async def _asker(self, conn: AsyncConnection, one: Delivery) -> Principal | None:
        """Who waits for it: who wrote the message that it answers, or asked for the run."""
        row = await self._message(conn, one.message_id) if one.message_id else None
        if row is not None and row.type != "notice":
            if row.principal_id:
                return await principals.get(conn, row.principal_id)
            link = await principals.find_by_identity(conn, row.account, row.sender_id)
            return link.principal if link else None
        return None

    @staticmethod
    async def _message(conn: AsyncConnection, message_id: str) -> Any:
        table = schema.message
        query = sa.select(table.c.account, table.c.sender_id, table.c.principal_id, table.c.type)
        return (await conn.execute(query.where(table.c.id == message_id))).first()
