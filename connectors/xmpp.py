"""XMPP: one account on a Jabber server, in direct conversations and in rooms.

The stream is managed and resumed (XEP-0198): a stanza is acknowledged when its message is in the inbox, so that the
server gives again what was not. After a new session the archives (XEP-0313) of the account and of each room are read
from the last message that was stored; after a start, the last `catch_up_minutes`. The same message has the same native
id on all these ways: its archive's.

Direct messages are verified where the sender's domain is trusted: by itself our server vouches only for its own
people. In rooms of trusted services that show who is there, senders are known by their real addresses; elsewhere they
are claimed. In a room a message counts when it begins with our nick, names us or answers us, or is in a thread of
ours (`hear`). What is said privately in a room is a direct conversation with `room/nick`.

A send returns when the server has it; in a room, when the room has shown it. Where the connection breaks before, one
resumption tells; else it is `Unknown`, and the archive is asked by the message's id, which is made of the token.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
import xml.etree.ElementTree as ET
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import ClassVar, TypeVar

from connectors._memory import Memory
from connectors._waiting import pause
from connectors._xmpp_errors import meaning
from connectors._xmpp_files import Uploads
from connectors._xmpp_hear import Ours
from connectors._xmpp_read import StanzaError, parse, said
from connectors._xmpp_rooms import RoomState
from connectors._xmpp_session import Session
from connectors._xmpp_settings import XMPPSettings
from connectors._xmpp_stream import Stream
from connectors._xmpp_write import (
    CLIENT,
    MAM,
    MAX_TEXT,
    SID,
    composing,
    edited,
    id_of,
    iq,
    render,
)
from parley.errors import (
    AuthError,
    ConfigurationError,
    ConnectorError,
    Rejected,
    Unknown,
    Unreachable,
    Unsupported,
)
from parley.messages import (
    Accept,
    Capabilities,
    Connector,
    ConversationKind,
    File,
    Message,
    Receipt,
    Reply,
    Route,
)

__all__ = ["CONNECTOR", "XMPP", "XMPPSettings", "parse", "render", "said"]

MAX_UPLOAD = 10 * 1024 * 1024
"""Bytes. Prosody's default (http_file_share_size_limit); a server that takes less says so, and the file is refused."""

FETCHED_WITHIN = 120.0
STEADY = 10.0  # seconds after which a connection counts as a good one
LOOK_BACK = timedelta(days=1)  # how far a look-up for a lost receipt reads
PAGES = 20

log = logging.getLogger(__name__)

_T = TypeVar("_T")


class XMPP(Connector):
    """One account on one server."""

    name: ClassVar[str] = "xmpp"
    capabilities: ClassVar[Capabilities] = Capabilities(
        max_text=MAX_TEXT,
        text_unit="bytes",
        markup="own",
        threads=True,
        edits=True,
        typing=True,
        private=True,
        max_file=MAX_UPLOAD,
    )

    def __init__(self, account: str, settings: XMPPSettings) -> None:
        """Open nothing yet. Raises `ConfigurationError`."""
        super().__init__(account)
        _require_sdk()
        self._settings = settings.checked()
        self._session = Session(account, self._settings)
        self._uploads = Uploads(self._settings)
        self._put: Memory[tuple[str, int], str] = Memory()

    def __repr__(self) -> str:
        return f"XMPP(account={self.account!r})"

    # -- receiving

    async def listen(self, accept: Accept) -> None:
        """Be there: in the rooms, and for whoever writes."""
        hearing, failures = self._session.hearing, 0
        hearing.listening = True
        try:
            while True:
                began = time.monotonic()
                try:
                    await self._session.attend(accept, self._with_files)
                    failures = 0 if time.monotonic() - began > STEADY else failures + 1
                except AuthError:
                    raise
                except Exception as error:  # noqa: BLE001 - whatever accept raised, its message is not acknowledged
                    known = error if isinstance(error, ConnectorError) else type(error).__name__
                    log.warning("xmpp %s: %s", self.account, known)
                    failures += 1
                await self._session.is_up(pause(failures))
        finally:
            hearing.listening = False
            await self._session.close()

    async def _with_files(self, urls: tuple[str, ...], message: Message) -> Message:
        """The message with the files at these addresses; those that cannot be had are named."""
        files: list[File] = []
        left_out, text = list(message.left_out), message.text
        for url in urls:
            try:
                async with asyncio.timeout(FETCHED_WITHIN):
                    files.append(await self._uploads.get(url, self._ask))
                text = text.replace(url, "").strip()
            except Rejected as error:
                left_out.append(str(error))
            except (Unreachable, StanzaError, TimeoutError):
                left_out.append("a file: it cannot be had now")
        return message.model_copy(update={"files": tuple(files), "left_out": tuple(left_out), "text": text})

    async def _ask(self, query: ET.Element) -> ET.Element:
        stream = await self._session.online()
        return await stream.request(query)

    # -- sending

    async def send_message(self, reply: Reply, route: Route, *, token: str = "") -> Receipt:
        """Send one message; it is there when this returns."""
        route = self._own(route)
        id_ = id_of(token) if token else f"parley-{uuid.uuid4().hex}"
        if not (reply.files and not reply.text):
            render(reply, route, id_)  # what cannot be sent is refused before anything is put on the server
        try:
            route = await self._placed(reply, route)
            urls = [
                (file.name, await self._address_of(file, token, at)) for at, file in enumerate(reply.files)
            ]
            message = render(reply, route, id_, urls)
            return await self._deliver(message, route)
        except StanzaError as error:
            raise meaning(error) from None

    async def edit_message(self, native_id: str, reply: Reply, route: Route) -> Receipt:
        """Replace the text of a message that we sent (XEP-0308)."""
        route = self._own(route)
        if reply.files:
            raise Unsupported("A message of XMPP cannot be changed into a file.")
        message = edited(reply, route, f"parley-{uuid.uuid4().hex}", native_id)
        try:
            route = await self._placed(reply, route)
            message.set("to", route.conversation)
            return await self._deliver(message, route)
        except StanzaError as error:
            raise meaning(error) from None

    async def find_sent(self, token: str, route: Route) -> Receipt | None:
        """Look into the archive for the message of this token: our own, or the room's."""
        route = self._own(route)
        if not token:
            raise Unknown("Without a token there is nothing to look for.")
        group = route.kind is ConversationKind.GROUP and not route.private_to
        archive = route.conversation if group else self._settings.jid
        try:
            stream = await self._session.online()
            if not group:
                await self._require_archive(stream)
            found = await self._session.search(
                stream,
                archive,
                partner="" if group or route.private_to else route.conversation,
                since=datetime.now(UTC) - LOOK_BACK,
                pages=PAGES,
            )
        except (StanzaError, Unreachable):
            raise Unknown("The archive cannot be asked whether it arrived.") from None
        return self._found(id_of(token), found, route, sure=self._is_final(route))

    async def show_typing(self, route: Route) -> None:
        """Show that an answer is being made, where we are there anyway."""
        if route.account != self.account or route.private_to:
            return
        room = self._session.rooms.get(route.conversation)
        if route.kind is ConversationKind.DIRECT or (room is not None and room.joined):
            try:
                (await self._session.online()).tell(composing(route))
            except ConnectorError:
                return

    async def check(self) -> None:
        """Log in, beside what may be connected already."""
        session = Session(self.account, self._settings)
        try:
            await session.online()
        finally:
            await session.close()

    async def aclose(self) -> None:
        """Close the stream."""
        await self._session.close()

    # -- how it is sent

    def _own(self, route: Route) -> Route:
        """The route, with its kind. One that nobody has spoken on yet says CHANNEL: our rooms are named, so we know."""
        if route.account != self.account:
            raise Rejected("This answer belongs to another account.")
        if route.kind is ConversationKind.CHANNEL:
            room = route.conversation in self._session.rooms
            kind = ConversationKind.GROUP if room else ConversationKind.DIRECT
            return route.model_copy(update={"kind": kind})
        if route.kind not in {ConversationKind.DIRECT, ConversationKind.GROUP}:
            raise Rejected("XMPP has direct conversations and rooms.")
        return route

    async def _placed(self, reply: Reply, route: Route) -> Route:
        """Where it goes: into the thread's message, to one person in a room, to the same person as before."""
        if route.kind is ConversationKind.DIRECT:
            if "/" in route.conversation:
                await self._require_same_person(route)
            return self._under_ours(route)
        room = await self._entered(route.conversation)
        if not (reply.private or route.private_to):
            return self._under_ours(route)
        if not route.private_to:
            raise Rejected("A private answer in a room needs the person it is for.")
        nick = room.nick_of(route.private_to)
        if nick is not None:
            return _private(route, f"{room.jid}/{nick}")
        if "/" in route.private_to or route.private_to.startswith("occupant:"):
            raise Rejected("The person that this private answer is for has left the room.")
        return _private(route, route.private_to)

    async def _require_same_person(self, route: Route) -> None:
        bare, _, nick = route.conversation.partition("/")
        if bare not in self._session.rooms:
            return  # one device of a person
        room = await self._entered(bare)
        expected = route.context.get("occupant", "")
        occupant = room.occupants.get(nick)
        if occupant is None or (expected and room.sender_of(occupant) != expected):
            raise Rejected("The person that this private answer is for has left the room.")

    async def _entered(self, jid: str) -> RoomState:
        room = self._session.rooms.get(jid)
        if room is None:
            raise Rejected(f"We are not in the room {jid}: it is not among this account's rooms.")
        stream = await self._session.online()
        await self._session.enter(stream, room)
        return room

    def _under_ours(self, route: Route) -> Route:
        """A thread that begins with a message of ours: the answer also says that it answers that one."""
        head = self._session.hearing.ours.get(route.thread or "")
        if head is None or head.place != route.conversation:
            return route
        author = self._settings.jid
        if route.kind is ConversationKind.GROUP:
            room = self._session.rooms.get(route.conversation)
            author = f"{route.conversation}/{room.ours if room else self._settings.nick}"
        context = {**route.context, "answers": head.archive_id or route.thread or "", "author": author}
        return route.model_copy(update={"context": context})

    async def _address_of(self, file: File, token: str, number: int) -> str:
        known = self._put.get((token, number)) if token else None
        if known is None:
            known = await self._uploads.put(file, self._ask)
            if token:
                self._put[token, number] = known
        return known

    async def _deliver(self, message: ET.Element, route: Route) -> Receipt:
        """Send it, and wait until the server has it. Raises `StanzaError` or `ConnectorError`."""
        id_ = message.get("id", "")
        group = message.get("type") == "groupchat"
        stream = await self._session.online()
        if not stream.connected:
            raise Unreachable("The connection to the XMPP server broke.")
        hearing = self._session.hearing
        echo = hearing.expect_echo(id_) if group else None
        sent = stream.begin(message)
        archive_id = ""
        try:
            async with asyncio.timeout(self._settings.ack_within):
                await self._until(stream, sent)
                if echo is not None:
                    archive_id = await self._until(stream, echo)
        except StanzaError as error:
            if group and error.condition == "not-acceptable":
                self._session.rooms[route.conversation].joined = False
                raise Unreachable("The room did not know us: it is entered again.") from None
            raise
        except TimeoutError:
            if not sent.done():
                await self._session.forsake(stream)
            raise Unknown("The XMPP server did not confirm the message in time.") from None
        finally:
            for future in (sent, echo):
                if future is not None:
                    future.cancel()
        hearing.sent(Ours(id_, route.conversation, route.thread, archive_id))
        return Receipt(native_ids=(id_,))

    async def _until(self, stream: Stream, future: asyncio.Future[_T]) -> _T:
        """The future's result. Where the connection breaks, one resumption decides. Raises `Unknown` without."""
        while not future.done():
            lost = asyncio.create_task(stream.lost.wait())
            try:
                waited: set[asyncio.Future[object]] = {future, lost}  # type: ignore[arg-type]
                await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            finally:
                lost.cancel()
            if future.done():
                break
            try:
                again = await self._session.online()
            except ConnectorError:
                again = None
            if again is not stream and not future.done():
                raise Unknown("The connection broke; whether it was taken is not known.")
        return future.result()

    async def _require_archive(self, stream: Stream) -> None:
        """That our own archive has all that we say. Raises `Unknown` where it leaves things out."""
        answer = await stream.request(iq("get", ET.Element(f"{{{MAM}}}prefs")))
        prefs = answer.find(f"{{{MAM}}}prefs")
        never = [] if prefs is None else prefs.findall(f"{{{MAM}}}never/{{{MAM}}}jid")
        if prefs is None or prefs.get("default") != "always" or never:
            raise Unknown("The archive leaves messages out: whether it arrived cannot be told.")

    def _is_final(self, route: Route) -> bool:
        """Whether what the archive does not have can no longer arrive: it went through no server but our own."""
        domain = self._settings.domain
        place = route.conversation.partition("/")[0].rpartition("@")[2]
        direct = route.kind is ConversationKind.DIRECT
        return direct or place == domain or place.endswith("." + domain)

    def _found(
        self, id_: str, found: list[tuple[str, ET.Element]] | None, route: Route, *, sure: bool
    ) -> Receipt | None:
        for archive_id, message in found or ():
            origin = message.find(f"{{{SID}}}origin-id")
            named = {message.get("id", ""), origin.get("id", "") if origin is not None else ""}
            if id_ in named and message.find(f"{{{CLIENT}}}body") is not None:
                group = route.kind is ConversationKind.GROUP
                ours = Ours(id_, route.conversation, route.thread, archive_id if group else "")
                self._session.hearing.sent(ours)
                return Receipt(native_ids=(id_,))
        if found is None or not sure:
            raise Unknown("The archive does not tell whether it arrived.")
        return None


def _private(route: Route, to: str) -> Route:
    return route.model_copy(
        update={"conversation": to, "kind": ConversationKind.DIRECT, "thread": None, "context": {}}
    )


def _require_sdk() -> None:
    try:
        import_module("slixmpp")
    except ImportError as error:
        raise ConfigurationError('XMPP needs its SDK: pip install "prefect-parley[xmpp]"') from error


CONNECTOR = XMPP
