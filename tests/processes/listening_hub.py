"""A hub and a platform for tests of the listeners: the real link on a real socket, answers given by the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from parley.errors import Denied
from parley.link.calls import AccountState, HeldAccount, Role
from parley.link.connection import Handler
from parley.link.server import LinkServer, Peer, make_tokens
from parley.messages.connector import Accept, Connector
from parley.messages.model import (
    Accepted,
    Capabilities,
    CommandEntry,
    HookRequest,
    HookResponse,
    Message,
    Receipt,
    Reply,
    Route,
    Sender,
)
from parley.processes.holding import Calls, Loaded, Patience
from parley.processes.listening import Listening

QUICK = Patience(first=0.01, longest=0.05, prefect_away=0.02)


def account(name: str, block: str = "test/one") -> HeldAccount:
    return HeldAccount(name=name, platform="test", block=block)


def message(text: str, native_id: str = "m1") -> Message:
    """An event whose connector has forgotten which account it is for."""
    route = Route(account="wrong", conversation="c1")
    return Message(account="wrong", native_id=native_id, sender=Sender(id="u1"), route=route, text=text)


class Hub:
    """Keeps what it is told; a test changes what it answers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.accounts: list[HeldAccount] = []
        self.states: list[tuple[str, str, str]] = []
        self.accepted: list[dict[str, Any]] = []
        self.refuse: dict[str, Exception] = {}
        self.others: set[str] = set()
        self.changed = asyncio.Condition()
        self.tokens = make_tokens(folder)
        self.server = LinkServer(self.tokens, self._handlers)

    @property
    def address(self) -> str:
        return f"unix:{self.folder}/hub.sock"

    def state_of(self, name: str) -> str:
        return next((state for account, state, _ in reversed(self.states) if account == name), "")

    def reason_of(self, name: str) -> str:
        return next((reason for account, _, reason in reversed(self.states) if account == name), "")

    async def until(self, true: Callable[[], object], seconds: float = 10) -> None:
        """Wait until something that the hub was told makes it true."""
        async with asyncio.timeout(seconds), self.changed:
            await self.changed.wait_for(lambda: bool(true()))

    async def is_told(self, name: str, state: str) -> None:
        await self.until(lambda: self.state_of(name) == state)

    async def call(self, name: str, args: Any = None) -> Any:
        """Call the listeners process that is connected."""
        await self.until(lambda: self.server.by_role(Role.LISTENERS))
        (peer,) = self.server.by_role(Role.LISTENERS)
        return await peer.call(name, args, timeout=5)

    async def _note(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    def _handlers(self, _peer: Peer) -> Mapping[str, Handler]:
        async def accept(args: dict[str, Any]) -> Accepted:
            if error := self.refuse.get("accept"):
                raise error
            self.accepted.append(args["event"])
            await self._note()
            return Accepted(id=f"id-{len(self.accepted)}", new=True)

        async def held(_args: dict[str, Any]) -> Any:
            await self._note()
            return self.accounts

        async def state(args: dict[str, Any]) -> None:
            said = AccountState.model_validate(args)
            if said.account in self.others:
                raise Denied(f"the account {said.account} is held by another process.")
            self.states.append((said.account, said.state, said.reason))
            await self._note()

        async def open_secret(args: dict[str, Any]) -> str:
            return str(args["sealed"]).removeprefix("sealed:v1:")

        async def seal_secret(args: dict[str, Any]) -> str:
            return f"sealed:v1:{args['clear']}"

        return {
            "accept": accept,
            "held_accounts": held,
            "account_state": state,
            "open_secret": open_secret,
            "seal_secret": seal_secret,
        }

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Hub]:
        async with self.server.listen(self.folder / "hub.sock"):
            yield self


class Platform:
    """Where the connectors of a test are connected to; a test says what goes wrong there."""

    def __init__(self) -> None:
        self.connectors: dict[str, Radio] = {}
        self.blocks: dict[str, str] = {}
        self.trouble: dict[str, BaseException] = {}
        self.check_trouble: dict[str, BaseException] = {}
        self.loads: list[str] = []
        self.closed: list[str] = []
        self.stuck: set[str] = set()

    async def load(self, held: HeldAccount, hub: Calls) -> Loaded:
        self.loads.append(held.name)
        if error := self.trouble.get(held.name):
            raise error
        return Loaded(Block(self), self.blocks.get(held.name, "") + held.block)

    def listening(self, hub: Hub, *, everything: bool = True) -> Listening:
        token = hub.tokens[Role.LISTENERS]
        return Listening(hub.address, token, everything=everything, load=self.load, patience=QUICK)


class Block:
    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    def connector(self, account: str) -> Connector:
        return Radio(account, self._platform)


class Radio(Connector):
    """Hears what a test puts on the air, and sends into a list."""

    name = "test"
    capabilities = Capabilities(hooks=True)

    def __init__(self, account: str, platform: Platform) -> None:
        super().__init__(account)
        self.platform = platform
        self.sent: list[tuple[str, str]] = []
        self.menu: tuple[CommandEntry, ...] = ()
        self.has_menu = asyncio.Event()
        self.failing: asyncio.Future[None] | None = None
        self.accept: Accept | None = None

    async def listen(self, accept: Accept) -> None:
        self.accept = accept
        self.failing = asyncio.get_running_loop().create_future()
        self.platform.connectors[self.account] = self
        while self.account in self.platform.stuck:
            try:
                await self.failing
            except asyncio.CancelledError:
                self.failing = asyncio.get_running_loop().create_future()
        await self.failing

    async def send_message(self, reply: Reply, route: Route, *, token: str = "") -> Receipt:
        if reply.text == "crash":
            raise ZeroDivisionError("inside of the SDK")
        self.sent.append((token, reply.text))
        return Receipt(native_ids=(f"sent-{token}",))

    async def check(self) -> None:
        if error := self.platform.check_trouble.get(self.account):
            raise error

    async def handle_hook(self, request: HookRequest, accept: Accept) -> HookResponse:
        accepted = await accept(message(request.body.decode(), native_id="h1"))
        return HookResponse(body=accepted.id.encode())

    async def catalogue_changed(self, commands: tuple[CommandEntry, ...]) -> None:
        self.menu = commands
        self.has_menu.set()

    async def aclose(self) -> None:
        self.platform.closed.append(self.account)

    def fail(self, error: BaseException) -> None:
        """End listening as a connector does that cannot go on."""
        assert self.failing is not None
        self.failing.set_exception(error)
