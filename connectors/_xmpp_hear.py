"""What is heard: which of the stanzas that come in are for us, and their way to the inbox, one after the other."""

from __future__ import annotations

import asyncio
import xml.etree.ElementTree as ET
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from connectors._memory import Memory
from connectors._xmpp_read import Said, forwarded, from_archive, mentions, parse, said, stanza_error
from connectors._xmpp_rooms import Place, RoomState
from connectors._xmpp_settings import XMPPSettings
from connectors._xmpp_write import received
from parley.messages import Accept, Assurance, ConversationKind, Edit, Event, Message

if TYPE_CHECKING:
    from connectors._xmpp_client import Ticket
    from connectors._xmpp_stream import Stream

MOST_WAITING = 500
"""Stanzas that wait to be stored; then the rest waits at the server."""

Fetch = Callable[[tuple[str, ...], Message], Awaitable[Message]]
"""Adds the files at these addresses to a message, or says why not."""


@dataclass(frozen=True, slots=True)
class Ours:
    """A message that we sent: where, in which thread, and its archive's id where that is known."""

    id: str
    place: str
    thread: str | None
    archive_id: str = ""


class Heard(NamedTuple):
    """One stanza on its way to the inbox. Without an event, it only moves our place in its archive on."""

    ticket: Ticket | None
    event: Event | None = None
    read: Said | None = None
    place: Place | None = None
    archive_id: str = ""
    archived: bool = False


class Hearing:
    """From stanzas to the inbox, one after the other."""

    def __init__(self, account: str, settings: XMPPSettings, own: Place, rooms: dict[str, RoomState]) -> None:
        """`own` is our own archive, `rooms` those that we mean to be in."""
        self._account, self._settings, self.own, self._rooms = account, settings, own, rooms
        self.ours: Memory[str, Ours] = Memory()
        self.threads: Memory[tuple[str, str], None] = Memory()
        self._known: Memory[tuple[str, str, str], str] = Memory()
        self._stored: Memory[str, None] = Memory()
        self._echoes: dict[str, asyncio.Future[str]] = {}
        self._searches: dict[str, tuple[str, list[tuple[str, ET.Element]]]] = {}
        self._catching: dict[str, Place] = {}
        self._waiting: deque[Heard | asyncio.Future[None]] = deque()
        self._filled = asyncio.Event()
        self._held: dict[str, list[Heard]] = {}
        self.listening = False

    # -- what comes in, at once

    def take(self, stream: Stream, xml: ET.Element) -> None:
        """One message stanza. What is to be stored keeps its ticket until it is."""
        found = forwarded(xml)
        if found is not None:
            self._take_archived(stream, xml.get("from", "").lower(), *found)
            return
        if xml.get("type") == "error":
            refused = self._echoes.get(xml.get("id", ""))
            if refused is not None and not refused.done():
                refused.set_exception(stanza_error(xml))
            return
        read = said(xml)
        if read is None:
            return
        if self._echoes:
            self._hear_echo(read)
        if self.listening:
            place = self._place_of(read)
            id_ = read.archive_ids.get(place.jid, "") if place is not None and place.vouched else ""
            self._put(stream, read, place, id_, archived=False)

    def _take_archived(
        self, stream: Stream, archive: str, query: str, id_: str, message: ET.Element, stamp: datetime | None
    ) -> None:
        archive = archive or self._settings.jid
        asked, results = self._searches.get(query, ("", []))
        if asked == archive:
            results.append((id_, message))
            return
        place = self._catching.get(query)
        if place is None or place.jid != archive or not self.listening:
            return  # nobody asked, or another answers: not from an archive that we trust
        read = from_archive(message, archive, id_, stamp)
        wanted = read is not None and (archive in self._rooms) == (read.kind == "groupchat")
        self._put(stream, read if wanted else None, place, id_, archived=True)

    def _put(
        self, stream: Stream, read: Said | None, place: Place | None, id_: str, *, archived: bool
    ) -> None:
        event = None if read is None else self._event(read, place)
        if event is None and not id_:
            return
        if isinstance(event, Message) and read is not None:
            self._remember(event, read)  # now: its edit may come in the same packet
        heard = Heard(stream.take_ticket(), event, read, place, id_, archived)
        if place is not None and place.holds and place.vouched and not archived:
            held = self._held.setdefault(place.jid, [])
            held.append(heard)
            if len(held) >= MOST_WAITING:  # rather out of order than in memory
                self.release(place)
            return
        self._wait(heard)
        if len(self._waiting) >= MOST_WAITING:
            stream.pause(reading=False)

    def _wait(self, heard: Heard | asyncio.Future[None]) -> None:
        self._waiting.append(heard)
        if len(self._waiting) == 1:
            self._filled.set()

    def _place_of(self, read: Said) -> Place | None:
        if read.kind != "groupchat":
            return self.own
        room = self._rooms.get(read.peer)
        return room.place if room is not None else None

    def _event(self, read: Said, place: Place | None) -> Event | None:
        state = self._rooms.get(read.peer)
        if state is not None and _is_history(read, state):
            return None
        room = state.view() if state is not None else None
        vouched = read.archived or (place is not None and place.vouched)
        event = parse(read, self._account, self._settings, room, vouched=vouched, known=self._known)
        if event is None or room is None or event.route.kind is ConversationKind.DIRECT:
            return event
        event = self._in_its_thread(event, read)
        thread = (event.route.conversation, event.route.thread or "")
        meant = mentions(read, self._settings, room) or thread in self.threads or read.reply_to in self.ours
        if meant and event.route.thread:
            self.threads[thread] = None
        if meant or self._settings.hear == "all":
            return event
        if isinstance(event, Edit):
            return event if event.target in self._stored else None
        return event.model_copy(update={"addressed": False}) if self._settings.hear == "along" else None

    def _in_its_thread(self, event: Message | Edit, read: Said) -> Message | Edit:
        """A reply to a message of ours is in its thread, whether its author's client says so or not."""
        answered = self.ours.get(read.reply_to)
        if read.thread or answered is None or answered.place != event.route.conversation:
            return event
        head = (answered.place, answered.id)
        thread = answered.thread or (answered.id if head in self.threads else None)
        return event.model_copy(update={"route": event.route.model_copy(update={"thread": thread})})

    # -- what is stored, in order

    async def store(self, stream: Stream, accept: Accept, fetch: Fetch) -> None:
        """Store what comes in, until cancelled. Raises what `accept` raises: then nothing more was settled."""
        while True:
            while not self._waiting:
                self._filled.clear()
                await self._filled.wait()
            heard = self._waiting.popleft()
            if len(self._waiting) == MOST_WAITING // 2:
                stream.pause(reading=True)
            if isinstance(heard, asyncio.Future):
                if not heard.done():
                    heard.set_result(None)
                continue
            await self._store_one(stream, heard, accept, fetch)

    async def _store_one(self, stream: Stream, heard: Heard, accept: Accept, fetch: Fetch) -> None:
        event, read = heard.event, heard.read
        if event is not None and read is not None and event.native_id not in self._stored:
            if isinstance(event, Message) and read.urls and not read.encrypted:
                event = await fetch(read.urls, event)
            await accept(event)
            self._stored[event.native_id] = None
            if isinstance(event, Message):
                self._confirm(stream, event, read)
        if heard.place is not None and heard.archive_id:
            heard.place.stored(heard.archive_id, archived=heard.archived)
        stream.settle(heard.ticket)

    def _remember(self, event: Message, read: Said) -> None:
        for id_ in (read.id, read.origin_id):
            if id_:
                self._known[event.route.conversation, event.sender.id, id_] = event.native_id

    def _confirm(self, stream: Stream, event: Message, read: Said) -> None:
        if not (read.receipt and read.id):
            return
        if event.sender.assurance is Assurance.VERIFIED and event.route.kind is ConversationKind.DIRECT:
            stream.tell(received(read.author, read.id))

    def forget_waiting(self) -> None:
        """The connection broke: what was not stored comes again."""
        self._held.clear()
        while self._waiting:
            left = self._waiting.popleft()
            if isinstance(left, asyncio.Future):
                left.cancel()

    async def all_stored(self) -> None:
        """Wait until what is waiting now is stored."""
        marker: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._wait(marker)
        await marker

    # -- archives

    def catch_up(self, query: str, place: Place) -> None:
        """The results of this query are what was missed there."""
        self._catching[query] = place

    def search(self, query: str, archive: str) -> list[tuple[str, ET.Element]]:
        """The results of this query, as they come: archive's id and message."""
        results: list[tuple[str, ET.Element]] = []
        self._searches[query] = (archive, results)
        return results

    def release(self, place: Place) -> None:
        """This archive was read, or cannot be now: what came live meanwhile goes its way."""
        place.holds = False
        for heard in self._held.pop(place.jid, ()):
            self._wait(heard)

    def done(self, query: str) -> None:
        """No more results are expected."""
        self._catching.pop(query, None)
        self._searches.pop(query, None)

    # -- what we said ourselves

    def sent(self, ours: Ours) -> None:
        """Know a message of ours again, and the thread that it is in."""
        self.ours[ours.id] = ours
        if ours.archive_id:
            self.ours[ours.archive_id] = ours
        if ours.thread:
            self.threads[ours.place, ours.thread] = None

    def expect_echo(self, id_: str) -> asyncio.Future[str]:
        """The room's own copy of what we are about to say: its archive's id, empty where it has none."""
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._echoes[id_] = future
        future.add_done_callback(lambda _: self._echoes.pop(id_, None))
        return future

    def _hear_echo(self, read: Said) -> None:
        state = self._rooms.get(read.peer)
        future = self._echoes.get(read.id)
        if future is None or state is None or future.done() or read.kind != "groupchat":
            return
        if read.resource == state.ours:
            future.set_result(read.archive_ids.get(state.jid, ""))


def _is_history(read: Said, room: RoomState) -> bool:
    """What a room tells who enters; where it has an archive, that is read instead."""
    told = read.kind == "groupchat" and not read.archived and read.delayed_by.partition("/")[0] == room.jid
    return told and not room.takes_history
