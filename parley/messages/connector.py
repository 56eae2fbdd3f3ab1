"""The Connector contract: one platform account, seen from the engine.

Three things must be written: `listen`, `send_message`, `check`. All else has a default and is declared in
`Capabilities`. By convention each connector module also has two pure functions, `parse` (platform data -> Event or
None) and `render` (Reply, Route -> the platform's request), so that what it understands can be tested without I/O.

How platforms without a connection of ours fit: a callback platform (WeCom, Teams, LINE) sets `Capabilities.hooks`,
takes each request in `handle_hook` (signature over the raw bytes, challenge answers, `accept`, then 2xx) and lets
`listen` keep its token fresh; what it needs to answer later (service URL, session webhook) travels in
`Route.context`. A platform without event ids (IRC, MQTT) derives them with `derived_id`, and declares its senders
`claimed`.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import ClassVar, Self

from parley.errors import Unknown, Unsupported
from parley.messages.model import (
    Accepted,
    Assurance,
    Capabilities,
    CommandEntry,
    Event,
    HookRequest,
    HookResponse,
    Receipt,
    Reply,
    Route,
)

Accept = Callable[[Event], Awaitable[Accepted]]
"""Stores an event; returns after the commit. Raises `StoreUnavailable`: then do not acknowledge the platform."""


class Connector(ABC):
    """One account on one platform. Made by its Block; not shared between event loops."""

    name: ClassVar[str]
    """The platform's name: the module's name, the Block's kind, the metrics' label."""
    capabilities: ClassVar[Capabilities] = Capabilities()
    assurance: ClassVar[Assurance] = Assurance.VERIFIED

    account: str
    """The account's unique name in this installation; stamped on every event and route."""

    def __init__(self, account: str) -> None:
        self.account = account

    @abstractmethod
    async def listen(self, accept: Accept) -> None:
        """Receive until cancelled: verify, normalise, `await accept(event)`, only then acknowledge the platform.

        Reconnects by itself, with back-off and jitter. Returns only by cancellation or by `AuthError`. Cancelling
        leaves no task and no socket behind.
        """

    @abstractmethod
    async def send_message(self, reply: Reply, route: Route, *, token: str = "") -> Receipt:
        """Send one reply, already rendered down to `capabilities`, to exactly this route; return its receipt.

        `token` is this delivery's own id, the same at each attempt; used where the platform removes duplicates.
        Does not retry: raises `RateLimited`, `Unreachable`, `Unknown`, `Rejected` or `AuthError`; the outbox decides.
        """

    @abstractmethod
    async def check(self) -> None:
        """Prove, by a call to the platform, that the credentials work. Raises `AuthError` or `Unreachable`."""

    async def edit_message(self, native_id: str, reply: Reply, route: Route) -> Receipt:
        """Replace a message that we sent."""
        raise Unsupported(f"{self.name} cannot edit messages")

    async def find_sent(self, token: str, route: Route) -> Receipt | None:
        """Look whether the delivery with this token arrived: its receipt, or None when it surely did not.

        Asked after an attempt that ended with `Unknown`, where `idempotent_send` is not declared. Raises `Unknown`
        where that cannot be told: then nothing is sent again, and a person has to look.
        """
        raise Unknown(f"{self.name} cannot tell whether an earlier attempt arrived.")

    async def show_typing(self, route: Route) -> None:
        """Show that an answer is being made; silently nothing where there is no such thing."""

    async def handle_hook(self, request: HookRequest, accept: Accept) -> HookResponse:
        """Take one request from the hooks' port. Raises `BadSignature`, or `StoreUnavailable` (answered 503)."""
        raise Unsupported(f"{self.name} takes no hooks")

    async def catalogue_changed(self, commands: tuple[CommandEntry, ...]) -> None:
        """Be told the commands there are, to register them where the platform has a menu."""

    async def aclose(self) -> None:
        """Close connections; may be called twice."""

    async def receive_messages(self) -> AsyncIterator[Event]:
        """The same events as an iterator, acknowledged when the next one is asked for."""
        queue: asyncio.Queue[tuple[Event, asyncio.Future[Accepted]]] = asyncio.Queue(maxsize=1)

        async def accept(event: Event) -> Accepted:
            taken: asyncio.Future[Accepted] = asyncio.get_running_loop().create_future()
            await queue.put((event, taken))
            return await taken

        listening = asyncio.create_task(self.listen(accept))
        getting = asyncio.create_task(queue.get())
        try:
            while True:
                await asyncio.wait({getting, listening}, return_when=asyncio.FIRST_COMPLETED)
                if not getting.done():
                    await listening
                    return
                event, taken = getting.result()
                yield event
                taken.set_result(Accepted(id=event.native_id, new=True))
                getting = asyncio.create_task(queue.get())
        finally:
            getting.cancel()
            listening.cancel()
            with suppress(asyncio.CancelledError):
                await listening

    async def register_callback(self, handler: Callable[[Event], Awaitable[None]]) -> None:
        """Listen, and await `handler` for each event before the platform is acknowledged."""

        async def accept(event: Event) -> Accepted:
            await handler(event)
            return Accepted(id=event.native_id, new=True)

        await self.listen(accept)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
