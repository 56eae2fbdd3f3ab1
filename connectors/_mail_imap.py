"""The inbox over IMAP. IMAPClient blocks, so each connection has one thread of its own, which ends with it."""

from __future__ import annotations

import asyncio
import selectors
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from parley.errors import AuthError, Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from connectors._mail_settings import MailSettings

TAKEN = "$ParleyTaken"
"""Our keyword on a mail that is in the inbox of the store. It is the read position: it lives on the server."""

MOST_MAIL = 40_000_000
"""Bytes of a mail that is fetched whole: `MAX_FILE` as base64, and some text."""

BEGINNING = 256_000
"""Bytes that are fetched of a longer one."""

_T = TypeVar("_T")
_PASSING = ("[UNAVAILABLE]", "[INUSE]", "[LIMIT]", "[SERVERBUG]", "[CONTACTADMIN]")
"""RFC 5530: a login that failed for reasons other than the credentials."""


class _Client(Protocol):
    """What is used of `imapclient.IMAPClient`, which ships no types."""

    def login(self, username: str, password: str) -> object: ...
    def oauth2_login(self, user: str, access_token: str) -> object: ...
    def starttls(self, ssl_context: object = None) -> object: ...
    def has_capability(self, capability: str) -> bool: ...
    def select_folder(self, folder: str, readonly: bool = False) -> Mapping[bytes, Any]: ...
    def search(self, criteria: Sequence[object]) -> Sequence[int]: ...
    def fetch(self, messages: Sequence[int], data: Sequence[str]) -> Mapping[int, Mapping[bytes, Any]]: ...
    def add_flags(self, messages: Sequence[int], flags: Sequence[str], silent: bool = False) -> object: ...
    def noop(self) -> object: ...
    def idle(self) -> None: ...
    def idle_check(self, timeout: float | None = None) -> Sequence[object]: ...
    def idle_done(self) -> object: ...
    def logout(self) -> object: ...
    def shutdown(self) -> None: ...
    def socket(self) -> socket.socket: ...
    def told_of_mail(self) -> bool: ...


@dataclass(frozen=True)
class Mail:
    """One mail as the server has it."""

    uid: int
    received: datetime
    size: int
    raw: bytes

    @property
    def is_cut(self) -> bool:
        """Whether only the beginning was fetched."""
        return self.size > MOST_MAIL


class Inbox:
    """One IMAP connection with the folder selected. Made by `Inbox.open`; `close` leaves no thread and no socket."""

    def __init__(self, settings: MailSettings) -> None:
        self.settings = settings
        self.uid_validity = 0
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="parley-imap")
        self._wake, self._woken = socket.socketpair()
        self._client: _Client | None = None
        self._flag = TAKEN
        self._done_up_to = 0
        self._working: asyncio.Future[Any] | None = None
        self._closed = False

    @classmethod
    async def open(cls, settings: MailSettings) -> Inbox:
        """Connect, log in, select. Raises `AuthError` or `Unreachable`."""
        inbox = cls(settings)
        try:
            await inbox.call(inbox._open)
        except BaseException:
            await inbox.close()
            raise
        return inbox

    async def call(self, work: Callable[[], _T]) -> _T:
        """Do blocking work in this connection's thread. Cancelling ends the connection, then the work, then returns."""
        self._working = future = asyncio.get_running_loop().run_in_executor(self._thread, _mapped, work)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            self._interrupt()
            await asyncio.wait({future}, timeout=self.settings.timeout)
            if future.done():
                future.exception()  # it is ours: nobody else will ask what became of the work
            raise

    async def close(self) -> None:
        """End the connection and its thread."""
        self._closed = True
        self._interrupt()
        # With no work left this waits for nothing. A thread that is stuck in a name look-up ends by itself, later.
        self._thread.shutdown(wait=self._working is None or self._working.done())
        if self._client is not None:
            with suppress(Exception):
                self._client.shutdown()
            self._client = None
        self._wake.close()
        self._woken.close()

    def pending(self) -> list[int]:
        """UIDs of mail that is not taken yet, in the order of arrival."""
        not_before = self.settings.not_before(datetime.now(UTC))
        # SINCE counts whole days in the server's own time zone: one day more, and the exact moment is looked at later.
        criteria: list[object] = ["SINCE", (not_before - timedelta(days=1)).date()]
        criteria += ["UNKEYWORD", TAKEN] if self._flag == TAKEN else []
        criteria += ["UNSEEN"] if self._flag != TAKEN or self.settings.since is None else []
        while True:
            self._connected.told_of_mail()  # what was told up to now is in the result
            found = self._connected.search(["UID", f"{self._done_up_to + 1}:*", *criteria])
            # The range n:* always holds the last mail, also when its UID is below n.
            new = sorted(uid for uid in found if uid > self._done_up_to)
            # Mail may be told of with the result that does not hold it yet. IDLE would not tell of it again.
            if new or not self._connected.told_of_mail():
                return new

    def fetch(self, uid: int) -> Mail | None:
        """One mail, unchanged on the server; None when it is gone or from before our time."""
        about = self._connected.fetch([uid], ["RFC822.SIZE", "INTERNALDATE"]).get(uid)
        if not about:
            return None
        received = _utc(about.get(b"INTERNALDATE"))
        if received < self.settings.not_before(datetime.now(UTC)):
            return None
        size = int(about.get(b"RFC822.SIZE", 0))
        part = "BODY.PEEK[]" if size <= MOST_MAIL else f"BODY.PEEK[]<0.{BEGINNING}>"
        data = self._connected.fetch([uid], [part]).get(uid, {})
        raw = next((value for key, value in data.items() if key.startswith(b"BODY[]")), None)
        return Mail(uid, received, size, raw) if isinstance(raw, bytes) else None

    def take(self, uid: int) -> None:
        """Mark a mail as taken, on the server."""
        self._connected.add_flags([uid], [self._flag], silent=True)

    def done_up_to(self, uid: int) -> None:
        """Remember, for this connection, that everything up to this UID is dealt with."""
        self._done_up_to = max(self._done_up_to, uid)

    def wait(self) -> None:
        """Return when there may be new mail, after `settings.idle` at the latest; always after a live answer."""
        client = self._connected
        client.idle()
        # Twice: the first look takes what came together with the server's "+", which no poll would show.
        if not client.idle_check(timeout=0):
            client.idle_check(timeout=self.settings.idle)
        client.idle_done()

    def probe(self) -> None:
        """Have the server answer."""
        self._connected.noop()

    @property
    def can_idle(self) -> bool:
        """Whether the server tells of new mail by itself."""
        return self._connected.has_capability("IDLE")

    @property
    def _connected(self) -> _Client:
        if self._client is None:
            raise Unreachable("The IMAP connection is closed.")
        return self._client

    def _open(self) -> None:
        settings = self.settings
        self._client = client = _connect(settings, self._woken)
        if self._closed:
            client.shutdown()
            raise Unreachable("The IMAP connection was closed by us.")
        if settings.imap_security == "starttls":
            client.starttls(settings.tls())
        _login(client, settings)
        selected = _select(client, settings.folder)
        self.uid_validity = int(selected.get(b"UIDVALIDITY", 0))
        permitted = {flag.lower() for flag in selected.get(b"PERMANENTFLAGS", ())}
        self._flag = TAKEN if permitted & {b"\\*", TAKEN.lower().encode()} else "\\Seen"

    def _interrupt(self) -> None:
        with suppress(OSError):
            self._wake.send(b"x")
        if self._client is not None:
            with suppress(OSError):
                # Of the plain socket: that of TLS would drop its state under the thread that is reading.
                socket.socket.shutdown(self._client.socket(), socket.SHUT_RDWR)


def _connect(settings: MailSettings, woken: socket.socket) -> _Client:
    from imapclient import IMAPClient

    class Interruptible(IMAPClient):  # type: ignore[misc]
        """Whose wait in IDLE ends when `woken` can be read, and who says whether an answer told of new mail."""

        _looked = False

        def idle(self) -> None:
            self._looked = False
            super().idle()

        def told_of_mail(self) -> bool:
            told: list[object] = self._imap.response("EXISTS")[1]
            return told != [None]

        def _poll_socket(self, sock: socket.socket, timeout: float | None = None) -> object:
            if not self._looked:
                self._looked = True
                return [sock]
            ready = _readable((sock, woken), timeout)
            if woken in ready:
                raise Unreachable("The IMAP connection was closed by us.")
            return ready

        _select_poll_socket = _poll_socket

    client: _Client = Interruptible(
        settings.imap_host,
        settings.imap_port,
        ssl=settings.imap_security == "tls",
        ssl_context=settings.tls() if settings.imap_security == "tls" else None,
        timeout=settings.timeout,
    )
    return client


def _readable(sockets: Sequence[socket.socket], timeout: float | None) -> list[object]:
    with selectors.DefaultSelector() as selector:
        for each in sockets:
            selector.register(each, selectors.EVENT_READ)
        return [key.fileobj for key, _ in selector.select(timeout)]


def _login(client: _Client, settings: MailSettings) -> None:
    from imapclient.exceptions import IMAPClientAbortError, LoginError

    token = settings.access_token.get_secret_value()
    try:
        if token:
            client.oauth2_login(settings.username, token)
        else:
            client.login(settings.username, settings.password.get_secret_value())
    except LoginError as error:
        said = str(error)
        if isinstance(error.__context__, IMAPClientAbortError) or any(
            code in said.upper() for code in _PASSING
        ):
            raise Unreachable("The IMAP server cannot check the login now.") from None
        raise AuthError(
            "The IMAP server refused the login: check username and password or access token."
        ) from None


def _select(client: _Client, folder: str) -> Mapping[bytes, Any]:
    from imapclient.exceptions import IMAPClientAbortError, IMAPClientError, IMAPClientReadOnlyError

    try:
        selected = client.select_folder(folder)
    except IMAPClientReadOnlyError:
        selected = {}
    except IMAPClientAbortError:
        raise
    except IMAPClientError as error:
        raise AuthError(f"The folder {folder!r} cannot be opened: {str(error)[:200]}") from None
    if not selected.get(b"READ-WRITE"):
        raise AuthError(
            f"The folder {folder!r} is read-only for this account: no mail could be marked as taken."
        )
    return selected


def _mapped(work: Callable[[], _T]) -> _T:
    from imapclient.exceptions import IMAPClientError

    try:
        return work()
    except (IMAPClientError, OSError, EOFError) as error:
        raise Unreachable(f"IMAP: {type(error).__name__}: {str(error)[:200]}") from error


def _utc(moment: object) -> datetime:
    # IMAPClient hands out local time without its zone.
    return moment.astimezone(UTC) if isinstance(moment, datetime) else datetime.now(UTC)
