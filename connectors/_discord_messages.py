"""Messages and edits from Discord, stored: whom they concern, their files, and what happens when storing fails."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal
from urllib.parse import urlsplit

from connectors._discord_known import Known
from connectors._discord_read import Me, concerns_us, id_of, mentions_us, parse
from connectors._discord_rest import API, Rest, bounded, file_name, same_host
from connectors._json import Json, objects_of, text_of
from connectors._waiting import pause
from parley.errors import ConnectorError, RateLimited, Rejected, StoreUnavailable, Unreachable
from parley.messages import MAX_FILE, Accept, Edit, Event, File, Message

Hear = Literal["mentions", "along", "all"]

GIVES_UP_AFTER = 24 * 3600.0  # seconds that one event is tried to be stored
FAULTS = 5  # failures that are neither the store's nor Discord's; and tries to fetch a file
LONGEST_PAUSE = 15.0
MAX_FILES = 10
MOST_BYTES = (
    4 * MAX_FILE
)  # of one message's files together: more than that the link to the hub does not carry

_CDN = {"cdn.discordapp.com", "media.discordapp.net"}

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Draft:
    """An event on its way in, made once however often it is tried to be stored."""

    event: Event | None = None
    made: bool = False
    failures: int = 0


class Messages:
    """What people write to one account."""

    def __init__(
        self,
        account: str,
        rest: Rest,
        known: Known,
        accept: Accept,
        hear: Hear,
        longest_pause: float = LONGEST_PAUSE,
    ) -> None:
        self._account, self._rest, self._known, self._accept = account, rest, known, accept
        self._hear, self._longest_pause = hear, longest_pause

    async def take(self, name: str, data: Json, me: Me) -> None:
        """Store one MESSAGE_CREATE or MESSAGE_UPDATE, however long it takes; nothing where it does not concern us."""
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
        began, faults, tries = time.monotonic(), 0, 0
        while True:
            wait = 0.0
            try:
                await work()
                return
            except (StoreUnavailable, ConnectorError) as error:
                draft.failures += isinstance(error, ConnectorError)
                wait = error.retry_after if isinstance(error, RateLimited) else 0.0
                reason, over = str(error), time.monotonic() - began > GIVES_UP_AFTER
            except Exception as error:  # noqa: BLE001 - whatever it was, it is not stored
                faults += 1
                reason, over = type(error).__name__, faults >= FAULTS
            if over:
                log.error(
                    "discord %s: an event could not be stored and is left out (%s)", self._account, reason
                )
                return
            tries += 1
            if tries == 1:
                log.warning("discord %s: an event waits to be stored (%s)", self._account, reason)
            await asyncio.sleep(max(wait, pause(tries, longest=self._longest_pause)))

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


def _name_of(about: Json) -> str:
    """A file's bare name; Discord keeps what is not ASCII of it in the title."""
    name = text_of(about.get("filename")) or "file"
    title = text_of(about.get("title"))
    return file_name((title + PurePosixPath(name).suffix) if title else name)
