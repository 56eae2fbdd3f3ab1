"""Exchange: one mailbox over Exchange Web Services, on premises and in the cloud.

What is taken: a mail that came into the folder after the account was connected (`since`; where that is not said: an
unread one of the last day), not longer ago than `max_age`. Streaming notifications only say that there is something;
SyncFolderItems says what, page by page since the last sync state. The state moves on when every mail of its page is in
the inbox of the store, so a crash in between has the page read again, under the same native ids (the Message-ID), and
loses nothing. It is kept in the mailbox itself (`_exchange_place`), so that another machine goes on where this one was.
Whatever a notification misses, the next look finds, at the latest when the stream's time is over.

Besides the state each mail that was taken carries a mark, a named property that people do not see, with this account's
name in it (as a digest). The state alone would tell of old mail as new where it is lost or refused (then the folder is
looked through anew, as far back as `since`), where a mail is moved out of the folder and back, and after a crash
between a batch and the end of its page. Marks cost one request for twenty mails. A mail that cannot be marked is told
of in the log; where we have not the right to mark any, the account is refused: it should have full access.

Answers are sent as MIME in one CreateItem, so that a mail with its files is there as a whole or not at all, with the
headers that keep machines from answering it, and in the conversation of the mail it answers. They go to the address in
From and to no other. A token in a property of the copy in Sent Items tells, after a lost answer, whether it was sent.

The sender is claimed, unless `trust_internal` is set and Exchange says that a person of the organisation logged in to
send it: the header `X-MS-Exchange-Organization-AuthAs: Internal`, which Exchange takes off mail from outside.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, ClassVar, TypeVar
from uuid import uuid4

from connectors._exchange_calls import Threads
from connectors._exchange_catch_up import CatchUp, reading, waiting
from connectors._exchange_parse import Mail, in_thread, parse, render
from connectors._exchange_settings import ExchangeSettings
from connectors._mail_render import Writer, own_id, recipient
from parley.errors import ConfigurationError, ParleyError, RateLimited, Rejected, Unreachable, Unsupported
from parley.messages import (
    Accept,
    Assurance,
    Capabilities,
    Connector,
    Receipt,
    Reply,
    Route,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from connectors._exchange_mailbox import Mailbox

__all__ = ["CONNECTOR", "Exchange", "ExchangeSettings", "Mail", "parse", "render"]

MOST_SENDING = 2
"""Mails that are handed over at once; with the stream and the reader this is far below what Exchange allows."""
MOST_MAIL = 40_000_000
"""Bytes of a mail that is handed over: larger than any Exchange takes by default."""
LOOK_AGAIN = 2.0
"""Seconds between two looks for a mail whose answer was lost."""
PARTING = 2.0
"""Seconds that marking and giving back a subscription may take in the end."""

logger = logging.getLogger(__name__)
_T = TypeVar("_T")


class Exchange(Connector):
    """One Exchange mailbox."""

    name: ClassVar[str] = "exchange"
    assurance: ClassVar[Assurance] = Assurance.CLAIMED
    capabilities: ClassVar[Capabilities] = Capabilities(
        max_text=100_000,
        markup="markdown",
        threads=True,
        private=True,  # a mail has one reader
        max_file=15 * 1024 * 1024,  # as base64 it is a third more, and many organisations refuse beyond 25 MB
    )

    def __init__(self, account: str, settings: ExchangeSettings) -> None:
        super().__init__(account)
        for module in ("exchangelib", "lxml"):
            if find_spec(module) is None:
                raise ConfigurationError(f'Exchange needs {module}: pip install "prefect-parley[exchange]"')
        self.settings = settings.checked()
        self._threads = Threads(MOST_SENDING + 2, "parley-exchange")
        self._sending = asyncio.Semaphore(MOST_SENDING)
        self._opening = asyncio.Lock()
        self._mailbox: Mailbox | None = None
        self._subscription = ""
        self._catch_up = CatchUp(account, self.settings, self._threads)

    async def listen(self, accept: Accept) -> None:
        """Receive until cancelled; ends by itself only with `AuthError`."""
        failures = 0

        def works() -> None:
            nonlocal failures
            failures = 0

        try:
            while True:
                try:
                    await self._follow(accept, works)
                except (Unreachable, RateLimited) as error:
                    failures += 1
                    logger.warning("exchange account %s: %s", self.account, error)
                    await asyncio.sleep(waiting(failures, error))
        finally:
            await self._part()

    async def send_message(self, reply: Reply, route: Route, *, token: str = "") -> Receipt:
        """Send one mail to the person of this route, as an answer to their mail."""
        if route.account != self.account:
            raise Rejected("The route belongs to another account.")
        if reply.is_empty():
            raise Rejected("There is nothing to send.")
        if reply.buttons or reply.table:
            raise Unsupported("A mail has no buttons and no table of its own: render them down first.")
        recipient(route, self.settings.address)
        token = token or uuid4().hex
        async with self._sending:
            mailbox = await self._opened()
            route = in_thread(route, await self._subject(mailbox, route))
            await self._threads.call(partial(self._hand_over, mailbox, reply, route, token))
        return Receipt(native_ids=(own_id(token, self.settings.address),))

    async def find_sent(self, token: str, route: Route) -> Receipt | None:
        """Look for the delivery's token among the mails that were sent; a late one is waited for."""
        sent = own_id(token, self.settings.address)
        until = time.monotonic() + self.settings.settle
        while True:
            mailbox = await self._opened()
            if await self._read(partial(mailbox.sent, token, sent)):
                return Receipt(native_ids=(sent,))
            if time.monotonic() >= until:
                return None
            await asyncio.sleep(min(LOOK_AGAIN, self.settings.settle))

    async def check(self) -> None:
        """Log in and open the folder."""
        mailbox = await self._opened()
        await self._read(mailbox.probe)

    async def aclose(self) -> None:
        """End all calls, their connections and their threads."""
        await self._threads.aclose()
        mailbox, self._mailbox = self._mailbox, None
        if mailbox is not None:
            mailbox.close()

    # --- receiving

    async def _follow(self, accept: Accept, works: Callable[[], None]) -> None:
        """Take what there is and what comes. Raises what went wrong, with neither task nor thread left at work."""
        mailbox = await self._opened()
        await self._read(mailbox.probe)
        news = asyncio.Event()
        streaming = asyncio.create_task(self._stream(mailbox, news))
        try:
            while True:
                waiting = asyncio.create_task(news.wait())
                try:
                    await asyncio.wait({waiting, streaming}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    waiting.cancel()
                if streaming.done():
                    streaming.result()
                news.clear()
                await self._catch_up.run(mailbox, accept)
                works()
        finally:
            streaming.cancel()
            await asyncio.wait({streaming})
            if not streaming.cancelled():
                streaming.exception()  # told already, or of no interest beside what ended this

    async def _stream(self, mailbox: Mailbox, news: asyncio.Event) -> None:
        """Set `news` whenever there may be some: at the beginning, at each event, and when a stream is over."""
        from connectors._exchange_errors import NoSubscription, TooManySubscriptions

        loop = asyncio.get_running_loop()

        def told() -> None:
            loop.call_soon_threadsafe(news.set)

        while True:
            try:
                if not self._subscription:
                    self._subscription = await self._read(mailbox.subscribe)
                news.set()  # what came before the subscription; what comes after it, it keeps
                await self._read(partial(mailbox.stream, self._subscription, told))
            except NoSubscription:
                self._subscription = ""
                raise
            except TooManySubscriptions as error:
                logger.warning("exchange account %s: %s It is looked at now and then.", self.account, error)
                news.set()
                await asyncio.sleep(self.settings.poll)

    async def _part(self) -> None:
        """Mark what is not marked yet and give the subscription back, if that is quick: else both come right later."""
        mailbox, subscription, self._subscription = self._mailbox, self._subscription, ""
        if mailbox is None:
            return
        with suppress(ParleyError, TimeoutError):
            async with asyncio.timeout(PARTING):
                await self._catch_up.mark(mailbox)
                if subscription:
                    await self._read(partial(mailbox.unsubscribe, subscription))

    # --- sending

    async def _subject(self, mailbox: Mailbox, route: Route) -> str:
        """The subject of the mail of ours that begins the thread, where the route knows none."""
        if route.reply_to or route.context.get("subject") or not (route.thread or "").startswith("<"):
            return ""
        return await self._read(partial(mailbox.subject, str(route.thread)))

    def _hand_over(self, mailbox: Mailbox, reply: Reply, route: Route, token: str) -> None:
        from connectors._exchange_errors import reading, sending

        writer = Writer(self.settings.address, self.settings.display_name)
        raw = render(reply, route, writer, token=token).as_bytes()
        if len(raw) > MOST_MAIL:
            raise Rejected("The files are more than one mail can carry.")
        reading(mailbox.prepare)
        sending(partial(mailbox.send, raw, token))

    # --- both

    async def _opened(self) -> Mailbox:
        """The mailbox, connected to nothing yet. Raises `Unreachable` when Autodiscover does not tell where it is."""
        async with self._opening:
            if self._mailbox is None:
                endpoint = self.settings.ews_url()
                if self.settings.autodiscover:
                    from connectors._exchange_discover import discovered

                    endpoint = await discovered(self.settings)
                self._mailbox = await self._threads.call(
                    partial(_made, self.account, self.settings, endpoint)
                )
            return self._mailbox

    async def _read(self, work: Callable[[], _T]) -> _T:
        return await self._threads.call(partial(reading, work))


def _made(account: str, settings: ExchangeSettings, endpoint: str) -> Mailbox:
    from connectors._exchange_mailbox import Mailbox

    return Mailbox(account, settings, endpoint)


CONNECTOR = Exchange
