"""What the contract suite asks of a fake platform, and waiting for what must come.

`tests.fakes.<connector's name>` has a constant `DRIVER`: a class without arguments that keeps `Driver`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, Self

from parley.messages import Button, Connector, File

Failure = Literal["rate_limited", "unreachable", "unknown", "auth", "rejected"]

PATIENCE = 10.0
"""Seconds that anything awaited may take; reached only when a test fails."""


@dataclass(frozen=True)
class Sent:
    """A message from us as people on the platform see it: entities decoded, the platform's markup left as it is.

    Answer of one `send_message` as far as people see one message; `thread` and `conversation` compare with a `Route`'s.
    """

    text: str
    thread: str | None = None
    files: tuple[File, ...] = ()
    buttons: tuple[Button, ...] = ()
    conversation: str = ""
    private_to: str | None = None


class Driver(Protocol):
    """One platform, started for one test, with people on it."""

    name: ClassVar[str]
    cannot_fail: ClassVar[Mapping[Failure, str]]
    """Failures that this platform does not know, each with the reason: the tests that need them are skipped."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *_: object) -> None: ...

    def connector(self, account: str) -> Connector:
        """A connector pointed at the peer, with good credentials. The test closes it."""

    def broken_connector(self, account: str) -> Connector:
        """The same with credentials that the peer refuses."""

    def secrets(self) -> tuple[str, ...]:
        """The credentials in use: none of them may ever be printed, logged or be in an error's text."""

    async def person_says(
        self,
        text: str,
        *,
        person: str = "alice",
        thread: str | None = None,
        files: tuple[File, ...] = (),
        direct: bool = True,
    ) -> str:
        """A person writes to us, alone or where others read it too; returns the native id of the message.

        May be called before a connector listens: the platform then delivers it when one does.
        """

    async def redeliver(self, native_id: str) -> None:
        """The platform sends the same event again, as it does when it was not acknowledged."""

    async def sent(self, n: int) -> list[Sent]:
        """The messages from us, in order, as soon as there are `n`; fails when there are not in time."""

    def refuse_next(self, how: Failure, retry_after: float | str = 1) -> None:
        """Let the next send fail so, once. A refused send does not arrive."""

    async def cut(self) -> None:
        """Drop all connections; the peer stays up."""

    def acknowledged(self, native_id: str) -> bool:
        """Whether the platform was told that this message is taken."""


async def eventually(true: Callable[[], object], what: str, within: float = PATIENCE) -> None:
    """Wait until it is true. Raises `AssertionError`, saying what never came."""
    try:
        async with asyncio.timeout(within):
            while not true():  # noqa: ASYNC110 - the condition is anybody's: there is no event to await
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"never came within {within} s: {what}") from None
