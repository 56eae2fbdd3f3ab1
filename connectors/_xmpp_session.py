"""Being there: one session that is opened when it is needed, is in its rooms, and has read what it missed."""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import xml.etree.ElementTree as ET
from datetime import UTC, datetime, timedelta

from connectors._xmpp_hear import Fetch, Hearing
from connectors._xmpp_read import StanzaError
from connectors._xmpp_rooms import Place, RoomState
from connectors._xmpp_settings import XMPPSettings
from connectors._xmpp_stream import Stream
from connectors._xmpp_write import DISCO_INFO, MAM, PING, RSM, SID, archive_query, disco, iq, join, presence
from parley.errors import AuthError, Unreachable
from parley.messages import Accept

ENTERS_WITHIN = 10.0
LOOKS_EVERY = 60.0
"""Seconds after which a room that we are not in is tried again."""

ARCHIVE_AGAIN = 5.0
"""Seconds after which an archive is asked again that could not be read."""

PINGS_EVERY = 5
"""Looks after which it is asked whether we are still in our rooms (XEP-0410)."""

MOST_PAGES = 100

_NEVER = {"feature-not-implemented", "forbidden", "item-not-found", "not-allowed"}
"""Why an archive says that it will not be read, whenever it is asked."""

NICKS = ("", "_", "__", "___")

log = logging.getLogger(__name__)


class Session:
    """One login of one account. Its resource is its own: it takes over its own broken session and nobody else's."""

    def __init__(self, account: str, settings: XMPPSettings) -> None:
        """Connect nothing yet."""
        self.settings = settings
        since = datetime.now(UTC)
        self.rooms = {room: RoomState(room, settings.nick, since) for room in settings.rooms}
        self.own = Place(settings.jid, since)
        self.hearing = Hearing(account, settings, self.own, self.rooms)
        self._account = account
        self._resource = f"parley-{secrets.token_hex(6)}"
        self._stream: Stream | None = None
        self._opening = asyncio.Lock()
        self._entering = asyncio.Lock()
        self._announced = self._listened = False
        self._up = asyncio.Event()
        self._changed = asyncio.Event()
        self._queries = 0

    # -- the connection

    async def online(self) -> Stream:
        """The stream, connected, resumed where the server still knows it: one attempt. Raises `ConnectorError`."""
        async with self._opening:
            stream = self._stream
            if stream is not None and stream.connected:
                return stream
            if stream is None:
                stream = Stream(
                    self.settings, self._resource, self.hearing.take, self._on_presence, self._on_lost
                )
            try:
                resumed = await stream.open()
            except BaseException as error:
                # What was sent and not confirmed must not be sent again by a later resumption: its sender is told.
                if stream is not self._stream or stream.waited_for or isinstance(error, AuthError):
                    self._stream = None
                    await stream.close()
                raise
            self._stream = stream
            if not resumed:
                self._begin()
            self._up.set()
            return stream

    async def is_up(self, within: float) -> None:
        """Wait until there is a connection, made by whomever, or the time is over."""
        try:
            async with asyncio.timeout(within):
                await self._up.wait()
        except TimeoutError:
            return

    async def forsake(self, stream: Stream) -> None:
        """Give this stream up for good: nothing of it may be sent again."""
        if stream is self._stream:
            self._stream = None
        await stream.close()

    async def close(self) -> None:
        """End the session."""
        stream, self._stream = self._stream, None
        if stream is not None:
            await stream.close()

    def _begin(self) -> None:
        self._announced = False
        self.own.broken()
        for room in self.rooms.values():
            room.joined = False
            room.occupants.clear()
            room.place.broken()

    def _on_lost(self) -> None:
        self._up.clear()
        self.hearing.forget_waiting()

    # -- listening

    async def attend(self, accept: Accept, fetch: Fetch) -> None:
        """Receive over one connection, until it breaks. Raises `ConnectorError`, or what `accept` raised."""
        if not self._listened:
            self._listened = True
            since = datetime.now(UTC) - timedelta(minutes=self.settings.catch_up_minutes)
            for place in (self.own, *(room.place for room in self.rooms.values())):
                place.since = since
        stream = await self.online()
        tasks = [
            asyncio.create_task(self.hearing.store(stream, accept, fetch)),
            asyncio.create_task(self._keep(stream)),
            asyncio.create_task(stream.probe()),
        ]
        lost = asyncio.create_task(_waited(stream.lost))
        try:
            done, _ = await asyncio.wait({*tasks, lost}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (*tasks, lost):
                task.cancel()
            await asyncio.gather(*tasks, lost, return_exceptions=True)
        if lost not in done:
            await (
                stream.abort()
            )  # what was not stored is not acknowledged: the server has it, and gives it again
        for task in done:
            error = task.exception()
            if error is not None:
                raise error

    async def _keep(self, stream: Stream) -> None:
        """Be seen, be in the rooms, and read what was missed; again whenever something of it is lost."""
        looks = 0
        while True:
            self._changed.clear()
            if not self._announced:
                await self._vouch(stream, self.own)
                stream.tell(presence())
                self._announced = True
            await self._catch_up(stream, self.own)
            for room in self.rooms.values():
                try:
                    await self.enter(stream, room)
                    await self._catch_up(stream, room.place)
                except (StanzaError, Unreachable) as error:
                    if not stream.connected:
                        raise Unreachable("The connection to the XMPP server broke.") from None
                    log.warning("xmpp %s: not in %s now (%s)", self._account, room.jid, error)
                    self.hearing.release(room.place)
            try:
                async with asyncio.timeout(self._until_next_look()):
                    await self._changed.wait()
                await asyncio.sleep(1)  # who was thrown out comes back, but not at once
            except TimeoutError:
                looks += 1
            if looks % PINGS_EVERY == 0:
                await self._ping_rooms(stream)

    def _until_next_look(self) -> float:
        """Seconds; soon where an archive is still to be read."""
        entered = [room.place for room in self.rooms.values() if room.joined]
        unread = any(place.vouched and not place.caught_up for place in (self.own, *entered))
        return (ARCHIVE_AGAIN if unread else LOOKS_EVERY) * random.uniform(0.8, 1.2)  # noqa: S311 - no secret

    async def _ping_rooms(self, stream: Stream) -> None:
        """A room's server that was restarted has forgotten us and says nothing: ask (XEP-0410)."""
        for room in self.rooms.values():
            if not room.joined:
                continue
            try:
                ping = ET.Element(f"{{{PING}}}ping")
                await stream.request(iq("get", ping, to=f"{room.jid}/{room.ours}"))
            except StanzaError as error:
                room.joined = error.condition != "not-acceptable" and room.joined
            except Unreachable:
                continue

    # -- rooms

    async def enter(self, stream: Stream, room: RoomState) -> None:
        """Be in the room. Raises `StanzaError` or `Unreachable`."""
        async with self._entering:
            if room.joined:
                return
            await self._vouch(stream, room.place)
            room.takes_history = not room.place.vouched
            since = room.place.since if room.takes_history and self.hearing.listening else None
            for more in NICKS:
                entered = room.entering(room.wanted + more)
                stream.tell(join(room.jid, room.ours, since))
                try:
                    async with asyncio.timeout(ENTERS_WITHIN):
                        await entered
                    return
                except TimeoutError:
                    raise Unreachable(f"The room {room.jid} did not answer.") from None
                except StanzaError as error:
                    if error.condition != "conflict" or more == NICKS[-1]:
                        raise

    def _on_presence(self, stream: Stream, xml: ET.Element) -> None:
        sender, kind = xml.get("from", ""), xml.get("type", "")
        bare = sender.partition("/")[0].lower()
        room = self.rooms.get(bare)
        if room is not None:
            before = room.joined
            room.take(xml)
            if before and not room.joined:
                self._changed.set()
        elif kind == "subscribe" and self.hearing.listening:
            answer = "subscribed" if self.settings.trusts(bare) else "unsubscribed"
            stream.tell(presence(answer, bare))

    # -- archives

    async def _vouch(self, stream: Stream, place: Place) -> None:
        """Learn whether this archive exists and gives messages ids of its own. A room that is not there raises."""
        try:
            info = await stream.request(disco(place.jid))
        except StanzaError:
            if place is not self.own:
                raise
            place.vouched = False
            return
        features = {one.get("var") for one in info.iter(f"{{{DISCO_INFO}}}feature")}
        place.vouched = MAM in features or (place is self.own and SID in features)

    async def _catch_up(self, stream: Stream, place: Place) -> None:
        """Read an archive from where we are in it to its end; its results go the way of all messages.

        One that cannot be read now stays unread: it is asked again at the next look.
        """
        if place.caught_up or not place.vouched:
            return
        query = self._query()
        self.hearing.catch_up(query, place)
        try:
            await self._read_pages(stream, place, query)
        except StanzaError as error:
            if error.condition == "item-not-found" and place.last is not None:
                place.forgotten()
                self._changed.set()
                return
            log.warning("xmpp %s: the archive of %s cannot be read (%s)", self._account, place.jid, error)
            if error.condition not in _NEVER:
                self.hearing.release(place)
                return
        finally:
            self.hearing.done(query)
        place.read()
        self.hearing.release(place)

    async def _read_pages(self, stream: Stream, place: Place, query: str) -> None:
        after = place.last
        for _ in range(MOST_PAGES):
            start = place.since if after is None else None
            answer = await stream.request(archive_query(place.jid, query, start=start, after=after))
            await self.hearing.all_stored()
            complete, after = page_of(answer, forward=True)
            if complete or not after:
                return
        log.warning("xmpp %s: more was missed in %s than is read again", self._account, place.jid)

    async def search(
        self, stream: Stream, archive: str, *, partner: str, since: datetime, pages: int
    ) -> list[tuple[str, ET.Element]] | None:
        """Messages of an archive, newest pages first, each its archive's id and stanza; None where there are more.

        Raises `StanzaError` or `Unreachable`.
        """
        query = self._query()
        results = self.hearing.search(query, archive)
        before: str | None = ""
        try:
            for _ in range(pages):
                answer = await stream.request(
                    archive_query(archive, query, start=since, before=before, partner=partner)
                )
                complete, before = page_of(answer, forward=False)
                if complete or not before:
                    return results
        finally:
            self.hearing.done(query)
        return None

    def _query(self) -> str:
        self._queries += 1
        return f"{self._resource}-{self._queries}"


def page_of(answer: ET.Element, *, forward: bool) -> tuple[bool, str | None]:
    """Whether this page was the last one, and the id after (or before) which the next begins."""
    fin = answer.find(f"{{{MAM}}}fin")
    if fin is None:
        return True, None
    edge = fin.findtext(f"{{{RSM}}}set/{{{RSM}}}{'last' if forward else 'first'}")
    return fin.get("complete") == "true", edge or None


async def _waited(event: asyncio.Event) -> None:
    await event.wait()
