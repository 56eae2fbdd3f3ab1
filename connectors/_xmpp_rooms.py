"""A room that we are in, or mean to be: who is there, under which nick we are, and where its archive was read to."""

from __future__ import annotations

import asyncio
import time
import xml.etree.ElementTree as ET
from datetime import UTC, datetime, timedelta

from connectors._xmpp_read import Occupant, Room, StanzaError, occupant_name, occupant_of, stanza_error

MOST_OCCUPANTS = 20_000
SLACK = timedelta(minutes=1)
"""Clocks differ: where an archive has forgotten our place in it, it is read from a little earlier."""

SELF, RENAMED = "110", "303"  # status codes of XEP-0045


class Place:
    """How far one archive was read. What came live meanwhile counts only once the archive has been read up to it."""

    def __init__(self, jid: str, since: datetime) -> None:
        """`since`: where to begin when no message is known yet."""
        self.jid, self._since, self._stored_at = jid, since, 0.0
        self.last: str | None = None
        self.caught_up = False
        self.vouched = False
        self.holds = True
        """What comes live waits: what is still to be read from the archive was said before it."""
        self._ahead: str | None = None

    @property
    def since(self) -> datetime:
        """Where to begin when no message is known."""
        if not self._stored_at:
            return self._since
        return datetime.fromtimestamp(self._stored_at, UTC) - SLACK

    @since.setter
    def since(self, moment: datetime) -> None:
        self._since, self._stored_at = moment, 0.0

    def stored(self, id_: str, *, archived: bool) -> None:
        """This message, and all before it in its stream, is stored."""
        if archived or self.caught_up:
            self.last = id_
            self._stored_at = time.time()
        else:
            self._ahead = id_

    def read(self) -> None:
        """The archive was read to its end."""
        self.caught_up = True
        if self._ahead is not None:
            self.last, self._ahead = self._ahead, None
        self._stored_at = time.time()

    def broken(self) -> None:
        """A new session has begun: something may have been missed."""
        self.caught_up, self._ahead, self.holds = False, None, True

    def forgotten(self) -> None:
        """The archive no longer has the last message that we know."""
        self.last = None


class RoomState:
    """One room, from our presence in it."""

    def __init__(self, jid: str, nick: str, since: datetime) -> None:
        """Not entered yet."""
        self.jid, self.wanted, self.ours = jid, nick, nick
        self.place = Place(jid, since)
        self.occupants: dict[str, Occupant] = {}
        self.joined = False
        self.takes_history = False
        self._entered: asyncio.Future[None] | None = None

    def entering(self, nick: str) -> asyncio.Future[None]:
        """Expect our own presence. The future ends when we are in, or with the room's `StanzaError`."""
        self.occupants.clear()
        self.joined, self.ours = False, nick
        self._entered = asyncio.get_running_loop().create_future()
        return self._entered

    def take(self, presence: ET.Element) -> None:
        """A presence from the room."""
        occupant, codes, new_nick = occupant_of(presence)
        kind = presence.get("type", "")
        if kind == "error":
            self._end(stanza_error(presence))
        elif kind == "unavailable":
            self._left(occupant, codes, new_nick)
        elif not kind and occupant.nick:
            if len(self.occupants) < MOST_OCCUPANTS or occupant.nick in self.occupants:
                self.occupants[occupant.nick] = occupant
            if SELF in codes:
                self.joined, self.ours = True, occupant.nick
                self._end(None)

    def _left(self, occupant: Occupant, codes: frozenset[str], new_nick: str) -> None:
        self.occupants.pop(occupant.nick, None)
        if SELF not in codes and occupant.nick != self.ours:
            return
        if RENAMED in codes and new_nick:
            self.ours = new_nick
        else:
            self.joined = False
            self._end(StanzaError("cancel", "not-acceptable"))

    def _end(self, error: StanzaError | None) -> None:
        if self._entered is not None and not self._entered.done():
            if error is None:
                self._entered.set_result(None)
            else:
                self._entered.set_exception(error)
                self._entered.exception()

    def view(self) -> Room:
        """The room as it is now."""
        return Room(self.jid, self.ours, self.occupants)

    def nick_of(self, sender: str) -> str | None:
        """The nick of who is here under this sender's id; None if nobody is."""
        return next(
            (nick for nick, occupant in self.occupants.items() if sender == self.sender_of(occupant)), None
        )

    def sender_of(self, occupant: Occupant) -> str:
        """The sender's id of what this occupant says."""
        if occupant.jid:
            return occupant.jid
        return occupant_name(self.jid, occupant.id) if occupant.id else f"{self.jid}/{occupant.nick}"
