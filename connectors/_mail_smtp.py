"""Sending over SMTP: one connection, used again, and each failure named for what it means to the outbox."""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

from parley.errors import AuthError, RateLimited, Rejected, Unknown, Unreachable

if TYPE_CHECKING:
    from aiosmtplib import SMTP

    from connectors._mail_settings import MailSettings

REUSED_FOR = 30.0
"""Seconds without use after which a connection is made anew: servers close idle ones without a word."""

DEFAULT_WAIT = 60.0
"""Seconds to wait when a server says "later" and not when: grey lists open after minutes."""

LONGEST_WAIT = 3600.0

_WAIT = re.compile(r"(\d{1,5}(?:\.\d{1,3})?)\s{0,3}(s|m)(?:ec|in|\b)", re.IGNORECASE)
_LOGIN_CODES = (530, 534, 535, 538)


class Outgoing:
    """One account's way out. Not shared between event loops."""

    def __init__(self, settings: MailSettings) -> None:
        self.settings = settings
        self._smtp: SMTP | None = None
        self._used = 0.0
        self._lock = asyncio.Lock()

    async def send(self, mail: bytes, to: str) -> None:
        """Hand one mail to the server, for one recipient.

        Raises `AuthError`, `RateLimited`, `Unreachable` or `Rejected` when the server does not have it, and `Unknown`
        when it may have it.
        """
        async with self._lock:
            try:
                smtp, fresh = await self._connected()
                await self._begin(smtp, to, fresh=fresh)
                _heed_cancelling()
                await self._data(mail)
                self._used = time.monotonic()
            except BaseException:
                # A failed or cancelled transaction leaves the server in the middle of one.
                self._drop()
                raise

    async def check(self) -> None:
        """Log in. Raises `AuthError` or `Unreachable`."""
        async with self._lock:
            self._drop()
            await self._connected()
            self._drop()

    async def close(self) -> None:
        """End the connection, politely if that is quick."""
        smtp, self._smtp = self._smtp, None
        if smtp is not None:
            with suppress(Exception):
                await smtp.quit(timeout=2)
            smtp.close()

    async def _connected(self) -> tuple[SMTP, bool]:
        if self._smtp is not None and self._smtp.is_connected and time.monotonic() - self._used < REUSED_FOR:
            return self._smtp, False
        self._drop()
        self._smtp = await _connect(self.settings)
        return self._smtp, True

    async def _begin(self, smtp: SMTP, to: str, *, fresh: bool) -> None:
        from aiosmtplib.errors import SMTPServerDisconnected

        try:
            await self._envelope(smtp, to)
        except SMTPServerDisconnected as error:
            if fresh:
                raise Unreachable("The SMTP server closed the connection.") from error
            # It was closed while nobody used it; nothing of this mail had left.
            self._drop()
            smtp, _ = await self._connected()
            await self._begin(smtp, to, fresh=True)

    async def _envelope(self, smtp: SMTP, to: str) -> None:
        from aiosmtplib.errors import SMTPException, SMTPResponseException, SMTPServerDisconnected

        utf8 = not to.isascii()
        encoding = "utf-8" if utf8 else "ascii"
        sender = self.settings.address if self.settings.envelope_sender == "address" else ""
        try:
            if utf8 and not smtp.supports_extension("smtputf8"):
                raise Rejected("The SMTP server takes no addresses beyond ASCII.")
            await smtp.mail(sender, options=["SMTPUTF8"] if utf8 else [], encoding=encoding)
            await smtp.rcpt(to, encoding=encoding)
        except SMTPResponseException as error:
            _refused(error.code, error.message)
        except SMTPServerDisconnected:
            raise
        except (SMTPException, OSError) as error:
            raise Unreachable(f"SMTP: {type(error).__name__} before the mail was sent.") from error
        except ValueError as error:
            raise Rejected("The mail address cannot be written in SMTP.") from error

    async def _data(self, raw: bytes) -> None:
        from aiosmtplib.errors import SMTPException, SMTPResponseException

        smtp = self._smtp
        if smtp is None:
            raise Unreachable("The SMTP connection is closed.")
        try:
            await smtp.data(raw)
        except SMTPResponseException as error:
            _refused(error.code, error.message)
        except (SMTPException, OSError) as error:
            # The whole mail may be there: only the server's answer is missing.
            raise Unknown("The SMTP server did not say whether it took the mail.") from error

    def _drop(self) -> None:
        if self._smtp is not None:
            self._smtp.close()
            self._smtp = None


def _heed_cancelling() -> None:
    # Python 3.11's wait_for, which aiosmtplib reads with, forgets a cancellation that comes with the server's answer.
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def _connect(settings: MailSettings) -> SMTP:
    from aiosmtplib import SMTP
    from aiosmtplib.errors import SMTPAuthenticationError, SMTPException

    smtp = SMTP(
        hostname=settings.smtp_host,
        port=settings.smtp_port,
        use_tls=settings.smtp_security == "tls",
        start_tls=settings.smtp_security == "starttls",
        tls_context=None if settings.smtp_security == "none" else settings.tls(),
        timeout=settings.timeout,
        # Else the name of this machine would be told to the server.
        local_hostname=_ehlo_name(settings.address),
    )
    try:
        await smtp.connect()
        await _login(smtp, settings)
    except SMTPAuthenticationError as error:
        smtp.close()
        if error.code < 500:
            raise Unreachable("The SMTP server cannot check the login now.") from None
        raise AuthError(
            "The SMTP server refused the login: check username and password or access token."
        ) from None
    except (SMTPException, OSError) as error:
        smtp.close()
        raise Unreachable(f"SMTP: {type(error).__name__}: {str(error)[:200]}") from error
    except BaseException:
        smtp.close()
        raise
    return smtp


async def _login(smtp: SMTP, settings: MailSettings) -> None:
    token, password = settings.access_token.get_secret_value(), settings.password.get_secret_value()
    if smtp.is_ehlo_or_helo_needed:
        await smtp.ehlo()
    if token:
        await smtp.auth_xoauth2(settings.username, token)
    elif "plain" in smtp.supported_auth_methods:
        # `login` would try one method after another: a wrong password counted twice may lock the account.
        await smtp.auth_plain(settings.username, password)
    else:
        await smtp.login(settings.username, password)


def _ehlo_name(address: str) -> str:
    domain = address.rpartition("@")[2]
    return domain if domain.isascii() else domain.encode("idna").decode("ascii")


def _refused(code: int, said: str) -> NoReturn:
    """What a refusal before or after the mail's content means: in each case the server does not have the mail."""
    said = " ".join(said.split())[:200]
    if code in _LOGIN_CODES:
        raise AuthError(f"The SMTP server refuses this account: {code} {said}")
    if code == 421:
        raise Unreachable(f"The SMTP server is closing: {said}")
    if code < 500:
        raise RateLimited(f"The SMTP server says later: {code} {said}", retry_after=_wait(said))
    raise Rejected(f"The SMTP server refused the mail: {code} {said}")


def _wait(said: str) -> float:
    found = _WAIT.search(said)
    if not found:
        return DEFAULT_WAIT
    return min(LONGEST_WAIT, float(found[1]) * (60 if found[2].lower() == "m" else 1))
