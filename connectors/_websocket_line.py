"""One connection to a WebSocket, that both hears and asks."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Any

from parley.errors import (
    AuthError,
    ConfigurationError,
    ConnectorError,
    Unknown,
    Unreachable,
)

if TYPE_CHECKING:
    import ssl as tls

    from websockets.asyncio.client import ClientConnection

OPEN_WITHIN = 10.0
CLOSE_WITHIN = 1.0
BACKLOG = 1000  # frames that wait to be handled; one more is left out
IN_A_ROW = 50  # frames that are read before whoever handles them has a turn: many come in one packet

log = logging.getLogger(__name__)
# The library writes every frame to its log at DEBUG, the login too: it gets its own, which stays quiet.
_wire_log = logging.getLogger(f"{__name__}.wire")
_wire_log.setLevel(logging.WARNING)

Raw = str | bytes
Sort = Callable[[Raw], tuple[str | None, Any]]
"""What a frame is: the key of the question that it may answer, and the frame as it is handed on (None: not at all).

What answers no question that was asked is heard."""

REFUSALS = frozenset({1008, 3000, 3003, 4401, 4403})
"""Codes with which a connection is closed whose login is refused: policy, unauthorized, forbidden."""


async def dial(
    url: str,
    *,
    max_frame: int,
    headers: Mapping[str, str] | None = None,
    ssl: tls.SSLContext | None = None,
    pings: float | None = 20.0,
) -> ClientConnection:
    """Open a connection. `pings`: seconds between probes of the protocol's own, None for none.

    Raises `AuthError` for 401 and 403, `Unreachable` for every other way to fail, `ConfigurationError` for no address.
    """
    from websockets.asyncio.client import connect
    from websockets.exceptions import InvalidHandshake, InvalidStatus, InvalidURI

    trust: dict[str, Any] = {} if ssl is None else {"ssl": ssl}
    try:
        return await connect(
            url,
            **trust,
            additional_headers=headers,
            compression=None,
            open_timeout=OPEN_WITHIN,
            close_timeout=CLOSE_WITHIN,
            ping_interval=pings,
            ping_timeout=pings,
            max_size=max_frame,
            logger=_wire_log,
        )
    except InvalidURI:
        raise ConfigurationError("The address is no WebSocket address: wss://host/path.") from None
    except InvalidStatus as error:
        status = error.response.status_code
        if status in {401, 403}:
            raise AuthError(f"The peer refuses our credentials ({status}).") from None
        raise Unreachable(f"The peer does not open a WebSocket ({status}).") from None
    except (OSError, TimeoutError, InvalidHandshake, EOFError) as error:
        raise Unreachable(f"The peer cannot be reached ({type(error).__name__}).") from None


def leave_out() -> None:
    """Say that a frame was left out, because `BACKLOG` others wait."""
    log.error("more comes than can be stored: a frame is left out")


def _connection_closed() -> type[Exception]:
    # Named where something was raised, and imported only then: this is looked at for each frame.
    from websockets.exceptions import ConnectionClosed

    return ConnectionClosed


class Line:
    """One open connection. What it hears waits until somebody follows it; `ended` says why it is over."""

    def __init__(self, socket: ClientConnection, sort: Sort) -> None:
        from websockets.protocol import State

        self._open = State.OPEN
        self.ended: ConnectorError | None = None
        self._heard: deque[Any] = deque()
        self._follower: Callable[[Any], None] | None = None
        self._socket, self._sort = socket, sort
        self._over = asyncio.Event()
        self._answers: dict[str, asyncio.Future[Any]] = {}
        self._unsent: list[bytes] = []
        self._to_acknowledge = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self.attach(self._read())
        self.attach(self._acknowledge())

    def attach(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something beside the connection, for as long as it lasts; it ends the connection by raising."""
        self._tasks.add(asyncio.create_task(self._guarded(work)))

    @property
    def is_open(self) -> bool:
        """Whether something can still be sent over it."""
        return self.ended is None and self._socket.state is self._open

    async def follow(self, take: Callable[[Any], None]) -> None:
        """Hand on what is heard, at once and in order, until the connection has ended. `take` does not raise."""
        while self._heard:
            take(self._heard.popleft())
        self._follower = take
        await self._over.wait()

    async def tell(self, text: str) -> None:
        """Send a frame that nothing answers. Raises `Unreachable` when it was not sent, `Unknown` when it may be."""
        if not self.is_open:
            raise Unreachable("The connection has ended.")
        try:
            await self._socket.send(text)
        except _connection_closed():
            raise Unknown("The connection ended while we sent.") from None

    def acknowledge(self, text: str) -> None:
        """Send a frame that nothing answers, in one piece with others of the same moment.

        One that does not arrive does no harm: the peer says again what it is about.
        """
        if len(self._unsent) < BACKLOG:
            self._unsent.append(text.encode())
            self._to_acknowledge.set()

    async def ask(self, key: str, text: str | None, within: float) -> Any:
        """Send a frame, if any, and return what answers it. Raises `Unreachable`; `Unknown` without an answer."""
        answer = self._answers[key] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(within):
                if text is not None:
                    await self.tell(text)
                return await answer
        except TimeoutError:
            raise Unknown(f"No answer within {within:g} s.") from None
        finally:
            self._answers.pop(key, None)

    async def ping(self, within: float) -> None:
        """Prove that the peer is there. Raises `Unreachable`."""
        from websockets.exceptions import ConnectionClosed

        try:
            async with asyncio.timeout(within):
                await (await self._socket.ping())
        except (TimeoutError, ConnectionClosed) as error:
            await self.read_to_its_end()
            why = self.ended or Unreachable(f"The peer answers no ping ({type(error).__name__}).")
            self.end(why)
            raise type(why)(str(why)) from None

    async def stays(self, seconds: float) -> None:
        """See whether the peer keeps us. Raises why it did not."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._over.wait()
        if self.ended is not None:
            raise type(self.ended)(str(self.ended))

    async def read_to_its_end(self) -> None:
        """Read what came before the peer closed it: the reason may be among it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(2 * CLOSE_WITHIN):
                await self._over.wait()

    def end(self, why: ConnectorError) -> None:
        """It is over: whoever waits for an answer learns that none comes."""
        if self.ended is not None:
            return
        self.ended = why
        self._over.set()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(Unknown("The connection ended before the answer came."))
                answer.exception()  # who asked may still be sending, and learns of it there

    async def close(self) -> None:
        """Leave no task and no socket."""
        self.end(Unreachable("The connection was closed by us."))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            await self._socket.close()
        finally:
            self._socket.transport.abort()

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except ConnectorError as error:
            self.end(error)
        except Exception as error:
            log.exception("a connection failed by itself")
            self.end(Unreachable(f"The connection failed ({type(error).__name__})."))

    async def _acknowledge(self) -> None:
        while True:
            await self._to_acknowledge.wait()
            self._to_acknowledge.clear()
            unsent, self._unsent = self._unsent, []
            if self.is_open:
                self._send_in_one(unsent)
            with suppress(OSError):  # why it ended is said by `_read`
                await self._socket.drain()

    def _send_in_one(self, frames: Sequence[bytes]) -> None:
        # The library writes each frame by itself: of small ones that is most of what they cost, on both sides.
        protocol = self._socket.protocol
        for frame in frames:
            protocol.send_text(frame)
        self._socket.transport.write(b"".join(protocol.data_to_send()))

    async def _read(self) -> None:
        from websockets.exceptions import ConnectionClosed

        for number in count(1):
            if number % IN_A_ROW == 0:
                await asyncio.sleep(0)
            try:
                raw = await self._socket.recv()
            except ConnectionClosed as error:
                code = error.rcvd.code if error.rcvd else 1006
                if code in REFUSALS:
                    raise AuthError(f"The peer refuses our credentials (it closed with {code}).") from None
                raise Unreachable(f"The connection was closed ({code}).") from None
            key, frame = self._sort(raw)
            answer = self._answers.get(key) if key is not None else None
            if answer is not None and not answer.done():
                answer.set_result(frame)
            elif frame is not None:
                self._hear(frame)

    def _hear(self, frame: Any) -> None:
        if self._follower is not None:
            self._follower(frame)
        elif len(self._heard) < BACKLOG:
            self._heard.append(frame)
        else:
            leave_out()
