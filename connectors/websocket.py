"""A WebSocket service of your own: we connect to it, log in with a header or a line, hear JSON or text, and answer.

How the service speaks is said by its `Protocol`: where the sender, the room and the text stand in a frame, how an
answer is put. What is heard is acknowledged, where the service wants that, after it is stored; a service that does not
repeat what it says loses nothing by it, for what the store cannot take is kept here and offered again.

Whether senders are who they say is the service's to vouch for: unless the account says that it does, they are claimed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal
from urllib.parse import urlsplit
from uuid import uuid4

from connectors._memory import Memory
from connectors._tls import is_loopback
from connectors._waiting import bounded
from connectors._websocket_frames import (
    Frame,
    Protocol,
    ack_frame,
    answers_login,
    holds,
    key_of,
    login_frame,
    mentions,
    object_in,
    parse,
    read,
    render,
    value_at,
)
from connectors._websocket_line import Line, Raw, dial
from connectors._websocket_shared import SharedLine
from parley.errors import AuthError, ConfigurationError, RateLimited, Rejected, Unknown, Unreachable
from parley.messages import (
    Accept,
    Assurance,
    Capabilities,
    Connector,
    ConversationKind,
    Message,
    Receipt,
    Reply,
    Route,
)

if TYPE_CHECKING:
    import ssl

__all__ = ["CONNECTOR", "Protocol", "WebSocket", "parse", "render"]

PING_EVERY = 20.0
ANSWER_WITHIN = 10.0
REFUSED_WITHIN = 1.0
MAX_FRAME = 1024 * 1024
_LOGIN = "\x00login"


class WebSocket(Connector):
    """One login at one service."""

    name: ClassVar[str] = "websocket"
    assurance: ClassVar[Assurance] = Assurance.CLAIMED
    capabilities: ClassVar[Capabilities] = Capabilities(max_text=20_000)

    def __init__(
        self,
        account: str,
        *,
        url: str,
        protocol: Protocol | None = None,
        secret: str = "",
        login_by: Literal["header", "line", "none"] = "header",
        hear: Literal["mentions", "along", "all"] = "all",
        trusted_senders: bool = False,
        allow_plain: bool = False,
        max_frame: int = MAX_FRAME,
        ping_every: float = PING_EVERY,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        """Open nothing yet. `ssl_context` is for certificates of your own; None trusts the system's.

        Raises `ConfigurationError`.
        """
        super().__init__(account)
        self._protocol = protocol or Protocol()
        _check_url(url, allow_plain=allow_plain)
        if login_by == "line" and not self._protocol.login:
            raise ConfigurationError("To log in with a line, write the line in login.")
        if login_by != "none" and not secret:
            raise ConfigurationError("secret is empty: what the service lets us in with.")
        if not secret.isprintable():
            raise ConfigurationError("secret has characters that no header or line can hold.")
        if hear != "all" and not self._protocol.mention:
            raise ConfigurationError(
                "To hear what mentions us, write in mention how people do, like @parley."
            )
        self._url, self._secret, self._login_by = url, secret, login_by
        self._hear, self._trusted = hear, trusted_senders
        self._max_frame, self._ping_every, self._ssl = max_frame, ping_every, ssl_context
        self._line = SharedLine(self._open)
        self._threads: Memory[tuple[str, str | None], bool] = Memory()

    def __repr__(self) -> str:
        return f"WebSocket(account={self.account!r})"

    # -- the connection

    async def _open(self) -> Line:
        headers = {"Authorization": f"Bearer {self._secret}"} if self._login_by == "header" else None
        socket = await dial(
            self._url, max_frame=self._max_frame, headers=headers, ssl=self._ssl, pings=self._ping_every
        )
        login = _Login(self._protocol)
        line = Line(socket, login.sort)
        try:
            await self._log_in(line)
        except BaseException:
            await line.close()
            raise
        login.done = True
        return line

    async def _log_in(self, line: Line) -> None:
        """Send the login's line, wait for its answer if there is to be one. Raises `AuthError`, `Unreachable`."""
        said = login_frame(self._protocol, self._secret) if self._login_by == "line" else None
        try:
            if self._protocol.login_ok:
                answer = await line.ask(_LOGIN, said, ANSWER_WITHIN)
                if not answers_login(answer, self._protocol.login_ok, self._protocol):
                    raise AuthError("The service refuses our secret.")
            elif said is not None:
                await line.tell(said)
        except Unknown:
            await line.read_to_its_end()
            if isinstance(line.ended, AuthError):
                raise AuthError(str(line.ended)) from None
            raise Unreachable("The service does not answer our login.") from None

    # -- receiving

    async def listen(self, accept: Accept) -> None:
        """Receive until cancelled. Raises `AuthError`."""

        async def handle(line: Line, frame: Frame) -> None:
            event = parse(frame, self._protocol, self.account, trusted=self._trusted)
            if event is None:
                return
            heard = self._heard(event, frame)
            if heard is not None:
                await self._line.store(accept, heard)
            acknowledged = ack_frame(self._protocol, frame)
            if acknowledged:
                line.acknowledge(acknowledged)

        await self._line.listen(f"websocket {self.account}", handle)

    def _heard(self, message: Message, frame: Frame) -> Message | None:
        """The message if it is for us, the same marked as said to others where we hear along, or None."""
        route = message.route
        if self._hear == "all" or route.kind is ConversationKind.DIRECT:
            return message
        if (route.conversation, route.thread) in self._threads or mentions(frame, self._protocol):
            return message
        return message.model_copy(update={"addressed": False}) if self._hear == "along" else None

    # -- sending

    async def send_message(self, reply: Reply, route: Route, *, token: str = "") -> Receipt:
        """Send one frame, and wait for its answer where the service gives one."""
        if route.account != self.account:
            raise Rejected("This answer belongs to another account.")
        key = token or uuid4().hex
        frame = render(reply, route, self._protocol, key)
        if len(frame.encode()) > self._max_frame:
            raise Rejected("The frame is larger than the service takes.")
        line = await self._line.get()
        native_id = key
        if self._protocol.answer:
            native_id = self._taken(await line.ask(key, frame, ANSWER_WITHIN)) or key
        else:
            await line.tell(frame)
        if route.thread:
            self._threads[route.conversation, route.thread] = True
        return Receipt(native_ids=(native_id,))

    def _taken(self, frame: Frame) -> str:
        """The service's id of what it took. Raises what its refusal means."""
        answer = object_in(frame)
        wait = value_at(answer, self._protocol.answer_wait)
        if wait is not None:
            raise RateLimited("The service wants us to wait.", bounded(wait))
        if self._protocol.answer_error and holds(answer, self._protocol.answer_error):
            raise Rejected("The service refuses it.")
        return key_of(value_at(answer, self._protocol.answer_id))

    # -- credentials and closing

    async def check(self) -> None:
        """Log in, and prove by a ping that the service is there. The connection stays, for `listen`."""
        line = await self._line.get()
        await line.ping(ANSWER_WITHIN)
        if self._login_by == "line" and not self._protocol.login_ok:
            await line.stays(
                REFUSED_WITHIN
            )  # a service that says nothing of a login closes one that is wrong

    async def aclose(self) -> None:
        """Close the connection; may be called twice."""
        await self._line.close()


class _Login:
    """Tells the answer to a login from what comes later, which may look the same."""

    def __init__(self, protocol: Protocol) -> None:
        self.done = False
        self._protocol = protocol

    def sort(self, raw: Raw) -> tuple[str | None, Any]:
        protocol = self._protocol
        frame = read(raw, protocol)
        if not self.done and any(
            answers_login(frame, condition, protocol)
            for condition in (protocol.login_ok, protocol.login_refused)
        ):
            return _LOGIN, frame
        if not protocol.answer:
            return None, frame
        return key_of(value_at(object_in(frame), protocol.answer)) or None, frame


def _check_url(url: str, *, allow_plain: bool) -> None:
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        raise ConfigurationError("url is no address like wss://host/path.") from None
    if parts.scheme not in {"ws", "wss"} or not host or parts.username is not None:
        raise ConfigurationError("url is no address like wss://host/path, without a name or password in it.")
    if parts.scheme == "ws" and not (allow_plain or is_loopback(host)):
        raise ConfigurationError(
            "url is not encrypted: use wss://, or allow plain connections for this account."
        )


CONNECTOR = WebSocket
