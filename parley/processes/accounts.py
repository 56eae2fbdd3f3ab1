"""Accounts as the hub sees them: which there are, and which process holds each one's connection."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import ConfigurationError, Denied, LinkError
from parley.link.calls import AccountState, DeliverCall, HeldAccount, HookCall
from parley.link.server import Peer
from parley.messages import registry
from parley.messages.connector import Connector
from parley.messages.model import Capabilities, HookRequest, HookResponse, Receipt, now
from parley.messages.outbox import Holder
from parley.settings import File, check_account
from parley.store import schema
from parley.store.engine import Store
from parley.store.ids import new_id

CONSOLE = "console"
DELIVER_TIME = 60.0


@dataclass(slots=True)
class _Held:
    peer: Peer
    state: str
    reason: str = ""


class _Remote:
    """An account that a listeners process holds."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    async def deliver(self, call: DeliverCall) -> Receipt:
        return Receipt.model_validate(await self._peer.call("deliver", call, timeout=DELIVER_TIME))


class _Here:
    """The console: its connector is in this process."""

    def __init__(self, connector: Connector) -> None:
        self._connector = connector

    async def deliver(self, call: DeliverCall) -> Receipt:
        if call.edits is not None:
            return await self._connector.edit_message(call.edits, call.reply, call.route)
        return await self._connector.send_message(call.reply, call.route, token=call.token)


class Accounts:
    """Configured accounts (parley.toml and store), and their holders."""

    def __init__(
        self,
        store: Store,
        file: Callable[[], File],
        console: Connector,
        *,
        came_back: Callable[[str], Awaitable[None]],
    ) -> None:
        self._store = store
        self._file = file
        self._console = _Here(console)
        self._came_back = came_back
        self._held: dict[str, _Held] = {}
        self._stored: dict[str, HeldAccount] = {}

    async def load(self) -> None:
        """Read the accounts that are in the store."""

        async def fetch(conn: AsyncConnection) -> list[HeldAccount]:
            rows = (
                await conn.execute(sa.select(schema.account).where(schema.account.c.enabled.is_(True)))
            ).all()
            return [HeldAccount(name=row.name, platform=row.platform, block=row.block or "") for row in rows]

        self._stored = {account.name: account for account in await self._store.read(fetch)}

    def adding(self, name: str, platform: str, block: str) -> Callable[[AsyncConnection], Awaitable[None]]:
        """What adds an account, or changes it, within a write; then `load`.

        Raises `ConfigurationError` for an unknown platform.
        """
        registry.connector_class(platform)
        if CONSOLE in (name, platform):
            raise ConfigurationError("the console is there already and needs no account of its own.")
        try:
            check_account(name)
        except ValueError as error:
            raise ConfigurationError(str(error)) from None

        async def write(conn: AsyncConnection) -> None:
            await conn.execute(sa.delete(schema.account).where(schema.account.c.name == name))
            row = {
                "id": new_id(),
                "name": name,
                "platform": platform,
                "block": block,
                "enabled": True,
                "created_at": now(),
            }
            await conn.execute(sa.insert(schema.account).values(row))

        return write

    def all(self) -> list[HeldAccount]:
        """Accounts that a listeners process should hold."""
        named = {
            name: HeldAccount(name=name, platform=one.platform, block=one.block)
            for name, one in self._file().accounts.items()
            if one.enabled
        }
        off = {name for name, one in self._file().accounts.items() if not one.enabled}
        return list((({name: one for name, one in self._stored.items() if name not in off}) | named).values())

    def platform_of(self, account: str) -> str:
        """The platform of an account; the account's name itself where it is not known (any more)."""
        if account == CONSOLE:
            return CONSOLE
        return next((one.platform for one in self.all() if one.name == account), account)

    def knows(self, account: str) -> bool:
        """Whether there is such an account."""
        return account == CONSOLE or any(one.name == account for one in self.all())

    def capabilities(self, account: str) -> Capabilities:
        """What can be shown on this account's platform."""
        try:
            return registry.capabilities(self.platform_of(account))
        except ConfigurationError:
            return Capabilities()

    def holder(self, account: str) -> Holder | None:
        """Who holds an account now."""
        if account == CONSOLE:
            return self._console
        held = self._held.get(account)
        if held is None or held.peer.gone.is_set() or held.state != "listening":
            return None
        return _Remote(held.peer)

    async def state(self, peer: Peer, said: AccountState) -> None:
        """A process says what an account of its does. Raises `Denied` when another one holds it."""
        held = self._held.get(said.account)
        if held and held.peer is not peer and not held.peer.gone.is_set() and held.state != "stopped":
            raise Denied(f"the account {said.account} is held by {held.peer!r}.")
        self._held[said.account] = _Held(peer, said.state, said.reason)
        if said.state == "listening":
            await self._came_back(said.account)

    async def hook(self, account: str, request: HookRequest) -> HookResponse:
        """Give a request from the hooks' port to the account's connector."""
        if account == CONSOLE or not self.knows(account):
            return HookResponse(status=404, body=b"there is no such account\n")
        held = self._held.get(account)
        if held is None or held.peer.gone.is_set():
            return HookResponse(
                status=503, headers={"retry-after": "5"}, body=b"nobody holds this account now\n"
            )
        try:
            answer = await held.peer.call("hook", HookCall(account=account, request=request), timeout=15)
        except (LinkError, TimeoutError):
            return HookResponse(status=503, headers={"retry-after": "5"}, body=b"try again\n")
        return HookResponse.model_validate(answer)

    def states(self) -> list[dict[str, Any]]:
        """Each account with its state, for `parley status`."""
        rows = [{"name": CONSOLE, "platform": CONSOLE, "state": "listening", "reason": ""}]
        for one in self.all():
            held = self._held.get(one.name)
            alive = held is not None and not held.peer.gone.is_set()
            rows.append(
                {
                    "name": one.name,
                    "platform": one.platform,
                    "state": held.state if held and alive else "down",
                    "reason": held.reason if held and alive else "",
                }
            )
        return rows
