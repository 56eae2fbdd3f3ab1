"""What the gateway tells, taken: each event in the order of its channel, stored before Discord is told so.

An event whose storing fails is tried again with back-off while those behind it in its channel wait. At most `IN_FLIGHT`
events wait at all: then nothing more is read, and Discord keeps the rest. Slash commands and presses wait for nobody,
since Discord gives three seconds to answer them.

A resumed session brings what was missed. A new one does not: then the channels that have newer messages than we know
are read from their history.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any

from connectors._discord_commands import Choices
from connectors._discord_gateway import Session
from connectors._discord_interactions import Interactions
from connectors._discord_known import Known
from connectors._discord_messages import GIVES_UP_AFTER, LONGEST_PAUSE, Hear, Messages
from connectors._discord_read import FORUMS, Me, id_of, is_own, snowflake_at
from connectors._discord_rest import Rest
from connectors._json import Json, objects_of, text_of
from connectors._lanes import Lanes
from connectors._waiting import pause
from parley.errors import ConnectorError
from parley.messages import Accept

IN_FLIGHT = 200
OVERLAP = 60  # seconds that a history is read further back than what we know
READ_UP_AT_ONCE = 4
PAGES = 10
PAGE = 100

_CHANNELS = {"CHANNEL_CREATE", "CHANNEL_UPDATE", "THREAD_CREATE", "THREAD_UPDATE"}

log = logging.getLogger(__name__)


class Receiver:
    """One account's way in, for as long as it listens."""

    def __init__(
        self,
        account: str,
        rest: Rest,
        known: Known,
        accept: Accept,
        *,
        hear: Hear,
        catch_up: timedelta,
        choices: Callable[[], Choices],
        longest_pause: float = LONGEST_PAUSE,
    ) -> None:
        self._account, self._rest, self._known, self._catch_up = account, rest, known, catch_up
        self._longest_pause = longest_pause
        self._messages = Messages(account, rest, known, accept, hear, longest_pause)
        self._interactions = Interactions(account, rest, known, accept, choices)
        self._lanes = Lanes(IN_FLIGHT)
        self._guilds: set[str] = set()
        self._since = 0
        self._reading = 0
        self._reading_up = asyncio.Semaphore(READ_UP_AT_ONCE)
        self.room = self._lanes.room

    async def aclose(self) -> None:
        """End what is being stored; what is not is not acknowledged."""
        await self._lanes.aclose()

    # -- what the gateway tells

    def told(self, session: Session, number: int, name: str, data: Json) -> None:
        """Take one event: at once where it is only something to know, else in its lane."""
        me = self._known.me
        work = self._work(name, data, me) if me is not None else None
        if work is None:
            session.done(number)
        else:
            lane, doing = work
            self._spawn(lane, doing, lambda: session.done(number))

    def _work(
        self, name: str, data: Json, me: Me
    ) -> tuple[str, Callable[[], Coroutine[Any, Any, None]]] | None:
        channel, id_ = id_of(data.get("channel_id")), id_of(data.get("id"))
        if name == "MESSAGE_CREATE" and is_own(data, me):
            self._known.own[id_] = True
            self._known.nonces[text_of(data.get("nonce"))] = id_
        elif name in {"MESSAGE_CREATE", "MESSAGE_UPDATE"} and channel and id_:
            return channel, self._message(name, data, me, int(id_))
        elif name == "INTERACTION_CREATE" and id_:
            return f"interaction {id_}", lambda: self._interactions.take(data, me)
        elif name == "THREAD_MEMBERS_UPDATE":
            # In its place among what is said in the thread: it decides what of it is said to us.
            return id_, lambda: self._members(data, me)
        else:
            self._learn(name, data, me)
        return None

    def _message(self, name: str, data: Json, me: Me, id_: int) -> Callable[[], Coroutine[Any, Any, None]]:
        if name == "MESSAGE_CREATE":
            self._known.newest = max(self._known.newest, id_)
            self._known.unstored.add(id_)

        async def take() -> None:
            await self._messages.take(name, data, me)
            self._known.unstored.discard(id_)

        return take

    def _learn(self, name: str, data: Json, me: Me) -> None:
        if name == "READY":
            self._begin(data)
        elif name == "GUILD_CREATE":
            self._guild(data, me)
        elif name in _CHANNELS:
            self._known.note_place(data, me)
        elif name in {"CHANNEL_DELETE", "THREAD_DELETE"}:
            self._known.places.pop(id_of(data.get("id")), None)

    async def _members(self, data: Json, me: Me) -> None:
        thread, removed = id_of(data.get("id")), data.get("removed_member_ids")
        if any(member.get("user_id") == me.user for member in objects_of(data.get("added_members"))):
            self._known.note_ours(thread)
        if isinstance(removed, list) and me.user in removed:
            self._known.note_ours(thread, ours=False)

    def _spawn(
        self,
        lane: str,
        doing: Callable[[], Coroutine[Any, Any, None]],
        done: Callable[[], None] | None = None,
    ) -> None:
        async def run() -> None:
            try:
                await doing()
            except Exception:
                # A fault of ours must not keep all that comes behind it.
                log.exception("discord %s: an event was left out", self._account)
            if done is not None:
                done()

        self._lanes.put(lane, run)

    # -- what was said while nobody listened

    def _begin(self, ready: Json) -> None:
        """A new session: nothing of the one before is replayed."""
        known = self._known
        if known.newest:
            since = min([known.newest - (OVERLAP * 1000 << 22), *known.unstored])
        else:
            since = snowflake_at(time.time() - self._catch_up.total_seconds())
        self._since = max(0, min(since - 1, known.behind or since))
        known.behind = self._since
        known.unstored.clear()
        self._guilds = {id_of(guild.get("id")) for guild in objects_of(ready.get("guilds"))}
        if known.newest:
            for channel in known.directs:
                self._read_up(channel)
        self._caught_up()

    def _guild(self, guild: Json, me: Me) -> None:
        id_ = id_of(guild.get("id"))
        self._known.note_role(guild, me)
        for channel in (*objects_of(guild.get("channels")), *objects_of(guild.get("threads"))):
            place = self._known.note_place(channel, me, id_)
            last = int(id_of(channel.get("last_message_id")) or 0)
            # A forum has no messages of its own; its "last message" is a thread.
            has_news = last > self._since and id_ in self._guilds
            if place and has_news and place.type not in FORUMS:
                self._read_up(place.id, id_)
        self._guilds.discard(id_)
        self._caught_up()

    def _read_up(self, channel: str, guild: str = "") -> None:
        since = self._since
        self._reading += 1
        self._spawn(channel, lambda: self._history(channel, guild, since))

    def _caught_up(self) -> None:
        if not (self._reading or self._guilds):
            self._known.behind = 0

    async def _history(self, channel: str, guild: str, after: int) -> None:
        me = await self._known.who(self._rest)
        for _ in range(PAGES):
            page = await self._page(channel, after)
            for said in page:
                place = {"channel_id": channel, **({"guild_id": guild} if guild else {})}
                await self._messages.take("MESSAGE_CREATE", {**said, **place}, me)
            if len(page) < PAGE:
                break
            after = int(id_of(page[-1].get("id")))
        else:
            log.warning("discord %s: a channel has more news than are read up", self._account)
        self._reading -= 1
        self._caught_up()

    async def _page(self, channel: str, after: int) -> list[Json]:
        """Up to `PAGE` messages, oldest first; none where they may not be read. Asked for until Discord answers."""
        began, failures = time.monotonic(), 0
        while True:
            try:
                params = {"after": str(after), "limit": str(PAGE)}
                async with self._reading_up:
                    answer = await self._rest.patiently(
                        "GET", "/channels/{}/messages", channel, params=params
                    )
                break
            except ConnectorError as error:
                failures += 1
                if time.monotonic() - began > GIVES_UP_AFTER:
                    log.warning("discord %s: a history cannot be read: %s", self._account, error)
                    return []
                if failures == 1:
                    log.warning("discord %s: a history waits to be read: %s", self._account, error)
                await asyncio.sleep(pause(failures, longest=self._longest_pause))
        messages = [said for said in objects_of(answer.data) if id_of(said.get("id"))] if answer.ok else []
        return sorted(messages, key=lambda said: int(said["id"]))
