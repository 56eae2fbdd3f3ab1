"""The console: the plain chat page, `parley say` and the REST API, as one more platform.

Its platform is the `Desk`, which lives in the hub: whoever has logged in there speaks through it, so that the sender's
id is the principal's own and is verified. Everything else is as on any other platform.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from pydantic import TypeAdapter

from parley.errors import BadSignature, Unreachable
from parley.messages import (
    MAX_FILE,
    Accept,
    Accepted,
    Capabilities,
    Connector,
    Event,
    Receipt,
    Reply,
    Route,
)
from parley.messages.model import Model

_EVENT: TypeAdapter[Event] = TypeAdapter(Event)
_REMEMBERED = 10_000


class Post(Model):
    """A reply as it appears in a console conversation."""

    id: str
    route: Route
    reply: Reply


class Desk:
    """Where people and the console meet: what they say goes in, what they are answered comes out."""

    def __init__(self) -> None:
        self._said: asyncio.Queue[tuple[dict[str, Any], asyncio.Future[Accepted]]] = asyncio.Queue()
        self._listeners: dict[str, set[asyncio.Queue[Post]]] = defaultdict(set)
        self._posted: OrderedDict[str, None] = OrderedDict()
        self.open = True

    async def say(self, raw: dict[str, Any]) -> Accepted:
        """Hand an event in; returns once it is stored. Raises `BadSignature` for junk, else what `accept` raises."""
        taken: asyncio.Future[Accepted] = asyncio.get_running_loop().create_future()
        await self._said.put((raw, taken))
        return await taken

    async def next(self) -> tuple[dict[str, Any], asyncio.Future[Accepted]]:
        """The next thing said, and where to put the answer."""
        return await self._said.get()

    def post(self, post: Post) -> None:
        """Show a reply to all who look at its conversation; a repeated id is shown once."""
        if not self.open:
            raise Unreachable("the console is closed")
        if post.id in self._posted:
            return
        self._posted[post.id] = None
        if len(self._posted) > _REMEMBERED:
            self._posted.popitem(last=False)
        for queue in self._listeners.get(post.route.conversation, ()):
            queue.put_nowait(post)

    @asynccontextmanager
    async def watching(self, conversation: str) -> AsyncIterator[asyncio.Queue[Post]]:
        """What is posted in a conversation from now on."""
        queue: asyncio.Queue[Post] = asyncio.Queue()
        self._listeners[conversation].add(queue)
        try:
            yield queue
        finally:
            self._listeners[conversation].discard(queue)
            if not self._listeners[conversation]:
                del self._listeners[conversation]


def parse(raw: dict[str, Any], account: str) -> Event:
    """What was said at the desk, as an event of this account. Raises `BadSignature` when it is not one."""
    try:
        return _EVENT.validate_python(raw | {"account": account})
    except ValueError as error:
        raise BadSignature(f"this is not an event of the console: {error}") from error


def render(reply: Reply, route: Route, token: str) -> Post:
    """A reply as it is shown."""
    return Post(id=token, route=route, reply=reply)


class Console(Connector):
    """The console's account; made in the process where the desk is."""

    name = "console"
    capabilities = Capabilities(
        max_text=100_000,
        markup="markdown",
        threads=True,
        private=True,
        max_buttons=25,
        max_file=MAX_FILE,
        idempotent_send=True,
    )

    def __init__(self, account: str, desk: Desk | None = None) -> None:
        super().__init__(account)
        self.desk = desk or Desk()

    async def listen(self, accept: Accept) -> None:
        """Take what is said, one after the other; each is answered after its commit."""
        while True:
            raw, taken = await self.desk.next()
            task = asyncio.create_task(self._take(raw, taken, accept))
            task.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def _take(self, raw: dict[str, Any], taken: asyncio.Future[Accepted], accept: Accept) -> None:
        try:
            accepted = await accept(parse(raw, self.account))
        except Exception as error:  # noqa: BLE001  handed to whoever said it
            if not taken.done():
                taken.set_exception(error)
        else:
            if not taken.done():
                taken.set_result(accepted)

    async def send_message(self, reply: Reply, route: Route, *, token: str = "") -> Receipt:
        """Show a reply in its conversation."""
        self.desk.post(render(reply, route, token))
        return Receipt(native_ids=(token,))

    async def check(self) -> None:
        """The desk is in this process: it is there."""
        if not self.desk.open:
            raise Unreachable("the console is closed")


CONNECTOR = Console
