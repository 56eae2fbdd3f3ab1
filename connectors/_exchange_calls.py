"""Blocking calls in threads that can be ended: each call knows its sockets, and whether it has sent anything yet.

No socket is closed under a thread that reads it: a duplicate of its handle is shut down, which ends the read at once,
whether it is in a TLS handshake, waits for an answer, or in a stream that lasts for minutes.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from parley.errors import Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")
_LONGEST_END = 15.0
"""Seconds that an interrupted call may take to end; only a name look-up cannot be interrupted."""


class Call:
    """One piece of blocking work, as its thread and its owner see it."""

    def __init__(self) -> None:
        self.begun = False
        """Whether a byte of the request may have left: until then nobody can have acted on it."""
        self.had_token = False
        """Whether an access token was used that was fetched for an earlier call."""
        self.fresh_token = False
        """Whether one was fetched for this call: then another one would be refused as well."""
        self._handles: dict[int, socket.socket] = {}
        self._interrupted = False
        self._lock = threading.Lock()

    def uses(self, sock: socket.socket) -> None:
        """This call goes on over that connection. Raises `Unreachable` when it was interrupted."""
        with self._lock:
            if self._interrupted:
                raise Unreachable("The call was ended by us.")
            number = sock.fileno()
            if number >= 0 and number not in self._handles:
                self._handles[number] = socket.socket(fileno=os.dup(number))

    def interrupt(self) -> None:
        """End whatever it waits for."""
        with self._lock:
            self._interrupted = True
            for handle in self._handles.values():
                with suppress(OSError):
                    handle.shutdown(socket.SHUT_RDWR)

    def run(self, work: Callable[[], _T]) -> _T:
        """Do the work, with this call as the current one of its thread."""
        if self._interrupted:
            raise Unreachable("The call was ended by us.")
        _here.call = self
        try:
            return work()
        finally:
            _here.call = None
            with self._lock:
                for handle in self._handles.values():
                    handle.close()
                self._handles.clear()


class _Here(threading.local):
    call: Call | None = None


_here = _Here()


def current() -> Call:
    """The call that this thread is in."""
    return _here.call or Call()


class Threads:
    """The threads of one account. Not shared between event loops."""

    def __init__(self, most: int, name: str) -> None:
        self._most, self._name = most, name
        self._pool: ThreadPoolExecutor | None = None
        self._running: dict[Call, asyncio.Future[Any]] = {}

    async def call(self, work: Callable[[], _T]) -> _T:
        """Do blocking work in a thread. Cancelling interrupts it, waits for its end, then returns."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(max_workers=self._most, thread_name_prefix=self._name)
        call = Call()
        future = asyncio.get_running_loop().run_in_executor(self._pool, call.run, work)
        self._running[call] = future
        future.add_done_callback(lambda _: self._running.pop(call, None))
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            call.interrupt()
            await _ended({future})
            raise

    async def aclose(self) -> None:
        """Interrupt all calls, wait for them and end the threads."""
        for call in list(self._running):
            call.interrupt()
        await _ended(set(self._running.values()))
        pool, self._pool = self._pool, None
        if pool is not None:
            # With no work left this waits for nothing. A thread that is stuck in a name look-up ends by itself, later.
            ended = all(future.done() for future in self._running.values())
            pool.shutdown(wait=ended, cancel_futures=True)


async def _ended(futures: set[asyncio.Future[Any]]) -> None:
    if not futures:
        return
    done, _ = await asyncio.wait(futures, timeout=_LONGEST_END)
    for future in done:
        if not future.cancelled():
            future.exception()  # it is ours: nobody else will ask what became of the work
