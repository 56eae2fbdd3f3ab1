"""Catch-up: page by page from the last sync state, each page accepted as a whole before the state moves on."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from connectors._exchange_parse import Mail, parse
from connectors._memory import Memory
from connectors._waiting import pause
from parley.errors import ParleyError, RateLimited, Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from connectors._exchange_arrivals import Fetched, Found
    from connectors._exchange_calls import Threads
    from connectors._exchange_mailbox import Mailbox
    from connectors._exchange_settings import ExchangeSettings
    from parley.messages import Accept, Message

MOST_WAIT = 60.0
"""Longest pause, in seconds, between two attempts to connect or to store."""
MOST_AT_ONCE = 20
"""Mails that are fetched by one request, and marked by one: what is read again after a crash between the two."""
MOST_BYTES = 8_000_000
"""Bytes of the mails that are fetched by one request; a larger mail is fetched alone."""

logger = logging.getLogger(__name__)
_T = TypeVar("_T")


def waiting(failures: int, error: ParleyError) -> float:
    """Seconds until the next attempt: what Exchange asks for, and longer after each failure."""
    asked = error.retry_after if isinstance(error, RateLimited) else 0.0
    return max(asked, pause(failures, longest=MOST_WAIT))


def reading(work: Callable[[], _T]) -> _T:
    """Do blocking work that may be done again. Imports what it needs in the thread that does it."""
    from connectors._exchange_errors import reading as translated

    return translated(work)


class CatchUp:
    """What one account has taken, and what of it is not marked yet."""

    def __init__(self, account: str, settings: ExchangeSettings, threads: Threads) -> None:
        self._account, self._settings, self._threads = account, settings, threads
        self._accepted: Memory[str, None] = Memory()
        """For as long as this runs: what was accepted is not handed over again, whatever becomes of its mark."""
        self._unmarked: list[Found] = []

    async def run(self, mailbox: Mailbox, accept: Accept) -> None:
        """Take all that is new. Raises what went wrong with Exchange; what could not be stored is tried again."""
        failures = 0
        await self.mark(mailbox)
        while True:
            page = await self._read(mailbox.changes)
            try:
                for batch in _batches([each for each in page.found if each.id not in self._accepted]):
                    await self._take(mailbox, batch, accept)
            except ParleyError as error:
                if not error.retryable or isinstance(error, Unreachable | RateLimited):
                    raise
                # Not stored, so the state does not move on: the same page is the next one again.
                failures += 1
                logger.warning("exchange account %s: a mail could not be stored: %s", self._account, error)
                await self.mark(mailbox)
                await asyncio.sleep(waiting(failures, error))
                continue
            await self._read(partial(mailbox.advance, page))
            if page.last:
                return

    async def mark(self, mailbox: Mailbox) -> None:
        """Mark what was accepted and is not marked yet."""
        if self._unmarked:
            await self._read(partial(mailbox.mark, tuple(self._unmarked)))
            self._unmarked.clear()

    async def _take(self, mailbox: Mailbox, batch: Sequence[Found], accept: Accept) -> None:
        for found, message in await self._threads.call(partial(self._messages, mailbox, batch)):
            if message is not None:
                await accept(message)
            self._accepted[found.id] = None
            self._unmarked.append(found)
        await self.mark(mailbox)

    def _messages(self, mailbox: Mailbox, batch: Sequence[Found]) -> list[tuple[Found, Message | None]]:
        """In a thread: what is there of these mails, as messages; None for one that nobody can be said to have sent."""
        read = reading(partial(mailbox.fetch, batch))
        return [(found, self._message(fetched)) for found, fetched in read if fetched is not None]

    def _message(self, fetched: Fetched) -> Message | None:
        mail = Mail(
            account=self._account,
            own_address=self._settings.address,
            item_id=fetched.id,
            raw=fetched.raw,
            received=fetched.received,
            size=fetched.size,
            item_class=fetched.item_class,
            headers=fetched.headers,
            author=fetched.author,
            sender=fetched.sender,
        )
        try:
            message = parse(mail, trust_internal=self._settings.trust_internal)
        except Exception:  # one mail that nobody foresaw must not hold up all that follow
            logger.exception("exchange account %s: a mail could not be read: %s", self._account, fetched.id)
            return None
        if message is None:
            logger.warning(
                "exchange account %s: a mail names no single sender: %s", self._account, fetched.id
            )
        return message

    async def _read(self, work: Callable[[], _T]) -> _T:
        return await self._threads.call(partial(reading, work))


def _batches(found: Sequence[Found]) -> Iterator[list[Found]]:
    """In order; at most `MOST_AT_ONCE` mails and, unless it is one alone, `MOST_BYTES`."""
    batch: list[Found] = []
    size = 0
    for each in found:
        if batch and (len(batch) == MOST_AT_ONCE or size + each.size > MOST_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(each)
        size += each.size
    if batch:
        yield batch
