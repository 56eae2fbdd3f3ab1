"""An inbox for connectors under test, and listening into it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from parley.errors import StoreUnavailable
from parley.messages import Accepted, Connector, Event, Message
from tests.fakes._driver import eventually


class Heard:
    """An inbox that keeps what it is given, however often; it can be out of order, or not come back."""

    def __init__(self) -> None:
        self.given: list[Event] = []
        self.attempts = 0
        self.down = False
        self.stuck = False

    async def accept(self, event: Event) -> Accepted:
        self.attempts += 1
        if self.down:
            raise StoreUnavailable("down")
        self.given.append(event)
        if self.stuck:
            await asyncio.Event().wait()
        return Accepted(id=event.native_id, new=True)

    @property
    def messages(self) -> list[Message]:
        return [event for event in self.given if isinstance(event, Message)]

    @property
    def texts(self) -> list[str]:
        return [message.text for message in self.messages]

    async def hears(self, *texts: str) -> None:
        await eventually(lambda: set(texts) <= set(self.texts), f"{texts}; there is {self.texts}")

    def one(self, text: str) -> Message:
        return next(message for message in self.messages if message.text == text)


@asynccontextmanager
async def listening(connector: Connector, heard: Heard) -> AsyncIterator[asyncio.Task[None]]:
    """Listen for as long as the test is in here; it must not end by itself."""
    task = asyncio.create_task(connector.listen(heard.accept))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task})
    assert task.cancelled(), f"listening ended by itself: {task.exception()!r}"
