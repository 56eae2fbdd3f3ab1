"""slixmpp as we need it: a client that acknowledges what is stored and nothing else, and leaves nothing behind.

slixmpp counts every stanza as handled when it comes in and writes what it sends and receives, logins with it, to its
log. Here a stanza counts when it is settled, in order, so that after a broken connection the server sends again what
was not stored. This module imports slixmpp: import it only where an account is used.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import xml.etree.ElementTree as ET
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from slixmpp import ClientXMPP
from slixmpp.plugins.base import register_plugin
from slixmpp.plugins.xep_0198 import XEP_0198
from slixmpp.plugins.xep_0198.stream_management import MAX_SEQ
from slixmpp.stanza import Iq, Message, Presence

from connectors._xmpp_settings import XMPPSettings
from connectors._xmpp_write import CLIENT, SM

# At DEBUG slixmpp logs every stanza and the exchange of a login, at ERROR what it could not read: all of it is private.
logging.getLogger("slixmpp").setLevel(logging.CRITICAL)

MOST_UNFINISHED = 16 * 1024 * 1024
"""Bytes of one stanza that are taken; servers' own limits are far below."""

_COUNTED = (Message, Presence, Iq)
_SPOKEN = frozenset({f"{{{CLIENT}}}message", f"{{{CLIENT}}}presence"})
_ASKED = f"{{{SM}}}r"

_SCRAM = {f"SCRAM-SHA-{size}{plus}" for size in ("1", "256", "512") for plus in ("", "-PLUS")}


class Ticket:
    """One stanza from the server, until it is settled: stored, or of no interest."""

    __slots__ = ("settled",)

    def __init__(self) -> None:
        self.settled = False


class Tickets:
    """What came in and is not settled yet, in order. `handled` counts, as XEP-0198 does, up to the first of these."""

    __slots__ = ("_open", "current", "handled")

    def __init__(self) -> None:
        self._open: deque[Ticket] = deque()
        self.current: Ticket | None = None
        """That of the stanza that is being handed on, unless somebody took it."""
        self.handled = 0

    def add(self) -> None:
        """A stanza came in."""
        self.current = ticket = Ticket()
        self._open.append(ticket)

    def settle(self, ticket: Ticket | None) -> bool:
        """Count a stanza as handled; returns whether the server can be told more than before."""
        if ticket is None or ticket.settled:
            return False
        ticket.settled = True
        if not (self._open and self._open[0].settled):
            return False
        while self._open and self._open[0].settled:
            self._open.popleft()
            self.handled = (self.handled + 1) % MAX_SEQ
        return True

    def forget(self) -> None:
        """The connection is gone: what was not settled comes again."""
        self._open.clear()
        self.current = None


class StreamManagement(XEP_0198):  # type: ignore[misc, unused-ignore]
    """XEP-0198 where `handled` is what was settled: all stanzas up to the first that was not."""

    name = "parley_stream_management"
    # What is configuration is looked up by a method of its own, at each use; `handled` changes with each stanza.
    default_config: ClassVar[dict[str, Any]] = {
        key: value for key, value in XEP_0198.default_config.items() if key != "handled"
    }

    def plugin_init(self) -> None:
        self.tickets = Tickets()
        super().plugin_init()  # type: ignore[no-untyped-call, unused-ignore]

    @property
    def handled(self) -> int:
        """Stanzas of this session that the server may forget."""
        return self.tickets.handled

    @handled.setter
    def handled(self, count: int) -> None:
        self.tickets.handled = count

    def _handle_incoming(self, stanza: Any) -> Any:
        if self.enabled_in and isinstance(stanza, _COUNTED):
            self.tickets.add()
        return stanza

    def _handle_enabled(self, stanza: Any) -> None:
        self.tickets.forget()
        super()._handle_enabled(stanza)  # type: ignore[no-untyped-call, unused-ignore]


register_plugin(StreamManagement)


class Client(ClientXMPP):  # type: ignore[misc, unused-ignore]
    """One login. Connects once when told to, never by itself, and not to where the server points."""

    LIMIT: ClassVar[int] = MOST_UNFINISHED

    def __init__(
        self,
        settings: XMPPSettings,
        resource: str,
        on_stanza: Callable[[ET.Element], None],
        on_asked: Callable[[], None],
    ) -> None:
        """Connect nothing yet.

        `on_stanza` is given each message and presence; `on_asked`: the server wants to know what is settled.
        """
        super().__init__(
            f"{settings.jid}/{resource}", settings.password.get_secret_value(), ssl_context=settings.tls()
        )
        self._on_stanza, self._on_asked = on_stanza, on_asked
        self.running: set[asyncio.Task[Any]] = set()
        self._unfinished, self._prolog = 0, b""
        self.heard_at = 0.0
        self.in_handshake = False
        self.enable_direct_tls = settings.security == "tls"
        self.enable_starttls = settings.security == "starttls"
        mechanisms = _SCRAM | ({"PLAIN"} if settings.plain_login else set())
        login: dict[str, Any] = {"use_mechs": mechanisms}
        if settings.allow_plain_on_loopback:
            self.enable_direct_tls = self.enable_starttls = False
            self.enable_plaintext = True
            login["unencrypted_scram"] = True
        for name, value in login.items():
            setattr(self.plugin["feature_mechanisms"], name, value)
        # What slixmpp would do by itself: follow to other hosts, befriend everybody, remember everybody's presence.
        for handler in ("Stream Error", "IM", "IMError", "Presence", "Roster Update"):
            self.remove_handler(handler)
        self.auto_authorize, self.auto_subscribe = None, False
        self.whitespace_keepalive = False
        # Its own requests for acknowledgements go out before the stanza that they are for: we ask ourselves.
        self.register_plugin(StreamManagement.name, {"window": 1 << 30})
        self.management: StreamManagement = self.plugin[StreamManagement.name]  # type: ignore[literal-required, unused-ignore]
        self.tickets: Tickets = self.management.tickets

    def _spawn_event(self, xml: ET.Element) -> None:
        """Hand on one stanza; unless somebody took its ticket, it is settled.

        Nobody else takes messages and presences. So no object of slixmpp's is made of them, and none of its handlers is
        asked whether it does: that would cost as much as all the rest.
        """
        self._unfinished = 0
        tickets = self.tickets
        if xml.tag in _SPOKEN:
            if self.management.enabled_in:
                tickets.add()
            try:
                self._on_stanza(xml)
            except Exception as error:  # noqa: BLE001 - as slixmpp has it: told to the sender and to the log
                self._build_stanza(xml).exception(error)  # type: ignore[no-untyped-call, unused-ignore]
        elif xml.tag == _ASKED and self.management.enabled_in:
            self._on_asked()
        else:
            super()._spawn_event(xml)
        if tickets.current is not None:
            tickets.settle(self.take_ticket())

    def take_ticket(self) -> Ticket | None:
        """The ticket of the stanza that is being handed on: whoever takes it settles it."""
        ticket, self.tickets.current = self.tickets.current, None
        return ticket

    def init_parser(self) -> None:
        """Begin to read a stream."""
        super().init_parser()
        self._unfinished, self._prolog = 0, b""

    def data_received(self, data: Any) -> None:
        """Take bytes; a stream that cannot be read ends."""
        self.heard_at = self.loop.time()
        self._unfinished += len(data)
        if self._unfinished > self.LIMIT:
            self.disconnect_reason = "a stanza is too large"
            self.abort()
            return
        if self.xml_root is None:
            # A document type, and with it entities, can stand before the root element only. defusedxml's parser would
            # say so too, but builds elements of another class than those of slixmpp. A zero byte is of an encoding in
            # which this would not be seen; XMPP is UTF-8.
            self._prolog += data
            if b"<!DOCTYPE" in self._prolog or b"\0" in self._prolog:
                self.disconnect_reason = "it has a document type"
                self.abort()
                return
        try:
            super().data_received(data)
        except (ET.ParseError, ValueError):
            self.disconnect_reason = "it cannot be read"
            self.abort()

    def reschedule_connection_attempt(self) -> None:
        """All addresses were tried: say so. When to try again is our caller's business."""
        self._current_connection_attempt = None
        self.event("parley_unreachable")

    async def _handle_stream_features(self, features: Any) -> bool | None:
        with self._counted():
            result: bool | None = await super()._handle_stream_features(features)
            return result

    async def start_tls(self) -> bool:
        """Begin TLS. A certificate that does not fit is the event `ssl_invalid_chain`."""
        with self._counted():
            self.in_handshake = True
            try:
                begun = bool(await super().start_tls())
            except (ssl.SSLError, OSError, ValueError):
                begun = False
            finally:
                self.in_handshake = False
            if not begun:
                self.event("parley_no_tls")
                self.abort()
            return begun

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Know the task that this is, so that it can be ended."""
        task = asyncio.current_task()
        if task is not None:
            self.running.add(task)
        try:
            yield
        finally:
            self.running -= {task}

    def end_tasks(self) -> None:
        """End what slixmpp runs for this connection."""
        self.cancel_connection_attempt()
        for task in tuple(self.running):
            task.cancel()
        if self._run_out_filters is not None:
            self._run_out_filters.cancel()
        for name in tuple(self.scheduled_events):
            self.cancel_schedule(name)
