"""A hub that lives without Prefect, and a listeners process in which every account is a room that the test watches."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import ParleyError
from parley.link.calls import AcceptCall, AccountState, CommandMenu, DeliverCall, Role
from parley.link.client import HubClient, role_token
from parley.messages.model import (
    Accepted,
    Assurance,
    ConversationKind,
    Edit,
    Event,
    Message,
    Notice,
    Receipt,
    Route,
    Sender,
)
from parley.people import principals
from parley.people.principals import Principal
from parley.people.principals import Role as PersonRole
from parley.processes.hub import Hub, open_hub
from parley.runs.on_event import EventStarts
from parley.settings import BUS, Account, Duty, File, Settings
from tests import prepared
from tests.fakes._driver import eventually
from tests.hub.house import CATALOGUE
from tests.prefect_fixture import free_port

ACCOUNTS = {
    "forge": "github",
    "slack": "slack",
    "chat": "slack",
    "third": "slack",
    "post": "mail",
}
"""Names of accounts and their platforms: what those can show is what their connectors declare."""

_numbers = itertools.count(1)


@dataclass
class Platforms:
    """The listeners process: takes what the hub delivers, and says what people and services do."""

    client: HubClient
    calls: list[DeliverCall] = field(default_factory=list)
    menus: list[CommandMenu] = field(default_factory=list)
    ids: dict[str, str] = field(default_factory=dict)
    fails: Callable[[DeliverCall], ParleyError | None] = lambda _call: None
    held: asyncio.Event = field(default_factory=asyncio.Event)

    async def take(self, args: dict[str, Any]) -> Receipt:
        """The hub delivers."""
        call = DeliverCall.model_validate(args)
        await self.held.wait()
        error = self.fails(call)
        if error is not None:
            raise error
        self.calls.append(call)
        native = call.edits or self.ids.setdefault(call.token, f"sent-{next(_numbers)}")
        return Receipt(native_ids=(native,))

    def texts(self, account: str = "", conversation: str = "") -> list[str]:
        """What was sent to a place, in order; edits and what is in a thread are marked."""
        return [
            _marked(call)
            for call in self.calls
            if account in ("", call.account) and conversation in ("", call.route.conversation)
        ]

    async def hear(self, event: Event) -> Accepted:
        """An event of one of the accounts."""
        return Accepted.model_validate(await self.client.call("accept", AcceptCall(event=event)))

    async def notice(self, topic: str, title: str, *, account: str = "forge", **more: Any) -> Accepted:
        """A service reports something."""
        native = more.pop("native_id", f"notice-{next(_numbers)}")
        notice = Notice(
            account=account,
            native_id=native,
            sender=Sender(id="service"),
            route=Route(account=account, conversation="service", kind=ConversationKind.CHANNEL),
            topic=topic,
            title=title,
            **more,
        )
        return await self.hear(notice)

    async def say(
        self,
        place: str,
        text: str,
        *,
        person: str = "ann",
        thread: str | None = None,
        addressed: bool = False,
        bot: bool = False,
        claimed: bool = False,
        **more: Any,
    ) -> str:
        """Somebody writes in a room; the native id."""
        account, _, conversation = place.partition(":")
        native = str(more.pop("native_id", f"said-{next(_numbers)}"))
        kind = more.pop("kind", ConversationKind.CHANNEL)
        route = Route(
            account=account,
            conversation=conversation,
            kind=kind,
            thread=thread,
            context=more.pop("context", {}),
        )
        assurance = Assurance.CLAIMED if claimed else Assurance.VERIFIED
        sender = Sender(id=person, name=person.title(), is_bot=bot, assurance=assurance)
        message = Message(
            account=account,
            native_id=native,
            sender=sender,
            route=route,
            text=text,
            addressed=addressed,
            **more,
        )
        await self.hear(message)
        return native

    async def change(self, place: str, target: str, text: str, *, person: str = "ann") -> None:
        """Somebody changes what they wrote."""
        account, _, conversation = place.partition(":")
        route = Route(account=account, conversation=conversation, kind=ConversationKind.CHANNEL)
        edit = Edit(
            account=account,
            native_id=f"edit-{next(_numbers)}",
            sender=Sender(id=person, name=person.title()),
            route=route,
            target=target,
            text=text,
        )
        await self.hear(edit)


def _marked(call: DeliverCall) -> str:
    mark = (
        f"edit {call.edits}: " if call.edits else f"under {call.route.thread}: " if call.route.thread else ""
    )
    return mark + call.reply.text


@dataclass
class World:
    """A living hub and its platforms."""

    hub: Hub
    platforms: Platforms

    async def settled(self) -> None:
        """Everything that was taken is handled, and everything that can be sent is sent."""
        await self.hub.intake_is_empty()
        await eventually(lambda: not self.hub.outbox.waiting, "the outbox is empty")

    async def rows(self, table: sa.Table, **equal: Any) -> list[Any]:
        """The rows of a table, by its key."""
        query = sa.select(table).where(*(table.c[name] == value for name, value in equal.items()))

        async def fetch(conn: AsyncConnection) -> list[Any]:
            return list((await conn.execute(query.order_by(*table.primary_key))).all())

        return await self.hub.store.read(fetch)

    async def person(self, name: str, role: PersonRole, account: str = "slack") -> Principal:
        """Somebody of this role who is known on this account under their own name."""

        async def add(conn: AsyncConnection) -> Principal:
            identity = await principals.add_principal(conn, name, role=role)
            await principals.link_identity(conn, identity, account, name, verified=True)
            return await principals.get(conn, identity)

        return await self.hub.store.write(add)

    async def principal(self, principal_id: str) -> Principal:
        """Somebody, by their id."""
        return await self.hub.store.read(lambda conn: principals.get(conn, principal_id))

    async def link_claimed(self, who: Principal, account: str, sender: str) -> None:
        """The same person on an account where the platform does not vouch for senders."""
        await self.hub.store.write(
            lambda conn: principals.link_identity(conn, who.id, account, sender, verified=False)
        )

    async def give_role_to_the_bus(self) -> None:
        """What comes from no account may run what an operator may."""
        starts = EventStarts(
            self.hub.keyring,
            self.hub.rights,
            catalogue=lambda: self.hub.catalogue,
            limits=lambda: self.hub.file.limits,
            is_approved_first=lambda _spec, _values: False,
        )
        await self.hub.store.write(lambda conn: starts.service_of(conn, BUS))
        await self.give_role(BUS, PersonRole.OPERATOR)

    async def give_role(self, name: str, role: PersonRole) -> None:
        """The owner gives somebody, a service too, a role."""

        async def change(conn: AsyncConnection) -> None:
            await principals.set_role(conn, (await principals.get_by_name(conn, name)).id, role)

        await self.hub.store.write(change)


@asynccontextmanager
async def world_in(
    home: Path, *, holding: bool = True, database_url: str | None = None, **file: Any
) -> AsyncIterator[World]:
    """A hub that lives for the length of the block; the same home again is a restart.

    `holding`: whether deliveries are taken at once; else they wait until `platforms.held` is set. `database_url`: a
    store in PostgreSQL.
    """
    settings = Settings(
        home=home,
        config=home / "parley.toml",
        key_file=home.parent / f"{home.name}-key" / "key",
        port=free_port(),
        hooks_port=free_port(),
        metrics_port=free_port(),
        prefect_api_url="http://127.0.0.1:9/api",
        database_url=database_url,
        file=File.model_validate(
            {
                "accounts": {
                    name: Account(platform=platform, block=f"parley-{platform}/{name}")
                    for name, platform in ACCOUNTS.items()
                },
                "duty": Duty(conversations=("console:duty",)),
                **file,
            }
        ),
    )
    prepared.store(settings.home / "parley.db")
    hub = await open_hub(settings)
    try:
        hub.publish(CATALOGUE)
        async with hub.living(), _listeners(settings, holding=holding) as platforms:
            yield World(hub, platforms)
    finally:
        await hub.store.aclose()


@asynccontextmanager
async def _listeners(settings: Settings, *, holding: bool) -> AsyncIterator[Platforms]:
    platforms: Platforms

    async def deliver(args: dict[str, Any]) -> Receipt:
        return await platforms.take(args)

    async def nothing(_args: dict[str, Any]) -> None:
        """Lists of accounts are not what is looked at here."""

    async def menu(args: dict[str, Any]) -> None:
        platforms.menus.append(CommandMenu.model_validate(args))

    client = HubClient(
        f"unix:{settings.socket}",
        Role.LISTENERS,
        role_token(settings, Role.LISTENERS),
        handlers={"deliver": deliver, "command_menu": menu, "accounts_changed": nothing},
    )
    platforms = Platforms(client)
    if holding:
        platforms.held.set()
    async with client:
        for name in ACCOUNTS:
            await client.call("account_state", AccountState(account=name, state="listening"))
        yield platforms
