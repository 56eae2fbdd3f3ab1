"""Exchange: one mailbox over Exchange Web Services, on premises and in the cloud.

What is taken, and once: a mail that came into the folder after the account was connected (`since`; where that is not
said: an unread one of the last day), not longer ago than `max_age`, and that does not carry our mark, a named property
that people do not see. The mark is set after `accept` returned, so a crash in between has the mail read again under
the same native id: its Message-ID. The mark is the whole read position and lives in the mailbox: a listener on another
machine, a restored store or a moved mail lose nothing. A sync state (SyncFolderItems) would have to be kept by us, and
a lost one would begin the folder anew. Streaming notifications only say when to look; whatever they miss, the next
look finds, at the latest when the stream's time is over.

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
from connectors._exchange_parse import Mail, in_thread, parse, render
from connectors._exchange_settings import ExchangeSettings
from connectors._mail_render import Writer, own_id, recipient
from connectors._waiting import pause
from parley.errors import ConfigurationError, ParleyError, RateLimited, Rejected, Unreachable, Unsupported
from parley.messages import (
    Accept,
    Assurance,
    Capabilities,
    Connector,
    Message,
    Receipt,
    Reply,
    Route,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from connectors._exchange_mailbox import Fetched, Found, Mailbox

__all__ = ["CONNECTOR", "Exchange", "ExchangeSettings", "Mail", "parse", "render"]

MOST_WAIT = 60.0
"""Longest pause, in seconds, between two attempts to connect or to store."""
MOST_SENDING = 2
"""Mails that are handed over at once; with the stream and the reader this is far below what Exchange allows."""
MOST_MAIL = 40_000_000
"""Bytes of a mail that is handed over: larger than any Exchange takes by default."""
LOOK_AGAIN = 2.0
"""Seconds between two looks for a mail whose answer was lost."""
PARTING = 2.0
"""Seconds that giving back a subscription may take."""

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
                    await asyncio.sleep(_pause(failures, error))
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
                await self._take_new(mailbox, accept)
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

    async def _take_new(self, mailbox: Mailbox, accept: Accept) -> None:
        failures = 0
        while found := await self._read(mailbox.pending):
            try:
                for each in found:
                    await self._take(mailbox, each, accept)
            except ParleyError as error:
                if not error.retryable or isinstance(error, Unreachable | RateLimited):
                    raise
                # Not stored, so not marked: the same mail is the next one again.
                failures += 1
                logger.warning("exchange account %s: a mail could not be stored: %s", self.account, error)
                await asyncio.sleep(_pause(failures, error))

    async def _take(self, mailbox: Mailbox, found: Found, accept: Accept) -> None:
        fetched = await self._read(partial(mailbox.fetch, found))
        if fetched is None:
            return
        message = await self._threads.call(partial(self._parsed, fetched))
        if message is not None:
            await accept(message)
        await self._read(partial(mailbox.take, found))

    def _parsed(self, fetched: Fetched) -> Message | None:
        mail = Mail(
            account=self.account,
            own_address=self.settings.address,
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
            message = parse(mail, trust_internal=self.settings.trust_internal)
        except Exception:  # one mail that nobody foresaw must not hold up all that follow
            logger.exception("exchange account %s: a mail could not be read: %s", self.account, fetched.id)
            return None
        if message is None:
            logger.warning("exchange account %s: a mail names no single sender: %s", self.account, fetched.id)
        return message

    async def _part(self) -> None:
        """Give the subscription back, if that is quick: else Exchange drops it by itself, later."""
        mailbox, subscription, self._subscription = self._mailbox, self._subscription, ""
        if mailbox is not None and subscription:
            with suppress(ParleyError, TimeoutError):
                async with asyncio.timeout(PARTING):
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
                self._mailbox = await self._threads.call(partial(_made, self.settings, endpoint))
            return self._mailbox

    async def _read(self, work: Callable[[], _T]) -> _T:
        return await self._threads.call(partial(_reading, work))


def _made(settings: ExchangeSettings, endpoint: str) -> Mailbox:
    from connectors._exchange_mailbox import Mailbox

    return Mailbox(settings, endpoint)


def _reading(work: Callable[[], _T]) -> _T:
    from connectors._exchange_errors import reading

    return reading(work)


def _pause(failures: int, error: ParleyError) -> float:
    asked = error.retry_after if isinstance(error, RateLimited) else 0.0
    return max(asked, pause(failures, longest=MOST_WAIT))


CONNECTOR = Exchange
