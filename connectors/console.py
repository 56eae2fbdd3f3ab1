"""The console: the plain chat page, `parley say` and the REST API, as one more platform.

Its platform is the `Desk`, a place in this process: people log in there, what they say goes in and what they are
answered comes out. Whoever has logged in speaks with the id of their own principal, so that the sender is verified.
As on any other platform the connector needs a credential, the desk's key, and an event is acknowledged once it is
stored; what was not acknowledged is said again by the page or program that said it, under the same native id.

The hub holds this account itself and no listeners process does, because the people's port is the hub's: it makes the
connector (`Console("console")`, which brings a desk of its own), runs its `listen`, and gives `desk` to the web. So
the console works before any other process does, and needs no Block. `blocks.console.ConsoleAccount` is for programs
of one's own that want a console in their process.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections import OrderedDict, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, ClassVar
from uuid import uuid4

from pydantic import TypeAdapter, ValidationError

from parley.errors import AuthError, BadSignature, Rejected, StoreUnavailable, Unreachable, Unsupported
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
MOST_BEHIND = 1000
"""Posts that wait for one who looks on; who is further behind misses the oldest, and has them in the history."""

Said = tuple[dict[str, Any], asyncio.Future[Accepted]]


class Post(Model):
    """A reply as it appears in a console conversation."""

    id: str
    route: Route
    reply: Reply


class Desk:
    """Where people and the console meet: what they say goes in, what they are answered comes out."""

    def __init__(self, key: str = "") -> None:
        """`key` admits a console; without one, only a console that makes its own desk gets in."""
        self._key = key or secrets.token_urlsafe(32)
        self._said: asyncio.Queue[Said] = asyncio.Queue()
        self._watchers: dict[str, set[asyncio.Queue[Post]]] = defaultdict(set)
        self._posted: OrderedDict[str, None] = OrderedDict()
        self._open = asyncio.Event()
        self._open.set()

    def __repr__(self) -> str:
        return f"Desk(open={self.is_open})"

    # -- for people

    async def say(self, raw: dict[str, Any]) -> Accepted:
        """Hand an event in; returns once it is stored. Raises `BadSignature` for junk, else what `accept` raises."""
        if not self.is_open:
            raise StoreUnavailable("the console is closed: nothing was stored, say it again later.")
        taken: asyncio.Future[Accepted] = asyncio.get_running_loop().create_future()
        await self._said.put((raw, taken))
        return await taken

    @asynccontextmanager
    async def watching(self, conversation: str) -> AsyncIterator[asyncio.Queue[Post]]:
        """What is posted in a conversation from now on."""
        queue: asyncio.Queue[Post] = asyncio.Queue()
        self._watchers[conversation].add(queue)
        try:
            yield queue
        finally:
            self._watchers[conversation].discard(queue)
            if not self._watchers[conversation]:
                del self._watchers[conversation]

    # -- for the console; `key` is what admits it

    def admit(self, key: str) -> None:
        """Let this key in. Raises `AuthError`, or `Unreachable` while the desk is closed."""
        if not self.is_open:
            raise Unreachable("the console is closed")
        if not hmac.compare_digest(key.encode(), self._key.encode()):
            raise AuthError(
                "this desk does not know the console's key: make the console with the desk's own."
            )

    async def next(self, key: str) -> Said:
        """The next thing said that somebody still waits for, and where to put the answer. Waits while it is closed."""
        while True:
            while not self.is_open:
                await self._open.wait()
            self.admit(key)
            raw, taken = await self._said.get()
            if not taken.done():
                return raw, taken

    def post(self, key: str, post: Post) -> None:
        """Show a reply to all who look at its conversation; a repeated id is shown once."""
        self.admit(key)
        if post.id in self._posted:
            return
        self._posted[post.id] = None
        if len(self._posted) > _REMEMBERED:
            self._posted.popitem(last=False)
        for queue in self._watchers.get(post.route.conversation, ()):
            if queue.qsize() >= MOST_BEHIND:
                queue.get_nowait()
            queue.put_nowait(post)

    # -- opening hours

    @property
    def is_open(self) -> bool:
        """Whether people can speak and be answered."""
        return self._open.is_set()

    def close(self) -> None:
        """Take nothing more, show nothing more; what nobody has taken yet is not stored, and its speakers are told."""
        self._open.clear()
        while not self._said.empty():
            _, taken = self._said.get_nowait()
            refuse(taken)

    def reopen(self) -> None:
        """Be there again."""
        self._open.set()


def refuse(taken: asyncio.Future[Accepted]) -> None:
    """Tell who waits for this that it was not stored."""
    if not taken.done():
        taken.set_exception(
            StoreUnavailable("the console was interrupted: nothing was stored, say it again.")
        )


def _told(taken: asyncio.Future[Accepted], _: asyncio.Task[None]) -> None:
    refuse(taken)


def parse(raw: dict[str, Any], account: str) -> Event:
    """What was said at the desk, as an event of this account. Raises `BadSignature` when it is not one."""
    try:
        event = _EVENT.validate_python(raw | {"account": account})
    except ValidationError as error:
        # Without its text, which repeats what was said.
        raise BadSignature(
            f"this is not an event of the console: {error.error_count()} parts of it are wrong."
        ) from None
    ids = (event.native_id, event.sender.id, event.route.conversation, event.route.thread or "")
    if any("\0" in one for one in ids):
        raise BadSignature("this is not an event of the console: no id has a NUL in it.")
    return event.model_copy(update={"route": event.route.model_copy(update={"account": account})})


def render(reply: Reply, route: Route, token: str) -> Post:
    """A reply as it is shown. Raises `Rejected` for nothing at all, `Unsupported` for what the page cannot show."""
    if reply.is_empty():
        raise Rejected("There is nothing to show.")
    if reply.table is not None or len(reply.buttons) > Console.capabilities.max_buttons:
        raise Unsupported("The console shows no tables, and at most 25 buttons: render the reply down first.")
    return Post(id=token or uuid4().hex, route=route, reply=reply)


class Console(Connector):
    """The console's account; made in the process where the desk is."""

    name: ClassVar[str] = "console"
    capabilities: ClassVar[Capabilities] = Capabilities(
        max_text=100_000,
        markup="markdown",
        threads=True,
        private=True,  # a conversation here has one reader
        max_buttons=25,
        max_file=MAX_FILE,
        idempotent_send=True,
    )

    def __init__(self, account: str, desk: Desk | None = None, key: str = "") -> None:
        """At this desk, with its key; without a desk, at a new one of its own."""
        super().__init__(account)
        self._key = key or secrets.token_urlsafe(32)
        self._own_desk = desk is None
        self.desk = desk or Desk(self._key)

    def __repr__(self) -> str:
        return f"Console(account={self.account!r})"

    async def listen(self, accept: Accept) -> None:
        """Take what is said, in its order; each is answered after its commit."""
        storing: set[asyncio.Task[None]] = set()
        try:
            while True:
                raw, taken = await self.desk.next(self._key)
                task = asyncio.create_task(self._take(raw, taken, accept))
                storing.add(task)
                task.add_done_callback(storing.discard)
                # A task that is cancelled before it began runs no code of its own that could tell them.
                task.add_done_callback(partial(_told, taken))
        finally:
            for task in storing:
                task.cancel()
            await asyncio.gather(*storing, return_exceptions=True)

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
        if route.account != self.account:
            raise Rejected("This answer belongs to another account.")
        post = render(reply, route, token)
        self.desk.post(self._key, post)
        return Receipt(native_ids=(post.id,))

    async def check(self) -> None:
        """The desk is there, and knows our key."""
        self.desk.admit(self._key)

    async def aclose(self) -> None:
        """Close a desk of our own; one that we were given stays open."""
        if self._own_desk:
            self.desk.close()


CONNECTOR = Console
