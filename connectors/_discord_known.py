"""What one account knows of Discord while it runs: bounded, and asked for again when it is not known."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field, replace

from connectors._discord_read import DM, Me, Place, id_of, place_of
from connectors._discord_rest import Rest
from connectors._json import Json, object_of, objects_of
from connectors._memory import Memory
from parley.errors import AuthError, Rejected

# Bits of an application's flags: it may read what people write, in a hundred servers or more, and in fewer.
_MAY_READ = 1 << 18 | 1 << 19

MOST_DIRECTS = 100


@dataclass(slots=True)
class Attempt:
    """One delivery as it was tried: what find_sent looks for. `whole` is how many messages it becomes."""

    whole: int
    began: float = field(default_factory=time.time)
    channel: str = ""
    part: int = 0
    content: str = ""
    files: tuple[str, ...] = ()
    sent: tuple[str, ...] = ()
    hidden: bool = False
    original: tuple[str, str] | None = None
    """The interaction whose waiting message this fills in."""


class Known:
    """Who we are, where things are, and what was lately said."""

    def __init__(self) -> None:
        self.me: Me | None = None
        self.may_read = False
        self.newest = 0
        """The newest message that we know of, by id."""
        self.unstored: set[int] = set()
        """Messages that came and are not stored, by id: also of a listening that has ended."""
        self.behind = 0
        """Where reading up began that is not finished, by id; 0 where it is."""
        self.roles: dict[str, str] = {}
        self.places: Memory[str, Place] = Memory()
        self.taken: Memory[str, bool] = Memory()
        self.directs: Memory[str, bool] = Memory(MOST_DIRECTS)
        self.people: Memory[str, str] = Memory()
        self.titles: Memory[str, str] = Memory(2000)
        self.values: Memory[str, str] = Memory()
        self.waiting: Memory[str, bool] = Memory()
        self.locks: Memory[str, asyncio.Lock] = Memory(1000)
        """Interactions whose first answer is awaited, by token; whether it is for one person."""
        self.spent: Memory[str, bool] = Memory()
        """Interactions whose token is not good any more."""
        self.own: Memory[str, bool] = Memory()
        self.nonces: Memory[str, str] = Memory()
        self.attempts: Memory[str, Attempt] = Memory(2000)

    async def who(self, rest: Rest, *, afresh: bool = False) -> Me:
        """Who we are. Raises as `Rest.ask`, and `AuthError` where the token is no bot's."""
        if self.me is None or afresh:
            try:
                user = object_of(await rest.call("GET", "/users/@me"))
                application = object_of(await rest.call("GET", "/applications/@me"))
            except Rejected as error:
                raise AuthError(str(error)) from error
            flags = application.get("flags")
            self.may_read = isinstance(flags, int) and bool(flags & _MAY_READ)
            self.me = Me(id_of(user.get("id")), id_of(application.get("id")), self.roles)
        return self.me

    async def place(self, rest: Rest, me: Me, data: Json) -> Place:
        """Where a message or a press happened. Raises as `Rest.ask`."""
        channel, guild = id_of(data.get("channel_id")), id_of(data.get("guild_id"))
        known = self.places.recall(channel)
        if known is None:
            stated = object_of(data.get("channel")) or {"id": channel, "type": data.get("channel_type")}
            known = place_of(stated, me, guild)
            # What an event says of a thread does not say whether it is ours.
            if known is None or known.is_thread:
                known = await self.find(rest, me, channel)
        if known is None:  # not to be read by us, and yet we hear of it
            known = Place(channel, 0 if guild else DM, guild)
        if known.type == DM:
            self.directs[known.id] = True
        self.places[known.id] = known
        return known

    async def find(self, rest: Rest, me: Me, channel: str) -> Place | None:
        """A channel or thread by its id; None where there is none that we may see. Raises as `Rest.ask`."""
        known = self.places.recall(channel)
        if known is None:
            answer = await rest.patiently("GET", "/channels/{}", channel)
            known = place_of(answer.data, me) if answer.ok else None
            if known is not None:
                self.places[channel] = known
        return known

    def note_place(self, channel: object, me: Me, guild: str = "") -> Place | None:
        """Remember a channel that the gateway tells about; it may leave out that a thread is ours."""
        told = place_of(channel, me, guild)
        if told is None:
            return None
        before = self.places.recall(told.id)
        if before is not None and before.ours:
            told = replace(told, ours=True)
        self.places[told.id] = told
        return told

    def note_ours(self, thread: str, *, ours: bool = True) -> None:
        """Remember that we are, or are no more, a member of this thread."""
        place = self.places.recall(thread)
        if place is not None:
            self.places[thread] = replace(place, ours=ours)

    def note_role(self, guild: Json, me: Me) -> None:
        """Remember the role that Discord made for us in this server."""
        for role in objects_of(guild.get("roles")):
            if object_of(role.get("tags")).get("bot_id") == me.user:
                self.roles[id_of(guild.get("id"))] = id_of(role.get("id"))
