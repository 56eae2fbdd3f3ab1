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
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from datetime import timedelta
from pathlib import PurePosixPath
from typing import Any, Literal
from urllib.parse import urlsplit

from connectors._discord_commands import INTERACTION_AUTOCOMPLETE, Choices, suggestions
from connectors._discord_gateway import Session, pause
from connectors._discord_known import Known
from connectors._discord_read import (
    FORUMS,
    Json,
    Me,
    Place,
    concerns_us,
    id_of,
    is_own,
    mentions_us,
    moment_of,
    object_of,
    objects_of,
    parse,
    snowflake_at,
    text_of,
    token_of,
)
from connectors._discord_rest import API, Rest, bounded, file_name, same_host
from connectors._discord_write import EPHEMERAL
from parley.errors import ConnectorError, RateLimited, Rejected, StoreUnavailable, Unreachable
from parley.messages import MAX_FILE, Accept, Edit, Event, File, Message

Hear = Literal["mentions", "along", "all"]

IN_FLIGHT = 200
GIVES_UP_AFTER = 24 * 3600.0  # seconds that one event is tried to be stored
FAULTS = 5  # failures of another kind than a store that is away
ANSWERS_WITHIN = 2.0  # of the three seconds that Discord gives
LONGEST_PAUSE = 15.0
OVERLAP = 60  # seconds that a history is read further back than what we know
MAX_FILES = 10
MOST_BYTES = (
    4 * MAX_FILE
)  # of one message's files together: more than that the link to the hub does not carry
READ_UP_AT_ONCE = 4
PAGES = 10
PAGE = 100

_CDN = {"cdn.discordapp.com", "media.discordapp.net"}
_TEXTS = {
    "en": ("This could not be taken just now. Please try again.", "This button is not known here any more."),
    "zh": ("暂时无法受理，请稍后再试。", "这个按钮已失效。"),
}
_CHANNELS = {"CHANNEL_CREATE", "CHANNEL_UPDATE", "THREAD_CREATE", "THREAD_UPDATE"}

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Draft:
    """An event on its way in, made once however often it is tried to be stored."""

    event: Event | None = None
    made: bool = False
    failures: int = 0


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
    ) -> None:
        self._account, self._rest, self._known, self._accept = account, rest, known, accept
        self._hear, self._catch_up, self._choices = hear, catch_up, choices
        self._tasks: set[asyncio.Task[None]] = set()
        self._lanes: dict[str, asyncio.Task[None]] = {}
        self._guilds: set[str] = set()
        self._since = 0
        self._reading_up = asyncio.Semaphore(READ_UP_AT_ONCE)
        self.room = asyncio.Event()
        self.room.set()

    async def aclose(self) -> None:
        """End what is being stored; what is not is not acknowledged."""
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

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
            self._known.newest = max(self._known.newest, int(id_))
            return channel, lambda: self._message(name, data, me)
        elif name == "INTERACTION_CREATE" and id_:
            return f"interaction {id_}", lambda: self._interaction(data, me)
        else:
            self._learn(name, data, me)
        return None

    def _learn(self, name: str, data: Json, me: Me) -> None:
        thread = id_of(data.get("id"))
        if name == "READY":
            self._begin(data)
        elif name == "GUILD_CREATE":
            self._guild(data, me)
        elif name in _CHANNELS:
            self._known.note_place(data, me)
        elif name in {"CHANNEL_DELETE", "THREAD_DELETE"}:
            self._known.places.pop(thread, None)
        elif name == "THREAD_MEMBERS_UPDATE":
            if any(member.get("user_id") == me.user for member in objects_of(data.get("added_members"))):
                self._known.note_ours(thread)
            removed = data.get("removed_member_ids")
            if isinstance(removed, list) and me.user in removed:
                self._known.note_ours(thread, ours=False)

    def _spawn(
        self,
        lane: str,
        doing: Callable[[], Coroutine[Any, Any, None]],
        done: Callable[[], None] | None = None,
    ) -> None:
        before = self._lanes.get(lane)

        async def run() -> None:
            if before is not None:
                await asyncio.wait({before})
            try:
                await doing()
            except Exception:
                # A fault of ours must not keep all that comes behind it.
                log.exception("discord %s: an event was left out", self._account)
            if done is not None:
                done()

        task = asyncio.create_task(run())
        self._tasks.add(task)
        self._lanes[lane] = task
        if len(self._tasks) >= IN_FLIGHT:
            self.room.clear()

        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            if self._lanes.get(lane) is task:
                del self._lanes[lane]
            if len(self._tasks) < IN_FLIGHT:
                self.room.set()

        task.add_done_callback(ended)

    # -- what was said while nobody listened

    def _begin(self, ready: Json) -> None:
        """A new session: nothing of the one before is replayed."""
        far_back = snowflake_at(time.time() - self._catch_up.total_seconds())
        overlap = OVERLAP * 1000 << 22
        self._since = max(self._known.newest - overlap, 0) or far_back
        self._guilds = {id_of(guild.get("id")) for guild in objects_of(ready.get("guilds"))}
        if self._known.newest:
            for channel in self._known.directs:
                self._read_up(channel)

    def _guild(self, guild: Json, me: Me) -> None:
        id_ = id_of(guild.get("id"))
        self._known.note_role(guild, me)
        for channel in (*objects_of(guild.get("channels")), *objects_of(guild.get("threads"))):
            place = self._known.note_place(channel, me, id_)
            last = id_of(channel.get("last_message_id"))
            # A forum has no messages of its own; its "last message" is a thread.
            if (
                place
                and place.type not in FORUMS
                and id_ in self._guilds
                and last
                and int(last) > self._since
            ):
                self._read_up(place.id)
        self._guilds.discard(id_)

    def _read_up(self, channel: str) -> None:
        since = self._since
        self._spawn(channel, lambda: self._history(channel, since))

    async def _history(self, channel: str, after: int) -> None:
        me = await self._known.who(self._rest)
        for _ in range(PAGES):
            page = await self._page(channel, after)
            for said in page:
                await self._message("MESSAGE_CREATE", {"channel_id": channel, **said}, me)
            if len(page) < PAGE:
                return
            after = int(id_of(page[-1].get("id")))
        log.warning("discord %s: a channel has more news than are read up", self._account)

    async def _page(self, channel: str, after: int) -> list[Json]:
        failures = 0
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
                if failures > FAULTS:
                    log.warning("discord %s: a history cannot be read: %s", self._account, error)
                    return []
                await asyncio.sleep(pause(failures, LONGEST_PAUSE))
        messages = [said for said in objects_of(answer.data) if id_of(said.get("id"))] if answer.ok else []
        return sorted(messages, key=lambda said: int(said["id"]))

    # -- messages

    async def _message(self, name: str, data: Json, me: Me) -> None:
        key = id_of(data.get("id")) if name == "MESSAGE_CREATE" else ""
        if key and key in self._known.taken:
            return
        draft = _Draft()
        await self._insist(lambda: self._store(draft, name, data, me), draft)
        if key:
            self._known.taken[key] = True

    async def _store(self, draft: _Draft, name: str, data: Json, me: Me) -> None:
        if not draft.made:
            draft.event = await self._event(draft, name, data, me)
            draft.made = True
        if draft.event is not None:
            await self._accept(draft.event)

    async def _event(self, draft: _Draft, name: str, data: Json, me: Me) -> Event | None:
        place = await self._known.place(self._rest, me, data)
        said_to_us = concerns_us(data, me, place)
        if place.is_thread and said_to_us and mentions_us(data, me, place):
            self._known.note_ours(place.id)
        if not said_to_us and self._hear == "mentions":
            return None
        addressed = said_to_us or self._hear == "all"
        event = parse(name, data, self._account, me, place, addressed=addressed)
        if isinstance(event, Edit):
            return event if addressed else None
        if isinstance(event, Message) and data.get("attachments"):
            files, left_out = await self._files(data, final=draft.failures >= FAULTS - 1)
            event = event.model_copy(update={"files": files, "left_out": left_out})
        return event

    async def _insist(self, work: Callable[[], Awaitable[None]], draft: _Draft) -> None:
        """Do it until it is done; give up on what will never be."""
        began, stored_failures = time.monotonic(), 0
        while True:
            wait = 0.0
            try:
                await work()
                return
            except StoreUnavailable as error:
                stored_failures += 1
                reason, over = str(error), time.monotonic() - began > GIVES_UP_AFTER
            except Exception as error:  # noqa: BLE001 - whatever it was, it is not stored
                draft.failures += 1
                wait = error.retry_after if isinstance(error, RateLimited) else 0.0
                reason, over = type(error).__name__, draft.failures >= FAULTS
            if over:
                log.error(
                    "discord %s: an event could not be stored and is left out (%s)", self._account, reason
                )
                return
            if draft.failures + stored_failures == 1:
                log.warning("discord %s: an event waits to be stored (%s)", self._account, reason)
            await asyncio.sleep(max(wait, pause(draft.failures + stored_failures, LONGEST_PAUSE)))

    # -- files

    async def _files(self, data: Json, *, final: bool) -> tuple[tuple[File, ...], tuple[str, ...]]:
        files: list[File] = []
        left_out: list[str] = []
        for number, about in enumerate(objects_of(data.get("attachments"))):
            try:
                if number >= MAX_FILES:
                    raise Rejected(f"only {MAX_FILES} files of a message are read")
                files.append(await self._file(about, MOST_BYTES - sum(len(file.content) for file in files)))
            except ConnectorError as error:
                if not (final or isinstance(error, Rejected)):
                    raise  # tried again, and with it the whole message
                left_out.append(f"{_name_of(about)}: {error}")
        return tuple(files), tuple(left_out[:20])

    async def _file(self, about: Json, room: int) -> File:
        url, size, most = text_of(about.get("url")), about.get("size"), min(room, MAX_FILE)
        if not self._is_discords(url):
            raise Rejected("it is not kept by Discord itself")
        if isinstance(size, int) and size > most:
            raise Rejected(f"it has {size} bytes, the limit is {most}")
        media_type = text_of(about.get("content_type")) or "application/octet-stream"
        return File(
            name=_name_of(about), media_type=media_type[:255], content=await self._download(url, most)
        )

    def _is_discords(self, url: str) -> bool:
        try:
            there = urlsplit(url)
            if there.scheme == "https" and there.port in {None, 443} and there.hostname in _CDN:
                return True
        except ValueError:
            return False
        return self._rest.base_url != API and same_host(url, self._rest.base_url)

    async def _download(self, url: str, most: int) -> bytes:
        import aiohttp

        try:
            async with self._rest.session.get(url, allow_redirects=False) as answer:
                if answer.status >= 500 or answer.status == 429:
                    raise Unreachable(f"Discord does not give it now ({answer.status})")
                if answer.status != 200:
                    raise Rejected(f"Discord does not give it ({answer.status})")
                return await bounded(answer.content, most)
        except ValueError:
            raise Rejected(f"it has more than {most} bytes") from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unreachable(f"reading it failed ({type(error).__name__})") from None

    # -- slash commands and presses

    async def _interaction(self, data: Json, me: Me) -> None:
        began = time.monotonic()
        if data.get("type") == INTERACTION_AUTOCOMPLETE:
            found = suggestions(object_of(data.get("data")), self._choices())
            await self._answer(data, {"type": 8, "data": {"choices": found}})
            return
        place = await self._place_of_interaction(data, me)
        event = parse("INTERACTION_CREATE", data, self._account, me, place, values=self._known.values)
        if event is None:
            await self._refuse(data, 1)
        elif await self._stored(event, began):
            await self._acknowledge(data, event)
        else:
            # The person is told at once, and may try again: nothing is carried out behind their back later.
            await self._refuse(data, 0)

    async def _place_of_interaction(self, data: Json, me: Me) -> Place:
        try:
            return await self._known.place(self._rest, me, data)
        except ConnectorError:
            channel, guild = id_of(data.get("channel_id")), id_of(data.get("guild_id"))
            return Place(channel, 0 if guild else 1, guild)

    async def _stored(self, event: Event, began: float) -> bool:
        failures = 0
        while True:
            try:
                await self._accept(event)
                return True
            except Exception as error:  # noqa: BLE001 - whatever it was, it is not stored
                failures += 1
                wait = pause(failures, ANSWERS_WITHIN)
                if time.monotonic() + wait - began > ANSWERS_WITHIN:
                    log.warning(
                        "discord %s: a command was not stored in time (%s)",
                        self._account,
                        type(error).__name__,
                    )
                    return False
                await asyncio.sleep(wait)

    async def _acknowledge(self, data: Json, event: Event) -> None:
        """Tell Discord that it is taken: the person sees that an answer is being made."""
        private = event.route.private_to is not None
        if not isinstance(event, Message):
            # Not locked: more than one person may have to press it, and not everybody may.
            await self._answer(data, {"type": 6})
        elif await self._answer(data, {"type": 5, "data": {"flags": EPHEMERAL if private else 0}}):
            self._known.waiting[event.route.context["interaction"]] = private

    async def _refuse(self, data: Json, which: int) -> None:
        language = "zh" if text_of(data.get("locale")).startswith("zh") else "en"
        said = {"content": _TEXTS[language][which], "flags": EPHEMERAL, "allowed_mentions": {"parse": []}}
        await self._answer(data, {"type": 4, "data": said})

    async def _answer(self, data: Json, body: Json) -> bool:
        id_, token = id_of(data.get("id")), token_of(data.get("token"))
        if not (id_ and token):
            return False
        try:
            answer = await self._rest.ask(
                "POST", "/interactions/{}/{}/callback", id_, token, body=body, by_token=True
            )
        except ConnectorError as error:
            log.warning("discord %s: an interaction was not answered: %s", self._account, error)
            return False
        if not answer.ok:
            # Most likely too late: what is stored is answered all the same, by a message.
            age = time.time() - moment_of(id_).timestamp()
            log.warning(
                "discord %s: Discord did not take an answer after %.1f s (%s)",
                self._account,
                age,
                answer.code,
            )
        return answer.ok


def _name_of(about: Json) -> str:
    """A file's bare name; Discord keeps what is not ASCII of it in the title."""
    name = text_of(about.get("filename")) or "file"
    title = text_of(about.get("title"))
    return file_name((title + PurePosixPath(name).suffix) if title else name)
