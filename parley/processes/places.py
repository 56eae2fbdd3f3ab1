"""Where things go, and who is vouched for there: conversations that parley.toml names, those of duty among them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import ConfigurationError
from parley.language.following import FORGES
from parley.messages import registry
from parley.messages.model import Assurance, ConversationKind, Route
from parley.messages.routes import places_of
from parley.messages.topics import topic
from parley.people.principals import find_by_identity
from parley.people.rights import Origin
from parley.processes.accounts import CONSOLE, Accounts
from parley.settings import File
from parley.store import schema

logger = logging.getLogger(__name__)

_KINDS: Final = {
    CONSOLE: ConversationKind.DIRECT,
    "mail": ConversationKind.MAIL,
    "exchange": ConversationKind.MAIL,
}
"""What a conversation that parley.toml names is taken for until something was said in it, by platform."""


class Places:
    """Finds accounts and conversations by what parley.toml calls them."""

    def __init__(self, accounts: Accounts, *, file: Callable[[], File]) -> None:
        self._accounts = accounts
        self._file = file

    async def duty(self, conn: AsyncConnection, troubled: str | None) -> Route | None:
        """Where the people on duty are told: reachable if any is, and not over the account in trouble if possible."""
        routes = [
            route for text in self._file().duty.conversations if (route := await self.route_to(conn, text))
        ]
        reachable = [route for route in routes if self._accounts.holder(route.account)]
        elsewhere = [route for route in reachable if route.account != troubled]
        return next(iter(elsewhere or reachable or routes), None)

    async def route_to(self, conn: AsyncConnection, text: str) -> Route | None:
        """The way to `account:conversation`; None where there is no such account."""
        account, _, conversation = text.partition(":")
        if not conversation or not self._accounts.knows(account):
            return None
        kind = (await conn.execute(_kind_of(account, conversation))).scalar()
        guess = _KINDS.get(self._accounts.platform_of(account), ConversationKind.CHANNEL)
        return Route(
            account=account, conversation=conversation, kind=ConversationKind(kind) if kind else guess
        )

    def is_vouched(self, account: str) -> bool:
        """Whether the platform of this account proves who writes there."""
        return _declared_assurance(self._accounts.platform_of(account)) is Assurance.VERIFIED

    async def assurance(self, conn: AsyncConnection, row: Any) -> Assurance:
        """How well the sender of the message behind this request is known now."""
        route = row.route or {}
        account = route.get("account")
        if account in (None, CONSOLE) or row.message_id is None or row.origin == Origin.SERVICE:
            # What a service asks for it asks for by its own rights, which the owner gave to this account.
            return Assurance.VERIFIED
        sender = (
            await conn.execute(
                sa.select(schema.message.c.sender_id).where(schema.message.c.id == row.message_id)
            )
        ).scalar()
        link = await find_by_identity(conn, account, sender or "")
        declared = _declared_assurance(self._accounts.platform_of(account))
        return link.assurance(declared) if link else Assurance.CLAIMED

    def topics(self) -> frozenset[str]:
        """The topics under which accounts publish."""
        return frozenset(topic(one.name) for one in self._accounts.all())

    def forges(self) -> list[str]:
        """The accounts of services that have repositories."""
        return [one.name for one in self._accounts.all() if one.platform in FORGES]

    def warn_of_lost_routes(self) -> None:
        """Log what parley.toml sends to accounts that are not there."""
        for place, where in places_of(self._file()):
            if not self._accounts.knows(place.partition(":")[0]):
                logger.warning(
                    "parley.toml, %s: there is no account for %s; nothing is sent there.", where, place
                )


def _kind_of(account: str, conversation: str) -> Any:
    table = schema.conversation
    return (
        sa.select(table.c.kind).where(table.c.account == account, table.c.native_id == conversation).limit(1)
    )


@cache
def _declared_assurance(platform: str) -> Assurance:
    try:
        return registry.connector_class(platform).assurance
    except ConfigurationError:
        return Assurance.CLAIMED


__all__ = ["Places"]
