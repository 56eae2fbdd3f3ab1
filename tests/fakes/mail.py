"""Mail on this machine: a real Dovecot, and an SMTP server that checks logins and puts what it takes into Dovecot.

As a program, for processes that are tested from outside: `python -m tests.fakes.mail --imap-port 0 --smtp-port 0`
prints one line of JSON with addresses and credentials when both answer, and runs until SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import os
import pwd
import shutil
import signal
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import SMTP as SMTP_POLICY
from email.policy import default
from email.utils import format_datetime
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, cast

import pytest
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session

from connectors.mail import Mail, MailSettings
from parley.messages import File
from tests.fakes._driver import PATIENCE, Failure, Sent, eventually
from tests.ports import free_port

DOMAIN = "example.org"
ASSISTANT = f"assistant@{DOMAIN}"
PASSWORD = "correct-horse-battery-staple"
WRONG_PASSWORD = "Tr0ub4dor&3-is-wrong"
TOKEN = "ya29.fake-access-token-0123456789"
TAKEN = "$ParleyTaken"
NOBODY = 65534


def dovecot() -> str | None:
    """Dovecot's program, which Debian keeps out of a user's PATH."""
    return shutil.which("dovecot", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


def need_dovecot() -> None:
    """Skip where it is not installed, visibly; in CI that is a failure."""
    if dovecot() is None:
        message = "Dovecot is not installed: `make test-servers` brings it"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)


@dataclass
class Dovecot:
    """A Dovecot of our own: any user, one password, everything in one folder that is removed."""

    imap_port: int = 0
    capabilities: str = ""
    rights: str = ""
    certificate: tuple[bytes, bytes] | None = None
    introspection: str = ""
    imaps_port: int = 0
    base: Path = Path()
    process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        need_dovecot()
        # Not pytest's folder: Dovecot's sockets need a short path, and its mail user must be able to pass.
        self.base = Path(tempfile.mkdtemp(prefix="dovecot-", dir="/tmp"))
        self.imap_port = self.imap_port or free_port()
        self.imaps_port = self.imaps_port or free_port()
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
        shutil.rmtree(self.base, ignore_errors=True)

    async def start(self) -> None:
        """Start it and wait until it answers."""
        self._write()
        program = dovecot()
        assert program
        with (self.base / "log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                program, "-F", "-c", str(self.base / "conf"), stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + PATIENCE
        while not await self._answers():
            if self.process.returncode is not None or time.monotonic() > deadline:
                raise AssertionError(
                    "Dovecot does not start:\n" + (self.base / "log").read_text(errors="replace")
                )
            await asyncio.sleep(0.02)

    async def stop(self) -> None:
        """Stop it, with its connections: asked politely, it takes a second."""
        if self.process is not None and self.process.returncode is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            await self.process.wait()
        self.process = None

    async def kick(self) -> None:
        """Close every connection from the server's side."""
        program = Path(str(dovecot())).parent.parent / "bin" / "doveadm"
        kick = await asyncio.create_subprocess_exec(
            str(program),
            *("-c", str(self.base / "conf"), "kick", "*"),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        await kick.wait()

    async def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.imap_port)
            with contextlib.closing(writer):
                return b"OK" in await reader.readline()
        return False

    def _write(self) -> None:
        root = os.geteuid() == 0
        uid = NOBODY if root else os.geteuid()
        homes = self.base / "homes"
        homes.mkdir(exist_ok=True)
        if root:
            self.base.chmod(0o711)
            os.chown(homes, NOBODY, NOBODY)
        lines = [
            *(
                "protocols = imap",
                "listen = 127.0.0.1",
                "disable_plaintext_auth = no",
                "auth_mechanisms = plain login xoauth2",
            ),
            *(f"base_dir = {self.base}/run", f"state_dir = {self.base}/state", f"log_path = {self.base}/log"),
            *(
                "auth_failure_delay = 0",
                f"first_valid_uid = {min(uid, 1)}",
                "mail_max_userip_connections = 100",
            ),
            f"mail_location = maildir:{homes}/%u",
            f"passdb {{\n driver = static\n args = password={PASSWORD}\n}}",
            f"userdb {{\n driver = static\n args = uid={uid} gid={uid if root else os.getegid()} home={homes}/%u\n}}",
            "service anvil {\n unix_listener anvil-auth-penalty {\n  mode = 0\n }\n chroot =\n}",
            "service stats {\n chroot =\n}",
            self._listeners(),
            *self._tls(),
            *([] if root else self._rootless()),
            *([f"imap_capability = {self.capabilities}"] if self.capabilities else []),
            *self._acl(),
            *self._oauth(),
        ]
        (self.base / "conf").write_text("\n".join(lines) + "\n")

    def _listeners(self) -> str:
        imaps = f"port = {self.imaps_port}\n  ssl = yes" if self.certificate else "port = 0"
        return (
            "service imap-login {\n chroot =\n"
            f" inet_listener imap {{\n  port = {self.imap_port}\n }}\n inet_listener imaps {{\n  {imaps}\n }}\n}}"
        )

    def _tls(self) -> list[str]:
        if self.certificate is None:
            return ["ssl = no"]
        (self.base / "cert.pem").write_bytes(self.certificate[0])
        (self.base / "key.pem").write_bytes(self.certificate[1])
        return ["ssl = yes", f"ssl_cert = <{self.base}/cert.pem", f"ssl_key = <{self.base}/key.pem"]

    def _rootless(self) -> list[str]:
        me = pwd.getpwuid(os.geteuid()).pw_name
        return [f"default_login_user = {me}", f"default_internal_user = {me}", "default_internal_group ="]

    def _acl(self) -> list[str]:
        if not self.rights:
            return []
        (self.base / "acls").write_text(f"* owner {self.rights}\n")
        return ["mail_plugins = acl", f"plugin {{\n acl = vfile:{self.base}/acls\n}}"]

    def _oauth(self) -> list[str]:
        if not self.introspection:
            return []
        asked = [
            f"introspection_url = {self.introspection}",
            "introspection_mode = post",
            "username_attribute = username",
        ]
        (self.base / "oauth").write_text(
            "\n".join([*asked, "active_attribute = active", "active_value = true"]) + "\n"
        )
        return [f"passdb {{\n driver = oauth2\n mechanisms = xoauth2\n args = {self.base}/oauth\n}}"]

    @contextlib.contextmanager
    def as_user(self, user: str) -> Iterator[Any]:
        """An IMAP connection of this person, INBOX selected. Blocks."""
        from imapclient import IMAPClient

        with IMAPClient("127.0.0.1", self.imap_port, ssl=False, timeout=PATIENCE) as client:
            client.login(user, PASSWORD)
            client.select_folder("INBOX")
            yield client

    def append(self, user: str, raw: bytes, received: datetime | None = None) -> int:
        """Put a mail into this person's inbox; returns its UID. Blocks."""
        with self.as_user(user) as client:
            client.append("INBOX", raw, (), received)
            return int(max(client.search("ALL")))

    def flags(self, user: str, message_id: str = "") -> list[tuple[bytes, ...]]:
        """Flags of the mails with this Message-ID, or of all. Blocks."""
        with self.as_user(user) as client:
            found = client.search(["HEADER", "Message-ID", message_id] if message_id else "ALL")
            return [tuple(data[b"FLAGS"]) for _, data in sorted(client.fetch(found, ["FLAGS"]).items())]


@dataclass
class Arrived:
    """A mail that the SMTP server took."""

    raw: bytes
    sender: str
    recipients: tuple[str, ...]

    @property
    def mail(self) -> EmailMessage:
        parsed = BytesParser(policy=default).parsebytes(self.raw)
        assert isinstance(parsed, EmailMessage)
        return parsed


@dataclass
class Post:
    """The SMTP server: login needed, takes mail for anybody, delivers into Dovecot, fails as asked."""

    dovecot: Dovecot
    smtp_port: int = 0
    tls: Any = None
    hang: float = 60.0
    hanging: bool = False
    arrived: list[Arrived] = field(default_factory=list)
    logins: int = 0
    greetings: list[str] = field(default_factory=list)
    _fault: tuple[Failure | Literal["hang", "later", "login"], float | str] | None = None
    _server: asyncio.Server | None = None
    _transports: set[Any] = field(default_factory=set)

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._protocol, "127.0.0.1", self.smtp_port)
        self.smtp_port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server
        self._server.close()
        self.cut()

    def fail_next(
        self, how: Failure | Literal["hang", "later", "login"], retry_after: float | str = 1
    ) -> None:
        """Let the next mail fail, once. `hang`: no answer after the content; `later`: 4xx after the content."""
        self._fault = (how, retry_after)

    def cut(self) -> None:
        """Reset every connection."""
        for transport in list(self._transports):
            transport.abort()

    # What follows is called by aiosmtpd, which finds it by its name.

    async def handle_EHLO(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        session.host_name = hostname
        self.greetings.append(hostname)
        return responses

    async def handle_MAIL(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        match self._taken_fault("unreachable", "auth"):
            case "unreachable", _:
                return "421 4.3.2 system is shutting down"
            case "auth", _:
                return "530 5.7.0 Authentication required"
        return "250 OK"

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        match self._taken_fault("rate_limited", "rejected"):
            case "rate_limited", wait:
                return f"450 4.7.1 Greylisted, try again in {wait} seconds"
            case "rejected", _:
                return "550 5.1.1 No such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        match self._taken_fault("unknown", "hang", "later"):
            case "unknown", _:
                cast("asyncio.WriteTransport", server.transport).abort()
                return "451 nobody hears this"
            case "hang", _:
                self.hanging = True
                await asyncio.sleep(self.hang)
            case "later", _:
                return "452 4.3.1 Insufficient system storage, try again in 3 minutes"
        raw = envelope.content
        assert isinstance(raw, bytes)
        sender = (envelope.mail_from or "").strip("<>")
        self.arrived.append(Arrived(raw, sender, tuple(envelope.rcpt_tos)))
        now = format_datetime(datetime.now(UTC))
        trace = f"Return-Path: <{sender}>\r\nReceived: by mx.{DOMAIN}; {now}\r\n"
        for address in envelope.rcpt_tos:
            if address.endswith(f"@{DOMAIN}"):
                await asyncio.to_thread(self.dovecot.append, address, trace.encode() + raw)
        return "250 OK"

    async def auth_XOAUTH2(self, server: SMTP, args: list[str]) -> AuthResult:  # noqa: N802
        said = base64.b64decode(args[1]).decode()
        good = said == f"user={ASSISTANT}\x01auth=Bearer {TOKEN}\x01\x01"
        return AuthResult(success=good, handled=False)

    def _protocol(self) -> SMTP:
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", "Requiring AUTH while not requiring TLS"
            )  # loopback, invented secrets
            return _Protocol(
                self,
                self._transports,
                hostname=f"mx.{DOMAIN}",
                enable_SMTPUTF8=True,
                auth_required=True,
                auth_require_tls=False,
                authenticator=self._authenticate,
                tls_context=self.tls,
                data_size_limit=40_000_000,
            )

    def _authenticate(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any
    ) -> AuthResult:
        self.logins += 1
        if self._taken_fault("login"):
            return AuthResult(
                success=False, handled=False, message="454 4.7.0 Temporary authentication failure"
            )
        return AuthResult(success=data.password == PASSWORD.encode(), handled=False)

    def _taken_fault(self, *kinds: str) -> tuple[str, float | str] | None:
        if self._fault is None or self._fault[0] not in kinds:
            return None
        fault, self._fault = self._fault, None
        return fault


class _Protocol(SMTP):
    """One connection, known so that it can be cut."""

    def __init__(self, handler: Post, transports: set[Any], **settings: Any) -> None:
        super().__init__(handler, **settings)
        self._known = transports

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._known.add(transport)
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._known.discard(self.transport)
        super().connection_lost(error)


class MailDriver:
    """The contract suite's way to write to the assistant's mailbox and to read what it sends."""

    name: ClassVar[str] = "mail"
    cannot_fail: ClassVar[Mapping[Failure, str]] = {}

    def __init__(self) -> None:
        self.dovecot = Dovecot()
        self.post = Post(self.dovecot)
        self._mails: dict[str, bytes] = {}

    async def __aenter__(self) -> Self:
        await self.dovecot.__aenter__()
        await self.post.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.post.__aexit__()
        await self.dovecot.__aexit__()

    def settings(self, **changed: Any) -> MailSettings:
        """Settings of the assistant's account here."""
        values: dict[str, Any] = {
            "address": ASSISTANT,
            "display_name": "Assistant 助手",
            "username": ASSISTANT,
            "password": PASSWORD,
            "imap_host": "127.0.0.1",
            "imap_port": self.dovecot.imap_port,
            "imap_security": "none",
            "smtp_host": "127.0.0.1",
            "smtp_port": self.post.smtp_port,
            "smtp_security": "none",
            "since": datetime.now(UTC) - timedelta(hours=1),
            "timeout": 5,
        }
        return MailSettings(**(values | changed))

    def connector(self, account: str) -> Mail:
        return Mail(account, self.settings())

    def broken_connector(self, account: str) -> Mail:
        return Mail(account, self.settings(password=WRONG_PASSWORD))

    def secrets(self) -> tuple[str, ...]:
        return (PASSWORD, WRONG_PASSWORD, base64.b64encode(f"\0{ASSISTANT}\0{PASSWORD}".encode()).decode())

    async def person_says(
        self,
        text: str,
        *,
        person: str = "alice",
        thread: str | None = None,
        files: tuple[File, ...] = (),
        direct: bool = True,
    ) -> str:
        mail = letter(text, person=person, thread=thread, files=files)
        native_id = str(mail["Message-ID"])
        self._mails[native_id] = mail.as_bytes(policy=SMTP_POLICY)
        await self.redeliver(native_id)
        return native_id

    async def redeliver(self, native_id: str) -> None:
        await asyncio.to_thread(self.dovecot.append, ASSISTANT, self._mails[native_id])

    async def sent(self, n: int) -> list[Sent]:
        await eventually(lambda: len(self.post.arrived) >= n, f"{n} mails")
        return [as_sent(arrived) for arrived in self.post.arrived]

    def refuse_next(self, how: Failure, retry_after: float | str = 1) -> None:
        self.post.fail_next(how, retry_after)

    async def cut(self) -> None:
        self.post.cut()
        await self.dovecot.kick()

    def acknowledged(self, native_id: str) -> bool:
        return any(TAKEN.encode() in flags for flags in self.dovecot.flags(ASSISTANT, native_id))


DRIVER = MailDriver


def letter(
    text: str,
    *,
    person: str = "alice",
    thread: str | None = None,
    files: tuple[File, ...] = (),
    subject: str = "A question",
) -> EmailMessage:
    """A mail to the assistant as a person's program writes it."""
    mail = EmailMessage()
    mail["From"] = f"{person.title()} <{person}@{DOMAIN}>"
    mail["To"] = ASSISTANT
    mail["Subject"] = subject
    mail["Date"] = format_datetime(datetime.now(UTC))
    mail["Message-ID"] = f"<{os.urandom(8).hex()}@{person}.{DOMAIN}>"
    if thread:
        mail["References"] = mail["In-Reply-To"] = thread
    mail.set_content(text + "\n")
    for file in files:
        main, _, sub = file.media_type.partition("/")
        mail.add_attachment(file.content, maintype=main, subtype=sub, filename=file.name)
    return mail


def as_sent(arrived: Arrived) -> Sent:
    """A mail as its reader sees it; the thread is the first of its references, as mail programs have it."""
    mail = arrived.mail
    body = mail.get_body(("plain",))
    assert body is not None
    to = str(mail["To"])
    assert arrived.recipients == (to,), "the envelope and the header name different people"
    return Sent(
        text=str(body.get_content()).replace("\r\n", "\n"),
        thread=str(mail["References"]).split()[0] if mail["References"] else None,
        files=tuple(_as_file(part) for part in mail.iter_attachments()),
        conversation=to,
        private_to=to,
    )


def _as_file(part: Any) -> File:
    return File(
        name=part.get_filename(),
        media_type=part.get_content_type(),
        content=part.get_payload(decode=True),
    )


async def _serve(imap_port: int, smtp_port: int) -> None:
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    async with Dovecot(imap_port) as dovecot, Post(dovecot, smtp_port) as post:
        told = {
            "host": "127.0.0.1",
            "imap_port": dovecot.imap_port,
            "smtp_port": post.smtp_port,
            "address": ASSISTANT,
            "password": PASSWORD,
            "security": "none",
            "domain": DOMAIN,
        }
        print(json.dumps(told), flush=True)
        await ended.wait()


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--imap-port", type=int, default=0)
    arguments.add_argument("--smtp-port", type=int, default=0)
    parsed = arguments.parse_args()
    asyncio.run(_serve(parsed.imap_port, parsed.smtp_port))
