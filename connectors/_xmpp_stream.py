"""One stream to the server: it is opened, resumed and closed here; what is sent is awaited until the server has it."""

from __future__ import annotations

import asyncio
import logging
import ssl
import xml.etree.ElementTree as ET
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from connectors._xmpp_read import StanzaError, stanza_error
from connectors._xmpp_settings import XMPPSettings
from connectors._xmpp_write import CLIENT, DISCO_INFO, PING, SM, disco_answer, iq, unsupported
from parley.errors import AuthError, Unknown, Unreachable

if TYPE_CHECKING:
    from connectors._xmpp_client import Client, Ticket

# Conditions of RFC 6120, 6.5, that pass by themselves; all others mean that the login has to be mended.
_PASSES = {"temporary-auth-failure", "aborted"}

TOLD_WITHIN = 0.02
"""Seconds after which the server knows what is stored. What it did not learn it says again, and the inbox knows it."""

_MESSAGE = f"{{{CLIENT}}}message"

log = logging.getLogger(__name__)

Handler = Callable[["Stream", ET.Element], None]
"""Takes one stanza of a stream, at once; may take its ticket."""


class Stream:
    """One session with the server over however many connections, and the next where the server has forgotten it."""

    def __init__(
        self,
        settings: XMPPSettings,
        resource: str,
        on_message: Handler,
        on_presence: Handler,
        on_lost: Callable[[], None],
    ) -> None:
        """Connect nothing yet. `on_lost`: the connection broke, what was not settled will come again."""
        from slixmpp.xmlstream.handler import Callback
        from slixmpp.xmlstream.matcher import MatchXPath

        from connectors._xmpp_client import Client

        self.settings = settings
        self._client: Client = Client(settings, resource, self._take, self._on_asked)
        self._on_message, self._on_presence = on_message, on_presence
        self._on_lost = on_lost
        self._opened: asyncio.Future[bool] | None = None
        self._started = self._negotiated = False
        self._telling: asyncio.TimerHandle | None = None
        self._acks: dict[str, asyncio.Future[None]] = {}
        self._answers: dict[str, tuple[str, asyncio.Future[ET.Element]]] = {}
        self._number = 0
        self.connected = False
        self.lost = asyncio.Event()
        self._gone = asyncio.Event()
        self._gone.set()
        self.reason = ""
        self._client.register_handler(
            Callback("parley iq", MatchXPath("{jabber:client}iq"), lambda stanza: self._take_iq(stanza.xml))
        )
        self._client.register_handler(
            Callback("parley error", MatchXPath(f"{{{self._client.stream_ns}}}error"), self._stream_error)
        )
        for event, handler in {
            "session_start": self._on_start,
            "stream_negotiated": self._on_negotiated,
            "session_resumed": self._on_resumed,
            "failed_auth": self._on_failed_auth,
            "no_auth": self._on_no_auth,
            "connection_failed": self._on_failed,
            "ssl_invalid_chain": self._on_bad_chain,
            "parley_unreachable": self._on_unreachable,
            "parley_no_tls": self._on_no_tls,
            "disconnected": self._on_disconnected,
            "stanza_acked": self._on_acked,
        }.items():
            self._client.add_event_handler(event, handler)

    # -- opening and closing

    async def open(self) -> bool:
        """Connect once; returns whether the session goes on from before. Raises `AuthError` or `Unreachable`."""
        self._started = self._negotiated = False
        self.reason = ""
        self._opened = asyncio.get_running_loop().create_future()
        host = self.settings.host
        port = self.settings.port or (5223 if self.settings.security == "tls" else 5222)
        try:
            async with asyncio.timeout(self.settings.open_within):
                _ = self._client.connect(host or None, port if host else None)
                resumed = await self._opened
        except TimeoutError:
            raise Unreachable("The XMPP server did not answer in time.") from None
        finally:
            if not (self._opened.done() and not self._opened.cancelled() and not self._opened.exception()):
                self._abandon()
            self._opened = None
        if not self.connected:
            raise Unreachable("The XMPP server closed the connection at once.")
        if resumed:
            self._ask_for_ack()
        else:
            self._fail_all(Unknown("The connection broke; whether it was taken is not known."))
        return resumed

    async def abort(self) -> None:
        """Drop the connection without a word: the server keeps the session for a while."""
        self._client.abort()
        await self._gone.wait()

    async def close(self) -> None:
        """End the session."""
        self._tell_settled()
        self.connected = False
        self._fail_all(Unknown("The connection was closed; whether it was taken is not known."))
        transport = self._client.transport
        if transport is not None:
            with suppress(Exception):
                self._client.send_raw('<presence type="unavailable"/>' + self._client.stream_footer)
            transport.close()
            with suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await self._gone.wait()
            self._client.abort()
        self._client.end_tasks()
        self.lost.set()

    def _abandon(self) -> None:
        self._client.cancel_connection_attempt()
        for task in tuple(self._client.running):
            task.cancel()
        self._client.abort()

    # -- sending

    def tell(self, stanza: ET.Element) -> None:
        """Send what nobody waits for."""
        from slixmpp.stanza import Message, Presence

        if self.connected:
            kind = Message if stanza.tag.endswith("message") else Presence
            self._send(kind, stanza)

    def begin(self, message: ET.Element) -> asyncio.Future[None]:
        """Send a message with an id. The future ends when the server has it, or with the error that came back."""
        from slixmpp.stanza import Message

        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        id_ = message.get("id", "")
        self._acks[id_] = future
        future.add_done_callback(lambda _: self._acks.pop(id_, None))
        self._send(Message, message)
        self._ask_for_ack()
        return future

    def _send(self, kind: Callable[..., Any], stanza: ET.Element) -> None:
        self._client.send(kind(self._client, stanza))

    @property
    def waited_for(self) -> bool:
        """Whether something was sent that the server has not confirmed."""
        return bool(self._acks)

    def _ask_for_ack(self) -> None:
        if self._client.management.enabled_out:
            self._client.send(f'<r xmlns="{SM}"/>')
            return
        # Without stream management: stanzas are handled in order, so that an answer to a later one confirms.
        waiting = tuple(self._acks.values())
        self._query(iq("get", ET.Element(f"{{{PING}}}ping"), to=self.settings.domain)).add_done_callback(
            lambda answer: _confirm(waiting, answer)
        )

    async def request(self, query: ET.Element) -> ET.Element:
        """Send an IQ and return its result. Raises `StanzaError`, or `Unreachable` where no answer came."""
        if not self.connected:
            raise Unreachable("There is no connection to the XMPP server.")
        answer = self._query(query)
        try:
            async with asyncio.timeout(self.settings.answer_within):
                return await answer
        except TimeoutError:
            raise Unreachable("The XMPP server did not answer a query in time.") from None

    def _query(self, query: ET.Element) -> asyncio.Future[ET.Element]:
        from slixmpp.stanza import Iq

        self._number += 1
        id_ = f"q{self._number}"
        query.set("id", id_)
        future: asyncio.Future[ET.Element] = asyncio.get_running_loop().create_future()
        self._answers[id_] = (query.get("to", ""), future)
        future.add_done_callback(lambda _: self._answers.pop(id_, None))
        self._send(Iq, query)
        return future

    # -- receiving

    def take_ticket(self) -> Ticket | None:
        """The ticket of the stanza that is being handed on: whoever takes it settles it."""
        return self._client.take_ticket()

    def settle(self, ticket: Ticket | None) -> None:
        """The stanza is stored: the server is told soon, once for all that are stored by then."""
        if self._client.tickets.settle(ticket) and self._telling is None:
            self._tell_soon()

    def _on_asked(self) -> None:
        """The server asks what is stored. A moment later it is more."""
        if not self.connected:
            self._client.management.send_ack()  # type: ignore[no-untyped-call, unused-ignore]
        elif self._telling is None:
            self._tell_soon()

    def _tell_soon(self) -> None:
        self._telling = self._client.loop.call_later(TOLD_WITHIN, self._tell_settled)

    def _tell_settled(self) -> None:
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None
            if self.connected:
                with suppress(Exception):
                    self._client.send_raw(f'<a xmlns="{SM}" h="{self._client.tickets.handled}"/>')

    def pause(self, *, reading: bool) -> None:
        """Stop taking bytes from the server, or go on: what is not read waits there."""
        transport = self._client.transport
        if transport is not None and not transport.is_closing():
            (transport.resume_reading if reading else transport.pause_reading)()

    async def probe(self) -> None:
        """Ask now and then whether the server is there; a silent one is dropped. Returns when it was."""
        while True:
            await asyncio.sleep(self.settings.probe_every)
            try:
                await self.request(iq("get", ET.Element(f"{{{PING}}}ping"), to=self.settings.domain))
            except StanzaError:
                continue  # an answer all the same
            except Unreachable:
                if self._client.loop.time() - self._client.heard_at < self.settings.answer_within:
                    continue  # it is talking: slow, not dead
                await self.abort()
                return

    def _take(self, xml: ET.Element) -> None:
        if xml.tag != _MESSAGE:
            self._on_presence(self, xml)
            return
        if xml.get("type") == "error":
            waiting = self._acks.get(xml.get("id", ""))
            if waiting is not None and not waiting.done():
                waiting.set_exception(stanza_error(xml))
                return
        self._on_message(self, xml)

    def _take_iq(self, xml: ET.Element) -> None:
        kind, sender = xml.get("type"), xml.get("from", "")
        if kind in {"result", "error"}:
            asked, future = self._answers.get(xml.get("id", ""), ("", None))
            ours = {"", self.settings.jid, self.settings.domain, str(self._client.boundjid)}
            expected = sender in ours if asked in {"", self.settings.jid} else sender == asked
            if future is None or future.done() or not expected:
                return
            if kind == "error":
                future.set_exception(stanza_error(xml))
            else:
                future.set_result(xml)
            return
        child = next(iter(xml), None)
        if kind not in {"get", "set"} or child is None or not self.connected:
            return
        answer = iq("result", to=sender)
        if kind == "get" and child.tag == f"{{{DISCO_INFO}}}query":
            answer.append(disco_answer(child.get("node", "")))
        elif not (kind == "get" and child.tag == f"{{{PING}}}ping"):
            answer = unsupported(sender)
        answer.set("id", xml.get("id", ""))
        from slixmpp.stanza import Iq

        self._send(Iq, answer)

    # -- what slixmpp tells

    def _on_start(self, _: Any) -> None:
        self._started = True
        self._fresh()

    def _on_negotiated(self, _: Any) -> None:
        if not self._client.authenticated:
            self._fail(Unreachable("The XMPP server offers no login over this connection: is TLS on there?"))
        self._negotiated = True
        self._fresh()

    def _fresh(self) -> None:
        if self._started and self._negotiated:
            self._done(resumed=False)

    def _on_resumed(self, _: Any) -> None:
        self._done(resumed=True)

    def _done(self, *, resumed: bool) -> None:
        if self._opened is not None and not self._opened.done():
            self.connected = True
            self.lost.clear()
            self._gone.clear()
            self._opened.set_result(resumed)

    def _on_failed_auth(self, failure: Any) -> None:
        condition = str(failure["condition"])
        if condition in _PASSES:
            self._fail(Unreachable(f"The XMPP server cannot check our login now ({condition})."))
        else:
            self._fail(
                AuthError(f"The XMPP server refuses our login ({condition}): check address and password.")
            )
        self._client.abort()  # slixmpp would go on with the next mechanism: one wrong password is one attempt

    def _on_no_auth(self, _: Any) -> None:
        encrypted = isinstance(self._client.socket, ssl.SSLSocket | ssl.SSLObject)
        if encrypted or self.settings.allow_plain_on_loopback:
            self._fail(
                AuthError(
                    "The XMPP server offers no SCRAM login; plain_login allows PLAIN over TLS, where it must be."
                )
            )
        else:
            self._fail(Unreachable("The XMPP server offers no TLS, and nothing is said without."))

    def _on_failed(self, error: Any) -> None:
        named = "its name is not found" if isinstance(error, str) else type(error).__name__
        if isinstance(error, ssl.SSLCertVerificationError):
            named = "its certificate cannot be verified"
        self.reason = named

    def _on_bad_chain(self, _: Any) -> None:
        self._fail(Unreachable("The XMPP server cannot be trusted: its certificate cannot be verified."))
        self._client.abort()

    def _on_no_tls(self, _: Any) -> None:
        self._fail(Unreachable("The XMPP server broke off when TLS began."))

    def _on_unreachable(self, _: Any) -> None:
        self._fail(Unreachable(f"The XMPP server cannot be reached ({self.reason or 'no address'})."))

    def _stream_error(self, error: Any) -> None:
        self.reason = str(error["condition"])
        log.warning("%s: the XMPP server ends the stream (%s).", self.settings.jid, self.reason)

    def _on_disconnected(self, _: Any) -> None:
        self.connected = False
        self._client.tickets.forget()
        self._on_lost()
        for _, future in tuple(self._answers.values()):
            if not future.done():
                future.set_exception(Unreachable("The connection to the XMPP server broke."))
                future.exception()  # nobody may be waiting any more
        if not self._client.in_handshake:  # else what was wrong with it is told at once
            reason = self.reason or str(self._client.disconnect_reason or "") or "no reason given"
            self._fail(Unreachable(f"The XMPP server closed the connection ({reason})."))
        self.lost.set()
        self._gone.set()

    def _on_acked(self, stanza: Any) -> None:
        future = self._acks.get(stanza.xml.get("id", ""))
        if future is not None and not future.done():
            future.set_result(None)

    def _fail(self, error: Exception) -> None:
        if self._opened is not None and not self._opened.done():
            self._opened.set_exception(error)

    def _fail_all(self, error: Exception) -> None:
        for future in tuple(self._acks.values()):
            if not future.done():
                future.set_exception(error)
                future.exception()


def _confirm(waiting: tuple[asyncio.Future[None], ...], answer: asyncio.Future[ET.Element]) -> None:
    if answer.cancelled() or isinstance(answer.exception(), Unreachable):
        return
    for future in waiting:
        if not future.done():
            future.set_result(None)
