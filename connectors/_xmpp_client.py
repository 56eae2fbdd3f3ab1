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

# At DEBUG slixmpp logs every stanza and the exchange of a login, at ERROR what it could not read: all of it is private.
logging.getLogger("slixmpp").setLevel(logging.CRITICAL)

MOST_UNFINISHED = 16 * 1024 * 1024
"""Bytes of one stanza that are taken; servers' own limits are far below."""

_SPOKEN, _COUNTED = (Message, Presence), (Message, Presence, Iq)

_SCRAM = {f"SCRAM-SHA-{size}{plus}" for size in ("1", "256", "512") for plus in ("", "-PLUS")}


class Ticket:
    """One stanza from the server, until it is settled: stored, or of no interest."""

    __slots__ = ("settled",)

    def __init__(self) -> None:
        self.settled = False


class StreamManagement(XEP_0198):  # type: ignore[misc, unused-ignore]
    """XEP-0198 where `handled` is what was settled: all stanzas up to the first that was not."""

    name = "parley_stream_management"

    def plugin_init(self) -> None:
        self.unsettled: deque[Ticket] = deque()
        self.ticket: Ticket | None = None
        super().plugin_init()  # type: ignore[no-untyped-call, unused-ignore]

    def settle(self, ticket: Ticket | None) -> bool:
        """Count a stanza as handled; returns whether the server can be told more than before."""
        if ticket is None or ticket.settled:
            return False
        ticket.settled, before = True, self.handled
        while self.unsettled and self.unsettled[0].settled:
            self.unsettled.popleft()
            self.handled = (self.handled + 1) % MAX_SEQ
        return bool(self.handled != before)

    def forget_unsettled(self) -> None:
        """The connection is gone: what was not settled comes again."""
        self.unsettled.clear()
        self.ticket = None

    def count(self, stanza: Any) -> None:
        """Make the ticket of a stanza that came in."""
        self.ticket = None
        if self.enabled_in and isinstance(stanza, _COUNTED):
            self.ticket = Ticket()
            self.unsettled.append(self.ticket)

    def _handle_incoming(self, stanza: Any) -> Any:
        self.count(stanza)
        return stanza

    def _handle_enabled(self, stanza: Any) -> None:
        self.forget_unsettled()
        super()._handle_enabled(stanza)  # type: ignore[no-untyped-call, unused-ignore]


register_plugin(StreamManagement)


class Client(ClientXMPP):  # type: ignore[misc, unused-ignore]
    """One login. Connects once when told to, never by itself, and not to where the server points."""

    LIMIT: ClassVar[int] = MOST_UNFINISHED

    def __init__(self, settings: XMPPSettings, resource: str, on_stanza: Callable[[Any], None]) -> None:
        """Connect nothing yet. `on_stanza` is given each message and presence."""
        super().__init__(
            f"{settings.jid}/{resource}", settings.password.get_secret_value(), ssl_context=settings.tls()
        )
        self._on_stanza = on_stanza
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

    def recv_stanza(self, stanza: Any) -> None:
        """Hand on one stanza; unless somebody took its ticket, it is settled."""
        self._unfinished = 0
        if isinstance(stanza, _SPOKEN):
            # Nobody else takes these, and to ask each of slixmpp's handlers whether it does costs as much as the rest.
            self.management.count(stanza)
            try:
                self._on_stanza(stanza)
            except Exception as error:  # noqa: BLE001 - as slixmpp has it: told to the sender and to the log
                stanza.exception(error)  # type: ignore[no-untyped-call, unused-ignore]
        else:
            super().recv_stanza(stanza)
        if self.management.ticket is not None:
            self.management.settle(self.take_ticket())

    def take_ticket(self) -> Ticket | None:
        """The ticket of the stanza that is being handed on: whoever takes it settles it."""
        ticket, self.management.ticket = self.management.ticket, None
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
            # say so too, but builds elements of another class than those of slixmpp.
            self._prolog += data
            if b"<!DOCTYPE" in self._prolog:
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
