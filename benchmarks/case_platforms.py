"""The three platforms of the owner's case, with the people on them: WeCom's API, a real Dovecot, a real Prosody.

They are in the benchmark's own process. A message counts as sent when its person sends it, and as answered when the
platform has the answer: WeCom's API has taken it, the SMTP server has all of it, the person's XMPP client has read it.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from email.policy import SMTP
from typing import Any, Final, Protocol, Self

from slixmpp import JID

from benchmarks.case_schedule import PLATFORMS, Asking, Platform
from parley.link.calls import AdminCall, Role
from parley.link.client import HubClient, default_address, role_token
from tests.fakes import mail, wecom, xmpp
from tests.servers.prosody import DOMAIN, Prosody
from tests.stack import Stack

LOOK_EVERY: Final = 0.2
"""As on a server of one's own: Dovecot tells of new mail half a second late."""


class Answers(Protocol):
    """Who hears of each text that reaches a person."""

    def answered(self, platform: Platform, person: int, text: str, at: float) -> None:
        """`at` is the moment on the monotonic clock."""


CUSTOMERS: Final = "customers.example"
"""Where the people are who write mails: their mailboxes are not on our server."""


class Noted(list[Any]):
    """A list that says what is put into it, at that moment."""

    def __init__(self, note: Callable[[Any], None]) -> None:
        super().__init__()
        self._note = note

    def append(self, value: Any) -> None:
        """Put it in, and say so."""
        super().append(value)
        self._note(value)


class Platforms:
    """All three, connected to a stack."""

    def __init__(self, stack: Stack, people: Iterable[tuple[Platform, int]]) -> None:
        self._stack = stack
        self._everybody = sorted(people)
        self.desk: Answers | None = None
        hooks = f"http://127.0.0.1:{stack.environment['PARLEY_HOOKS_PORT']}/hooks/wecom"
        self.wecom = wecom.WecomFake(callback=hooks)
        self.wecom.people = {_name(*one) for one in self._everybody}
        self.wecom.posts = Noted(self._wecom_answered)
        self.dovecot = mail.Dovecot()
        self.post = mail.Post(self.dovecot)
        self.post.arrived = Noted(self._mail_answered)
        names = ["parley", *(_name(*one) for one in self._everybody)]
        self.prosody = Prosody(accounts=dict.fromkeys(names, xmpp.PASSWORD))
        self.people: dict[int, xmpp.Person] = {}
        self._everything = AsyncExitStack()
        # One connection: the mails come in the order in which they were written.
        self._posting = ThreadPoolExecutor(1, thread_name_prefix="bench-imap")
        self._imap: Any = None

    async def __aenter__(self) -> Self:
        enter = self._everything.enter_async_context
        try:
            await enter(self.wecom)
            await enter(self.dovecot)
            await enter(self.post)
            await enter(self.prosody)
            for platform, number in self._everybody:
                if platform == "xmpp":
                    await self._person_of_xmpp(number)
            await asyncio.to_thread(self._connect)
            await self._link()
            await self._until_all_listen()
        except BaseException:
            await self._everything.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._imap is not None:
            self._imap.shutdown()
        self._posting.shutdown()
        await self._everything.aclose()

    # -- asking

    async def ask(self, asking: Asking) -> None:
        """One person sends one message."""
        name = _name(asking.platform, asking.person)
        if asking.platform == "wecom":
            await self.wecom.say(asking.text, user=name)
        elif asking.platform == "xmpp":
            client = self.people[asking.person].client
            client.make_message(JID(xmpp.BOT), asking.text, mtype="chat").send()
        else:
            letter = mail.letter(asking.text, person=name)
            letter.replace_header("From", f"{name} <{name}@{CUSTOMERS}>")
            raw = letter.as_bytes(policy=SMTP)
            await asyncio.get_running_loop().run_in_executor(self._posting, self._append, raw)

    def _append(self, raw: bytes) -> None:
        if self._imap is None:
            from imapclient import IMAPClient

            self._imap = IMAPClient("127.0.0.1", self.dovecot.imap_port, ssl=False)
            self._imap.login(mail.ASSISTANT, mail.PASSWORD)
        self._imap.append("INBOX", raw)

    # -- being answered

    def _wecom_answered(self, body: dict[str, Any]) -> None:
        person, text = str(body.get("touser", "")), body.get(body["msgtype"], {}).get("content", "")
        self._note("wecom", person, text, time.monotonic())

    def _mail_answered(self, arrived: mail.Arrived) -> None:
        at = time.monotonic()  # before it is read
        body = arrived.mail.get_body(("plain",))
        text = body.get_content() if body else ""
        self._note("mail", arrived.recipients[0].partition("@")[0], text, at)

    def _note(self, platform: Platform, person: str, text: str, at: float) -> None:
        if self.desk is not None:
            self.desk.answered(platform, _number(person), text, at)

    async def _person_of_xmpp(self, number: int) -> None:
        name = _name("xmpp", number)
        person = xmpp.Person(name, xmpp.PASSWORD, self.prosody.port)

        def heard(stanza: Any) -> None:
            if stanza.get("from", "").startswith(xmpp.BOT):
                text = stanza.findtext("{jabber:client}body") or ""
                self._note("xmpp", name, text, time.monotonic())

        person.heard = Noted(heard)
        await person.enter()
        self._everything.push_async_callback(person.leave)
        self.people[number] = person

    # -- connecting

    def _connect(self) -> None:
        given = {"secret": wecom.SECRET, "token": wecom.TOKEN, "encoding_aes_key": wecom.AES_KEY}
        fields = {"corp_id": wecom.CORP_ID, "agent_id": wecom.AGENT_ID, "base_url": self.wecom.url}
        connect(self._stack, "wecom", "parley-wecom-app", "wecom", given, fields)
        secrets = {"password": mail.PASSWORD}
        servers = {
            "address": mail.ASSISTANT,
            "imap_host": "127.0.0.1",
            "imap_port": self.dovecot.imap_port,
            "imap_security": "none",
            "smtp_host": "127.0.0.1",
            "smtp_port": self.post.smtp_port,
            "smtp_security": "none",
            "look_every": LOOK_EVERY,
        }
        connect(self._stack, "mail", "parley-mail-account", "mail", secrets, servers)
        server = {
            "jid": xmpp.BOT,
            "host": "127.0.0.1",
            "port": self.prosody.port,
            "allow_plain_on_loopback": True,
        }
        connect(self._stack, "xmpp", "parley-xmpp-account", "xmpp", {"password": xmpp.PASSWORD}, server)

    async def _link(self) -> None:
        """Everybody is somebody: number 0 the owner, the others people who may read."""
        chosen = self._stack.settings
        token = role_token(chosen, Role.COMMAND_LINE)
        async with HubClient(default_address(chosen), Role.COMMAND_LINE, token, name="bench") as hub:

            async def admin(verb: str, **arguments: Any) -> None:
                await hub.call("admin", AdminCall(verb=verb, arguments=arguments), timeout=30)

            for platform, number in self._everybody:
                name = f"{platform} {number}" if number or platform == "mail" else "owner"
                if name != "owner":
                    await admin("person_add", name=name, role="user")
                await admin("person_link", name=name, account=platform, user_id=_user_id(platform, number))

    async def _until_all_listen(self) -> None:
        def listen() -> bool:
            found = {one["name"]: one["state"] for one in self._stack.admin("accounts")}
            return all(found.get(name) == "listening" for name in PLATFORMS)

        await asyncio.to_thread(self._stack.until, listen, 90, "all three accounts listen")


def connect(
    stack: Stack, platform: str, block_type: str, name: str, secrets: dict[str, str], fields: dict[str, Any]
) -> None:
    """What `parley connect` does: seal the secrets, save the Block, add the account."""
    sealed = {
        field: stack.admin("seal", block_type=block_type, block_name=name, field=field, value=value)["sealed"]
        for field, value in secrets.items()
    }
    done = subprocess.run(
        [sys.executable, "-m", "blocks.save", platform],
        input=json.dumps({"name": name, "fields": fields | sealed}) + "\n",
        env=stack.environment | stack.prefect_environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    saved = json.loads(done.stdout.splitlines()[-1])
    assert "block" in saved, saved
    stack.admin("add_account", name=name, platform=platform, block=saved["block"])


def _name(platform: Platform, number: int) -> str:
    return f"{platform}{number}"  # letters and digits: a file name on every server


def _number(name: str) -> int:
    return int(name.lstrip("abcdefghijklmnopqrstuvwxyz"))


def _user_id(platform: Platform, number: int) -> str:
    name = _name(platform, number)
    if platform == "mail":
        return f"{name}@{CUSTOMERS}"
    return f"{name}@{DOMAIN}" if platform == "xmpp" else name
