"""The console for the contract suite: its platform is the real `Desk`, and people who have logged in there.

Nobody reads along on the console: what is not said directly is said in a thread of one's own conversation.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any, ClassVar, Self
from uuid import uuid4

from connectors.console import Console, Desk, Post
from parley.messages import Accepted, File
from tests.fakes._driver import Failure, Sent, eventually

KEY, WRONG_KEY = "desk-key-0123456789", "another-key-0123456789"
PEOPLE = ("alice", "bob")


class TroubledDesk(Desk):
    """The desk, which can be closed or have its key changed for the next post."""

    def __init__(self) -> None:
        super().__init__(KEY)
        self.next_time: Failure | None = None

    def post(self, key: str, post: Post) -> None:
        trouble, self.next_time = self.next_time, None
        if trouble == "unreachable":
            self.close()
        if trouble == "auth":
            self._key = "changed"
        try:
            super().post(key, post)
        finally:
            self._key = KEY
            self.reopen()


class ConsoleDriver:
    """The console for the contract suite."""

    name: ClassVar[str] = "console"
    cannot_fail: ClassVar[Mapping[Failure, str]] = {
        "rate_limited": "the desk never asks anybody to wait",
        "unknown": "a post within one process has happened or it has not",
        "rejected": "the desk looks at no text; what the console itself refuses is tested by itself",
    }

    def __init__(self) -> None:
        self.desk = TroubledDesk()
        self._people = AsyncExitStack()
        self._screens: list[asyncio.Queue[Post]] = []
        self._seen: list[Post] = []
        self._raw: dict[str, dict[str, Any]] = {}
        self._saying: dict[str, list[asyncio.Task[Accepted]]] = {}

    async def __aenter__(self) -> Self:
        for person in PEOPLE:
            self._screens.append(await self._people.enter_async_context(self.desk.watching(person)))
        return self

    async def __aexit__(self, *_: object) -> None:
        self.desk.close()
        waiting = [task for tasks in self._saying.values() for task in tasks]
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await self._people.aclose()

    def connector(self, account: str) -> Console:
        return Console(account, self.desk, KEY)

    def broken_connector(self, account: str) -> Console:
        return Console(account, self.desk, WRONG_KEY)

    def secrets(self) -> tuple[str, ...]:
        return (KEY, WRONG_KEY)

    async def person_says(
        self,
        text: str,
        *,
        person: str = "alice",
        thread: str | None = None,
        files: tuple[File, ...] = (),
        direct: bool = True,
    ) -> str:
        native_id = f"{person}:{uuid4().hex}"
        thread = thread or (None if direct else f"topic-{native_id}")
        self._raw[native_id] = {
            "type": "message",
            "native_id": native_id,
            "sender": {"id": f"principal-{person}", "name": person},
            # The people's port knows the console by its usual name: the connector puts its own there.
            "route": {"account": "console", "conversation": person, "thread": thread},
            "text": text,
            "files": files,
        }
        await self.redeliver(native_id)
        return native_id

    async def redeliver(self, native_id: str) -> None:
        """A page that was not told that its message is stored sends it again, under the same id."""
        task = asyncio.create_task(self.desk.say(self._raw[native_id]))
        self._saying.setdefault(native_id, []).append(task)

    async def sent(self, n: int) -> list[Sent]:
        await eventually(lambda: len(self._look()) >= n, f"{n} messages from us")
        return [_as_seen(post) for post in self._look()]

    def refuse_next(self, how: Failure, retry_after: float | str = 1) -> None:
        self.desk.next_time = how

    async def cut(self) -> None:
        self.desk.close()
        self.desk.reopen()

    def acknowledged(self, native_id: str) -> bool:
        return any(_is_taken(task) for task in self._saying[native_id])

    def _look(self) -> list[Post]:
        for screen in self._screens:
            while not screen.empty():
                self._seen.append(screen.get_nowait())
        return self._seen


def _is_taken(task: asyncio.Task[Accepted]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None


def _as_seen(post: Post) -> Sent:
    return Sent(
        text=post.reply.text,
        thread=post.route.thread,
        files=post.reply.files,
        buttons=post.reply.buttons,
        conversation=post.route.conversation,
        private_to=post.route.private_to,
    )


DRIVER = ConsoleDriver
