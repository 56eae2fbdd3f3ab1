"""The connection of an account, shared by those who listen and those who send: opened by whoever needs it first."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from connectors._waiting import pause
from connectors._websocket_line import BACKLOG, Line, leave_out
from connectors._workers import Workers
from parley.errors import AuthError, ConnectorError, StoreUnavailable, Superseded, Unreachable

if TYPE_CHECKING:
    from parley.messages import Accept, Event

STEADY = 10.0  # seconds after which a connection counts as a good one
IN_FLIGHT = 50  # frames that are handled at once
GRACE = 5.0  # seconds that what is being stored gets when listening ends by itself

log = logging.getLogger(__name__)


class SharedLine:
    """The one connection of an account, whoever needs it: those who listen, those who send."""

    def __init__(self, open_line: Callable[[], Awaitable[Line]]) -> None:
        self._open = open_line
        self._line: Line | None = None
        self._superseded: Superseded | None = None
        self._opening = asyncio.Lock()
        self._waiting = asyncio.Lock()

    async def get(self) -> Line:
        """The connection, opened if there is none. Raises what opening raises, and `Superseded` once it has been."""
        async with self._opening:
            if self._line is not None and not self._line.is_open:
                await self._line.read_to_its_end()
                if isinstance(self._line.ended, Superseded):
                    self._superseded = self._line.ended
            if self._superseded is not None:
                raise Superseded(str(self._superseded))
            if self._line is None or not self._line.is_open:
                await self._drop()
                self._line = await self._open()
            return self._line

    async def close(self) -> None:
        """Close it, if there is one; may be called twice."""
        async with self._opening:
            await self._drop()

    async def store(self, accept: Accept, event: Event) -> None:
        """Have an event stored, however long that takes: for peers that say everything once.

        While the store takes nothing one asks for all, and what waits goes in afterwards in the order in which it came.
        """
        if not self._waiting.locked():
            try:
                await accept(event)
            except StoreUnavailable:
                pass
            else:
                return
        async with self._waiting:
            failures = 1
            while True:
                await asyncio.sleep(pause(failures))
                try:
                    await accept(event)
                except StoreUnavailable:
                    failures += 1
                else:
                    return

    async def listen(self, who: str, handle: Callable[[Line, Any], Awaitable[None]]) -> None:
        """Handle what is heard until cancelled, `AuthError` or `Superseded`; connect again after every other end."""
        failures, grace = 0, GRACE
        workers = Workers[tuple[Line, Any]](_guarded(handle), IN_FLIGHT)
        self._superseded = None  # to listen anew is a decision; to send is not
        try:
            while True:
                wait, began = 0.0, time.monotonic()
                try:
                    await self._serve(await self.get(), workers)
                except Superseded as error:
                    self._superseded = error
                    raise
                except AuthError:
                    raise
                except ConnectorError as error:
                    log.warning("%s: %s", who, error)
                    wait = getattr(error, "retry_after", 0.0)
                failures = 0 if time.monotonic() - began > STEADY else failures + 1
                await asyncio.sleep(max(wait, pause(failures)))
        except asyncio.CancelledError:
            grace = 0.0
            raise
        finally:
            try:
                # What was heard belongs to no connection: it survives the end of one.
                await workers.finish(grace)
            finally:
                await self.close()

    async def _serve(self, line: Line, workers: Workers[tuple[Line, Any]]) -> None:
        def take(frame: Any) -> None:
            if workers.open < BACKLOG:
                workers.put((line, frame))
            else:
                leave_out()

        await line.follow(take)
        raise line.ended or Unreachable("The connection has ended.")

    async def _drop(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            with suppress(OSError):
                await line.close()


def _guarded(handle: Callable[[Line, Any], Awaitable[None]]) -> Callable[[tuple[Line, Any]], Awaitable[None]]:
    async def handled(heard: tuple[Line, Any]) -> None:
        try:
            await handle(*heard)
        except ConnectorError as error:
            log.warning("a frame was left out: %s", error)
        except Exception:
            log.exception("a frame was left out")

    return handled
