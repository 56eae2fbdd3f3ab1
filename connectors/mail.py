"""Mail: IMAP in, SMTP out. The sender of a mail is claimed, never proven.

What is taken, and once: a mail that the server received after the account was connected (`since`; where that is not
said: an unread one of the last day), not longer ago than `max_age`, and that does not carry our keyword `$ParleyTaken`
(where the server permits no keywords: that is unread). The keyword is set after `accept`
returned, so a crash in between has the mail delivered again under the same native id: its Message-ID, or, where it has
none, one derived from account, UIDVALIDITY and UID. Two mails with the same Message-ID are one mail that came twice,
by a mailing list and directly, or because the mailbox was restored; the second one does nothing.

Where answers go: to the address in From and to no other. Reply-To is ignored on purpose: the sender is claimed, and
whoever forges a From would choose who reads the answer. To the owner of the forged address it does no harm.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, ClassVar
from uuid import uuid4

from connectors._mail_imap import Inbox
from connectors._mail_parse import Arrival, parse
from connectors._mail_render import Writer, own_id, recipient, render
from connectors._mail_settings import MailSettings
from connectors._mail_smtp import Outgoing
from connectors._waiting import pause
from parley.errors import ConfigurationError, ParleyError, Rejected, Unreachable, Unsupported
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

    from connectors._mail_imap import Mail as Fetched

__all__ = ["CONNECTOR", "Arrival", "Mail", "MailSettings", "parse", "render"]

MOST_WAIT = 60.0
"""Longest pause, in seconds, between two attempts to connect or to store."""

logger = logging.getLogger(__name__)


class Mail(Connector):
    """One mail account."""

    name: ClassVar[str] = "mail"
    assurance: ClassVar[Assurance] = Assurance.CLAIMED
    capabilities: ClassVar[Capabilities] = Capabilities(
        max_text=100_000,
        markup="markdown",
        threads=True,
        private=True,  # a mail has one reader
        max_file=15 * 1024 * 1024,  # as base64 it is a third more, and many servers refuse beyond 25 MB
    )

    def __init__(self, account: str, settings: MailSettings) -> None:
        super().__init__(account)
        for module in ("imapclient", "aiosmtplib", "lxml"):
            if find_spec(module) is None:
                raise ConfigurationError(f'Mail needs {module}: pip install "prefect-parley[mail]"')
        self.settings = settings.checked()
        self._outgoing = Outgoing(self.settings)

    async def listen(self, accept: Accept) -> None:
        """Receive until cancelled; ends by itself only with `AuthError`."""
        failures = 0
        while True:
            try:
                inbox = await Inbox.open(self.settings)
                try:
                    failures = 0
                    await self._follow(inbox, accept)
                finally:
                    await inbox.close()
            except Unreachable as error:
                failures += 1
                logger.warning("mail account %s: %s", self.account, error)
                await asyncio.sleep(pause(failures, longest=MOST_WAIT))

    async def send_message(self, reply: Reply, route: Route, *, token: str = "") -> Receipt:
        """Send one mail to the person of this route, as an answer to their mail."""
        if route.account != self.account:
            raise Rejected("The route belongs to another account.")
        if reply.is_empty():
            raise Rejected("There is nothing to send.")
        if reply.buttons or reply.table:
            raise Unsupported("A mail has no buttons and no table of its own: render them down first.")
        token = token or uuid4().hex
        writer = Writer(self.settings.address, self.settings.display_name)
        mail = _written(reply, route, writer, token)
        # Files of megabytes become base64: not in the loop that all accounts share.
        raw = await asyncio.to_thread(mail) if reply.files else mail()
        await self._outgoing.send(raw, recipient(route, self.settings.address))
        return Receipt(native_ids=(own_id(token, self.settings.address),))

    async def check(self) -> None:
        """Log in to both servers and select the folder."""
        inbox = await Inbox.open(self.settings)
        await inbox.close()
        await self._outgoing.check()

    async def aclose(self) -> None:
        """End the connection to the SMTP server."""
        await self._outgoing.close()

    async def _follow(self, inbox: Inbox, accept: Accept) -> None:
        failures = 0
        while True:
            try:
                await self._take_new(inbox, accept)
            except ParleyError as error:
                if not error.retryable or isinstance(error, Unreachable):
                    raise
                # Not stored, so not flagged: the same mail is the next one again.
                failures += 1
                logger.warning("mail account %s: a mail could not be stored: %s", self.account, error)
                await asyncio.sleep(pause(failures, longest=MOST_WAIT))
                await inbox.call(inbox.probe)
                continue
            failures = 0
            await self._wait(inbox)

    async def _wait(self, inbox: Inbox) -> None:
        if inbox.can_idle:
            await inbox.call(inbox.wait)
        else:
            await asyncio.sleep(self.settings.poll)
            await inbox.call(inbox.probe)

    async def _take_new(self, inbox: Inbox, accept: Accept) -> None:
        while uids := await inbox.call(inbox.pending):
            for uid in uids:
                await self._take(inbox, uid, accept)
                inbox.done_up_to(uid)

    async def _take(self, inbox: Inbox, uid: int, accept: Accept) -> None:
        fetched = await inbox.call(partial(inbox.fetch, uid))
        if fetched is None:
            return
        message = await inbox.call(partial(self._read, inbox, fetched))
        if message is not None:
            await accept(message)
        await inbox.call(partial(inbox.take, uid))

    def _read(self, inbox: Inbox, mail: Fetched) -> Message | None:
        arrival = Arrival(
            account=self.account,
            own_address=self.settings.address,
            uid_validity=inbox.uid_validity,
            uid=mail.uid,
            received=mail.received,
            cut_from=mail.size if mail.is_cut else 0,
        )
        try:
            message = parse(mail.raw, arrival)
        except Exception:  # one mail that nobody foresaw must not hold up all that follow
            logger.exception(
                "mail account %s: the mail with UID %d could not be read", self.account, mail.uid
            )
            return None
        if message is None:
            logger.warning(
                "mail account %s: the mail with UID %d names no single sender", self.account, mail.uid
            )
        return message


def _written(reply: Reply, route: Route, writer: Writer, token: str) -> Callable[[], bytes]:
    return lambda: render(reply, route, writer, token=token).as_bytes()


CONNECTOR = Mail
