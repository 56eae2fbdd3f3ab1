"""The platforms of `connector.*`, in a process of their own, so that what they cost is not in anybody's figure.

Started as a program. One JSON object a line: in `{"start": "slack"}`, out what is needed to connect, and the platform
before it ends; in `{"say": 200}` for so many messages of one person, out `{}` once they are on their way. Calls of a
hook are made before they are asked for, by `{"prepare": 200, "url": ...}`.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from email.policy import SMTP
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from parley.messages import HookRequest
from tests.fakes import _alerting as alerting
from tests.fakes import _forge as forge

Json = dict[str, Any]

CONNECTIONS: Final = 8
"""Connections that a service calls a hook on at the same time."""


class Source(Protocol):
    """One platform that can be made to say something."""

    async def start(self, stack: AsyncExitStack) -> Json:
        """Begin; returns what a client has to know."""

    async def prepare(self, count: int, url: str) -> None:
        """Make as much as can be made before the clock starts."""

    async def say(self, count: int) -> None:
        """So many messages."""


class _Unprepared:
    async def prepare(self, count: int, url: str) -> None:
        """Nothing can be made before."""


class _Slack(_Unprepared):
    async def start(self, stack: AsyncExitStack) -> Json:
        from tests.fakes.slack import APP_TOKEN, BOT_TOKEN, SlackFake

        self.fake = await stack.enter_async_context(SlackFake(host="127.0.0.1"))
        return {"base_url": self.fake.base_url, "bot_token": BOT_TOKEN, "app_token": APP_TOKEN}

    async def say(self, count: int) -> None:
        for number in range(count):
            await self.fake.say(f"where is order {number}?")


class _Discord(_Unprepared):
    async def start(self, stack: AsyncExitStack) -> Json:
        from tests.fakes.discord import TOKEN, DiscordFake

        self.fake = await stack.enter_async_context(DiscordFake(host="127.0.0.1", heartbeat=0.5))
        return {"base_url": self.fake.base_url, "gateway": self.fake.gateway.url, "token": TOKEN}

    async def say(self, count: int) -> None:
        for number in range(count):
            self.fake.say(f"where is order {number}?")
            await asyncio.sleep(0)


class _WecomBot(_Unprepared):
    async def start(self, stack: AsyncExitStack) -> Json:
        from tests.fakes.wecom_bot import BOT_ID, BOT_NAME, SECRET, WecomBotFake

        self.fake = await stack.enter_async_context(WecomBotFake())
        about = {"bot_id": BOT_ID, "bot_name": BOT_NAME, "secret": SECRET}
        return {"url": self.fake.url, "ca_file": self.fake.ca_file, **about}

    async def say(self, count: int) -> None:
        for number in range(count):
            await self.fake.say(f"where is order {number}?")


class _WebSocket(_Unprepared):
    async def start(self, stack: AsyncExitStack) -> Json:
        from tests.fakes.websocket import PROTOCOL, SECRET, WebSocketFake

        self.fake = await stack.enter_async_context(WebSocketFake())
        return {"url": self.fake.url, "secret": SECRET, "protocol": PROTOCOL}

    async def say(self, count: int) -> None:
        for number in range(count):
            await self.fake.say(f"where is order {number}?")


class _Mail:
    async def start(self, stack: AsyncExitStack) -> Json:
        from imapclient import IMAPClient

        from tests.fakes.mail import ASSISTANT, PASSWORD, Dovecot

        dovecot = await stack.enter_async_context(Dovecot())
        self.client = IMAPClient("127.0.0.1", dovecot.imap_port, ssl=False)
        self.client.login(ASSISTANT, PASSWORD)
        stack.callback(self.client.shutdown)
        self.mails: list[bytes] = []
        return {"port": dovecot.imap_port, "address": ASSISTANT, "password": PASSWORD}

    async def prepare(self, count: int, url: str) -> None:
        from tests.fakes.mail import letter

        self.mails = [letter(f"where is order {n}?").as_bytes(policy=SMTP) for n in range(count)]

    async def say(self, count: int) -> None:
        from tests.fakes.mail import letter

        said, self.mails = self.mails[:count], self.mails[count:]
        said += [letter("more").as_bytes(policy=SMTP) for _ in range(count - len(said))]
        for at in range(0, len(said), 50):
            await asyncio.to_thread(self.client.multiappend, "INBOX", said[at : at + 50])


class _Exchange(_Unprepared):
    async def start(self, stack: AsyncExitStack) -> Json:
        from tests.fakes.exchange import PASSWORD, USER, FakeExchange
        from tests.fakes.mail import ASSISTANT

        self.server = await stack.enter_async_context(FakeExchange())
        about = {"address": ASSISTANT, "username": USER, "password": PASSWORD}
        return {"endpoint": f"{self.server.url}/EWS/Exchange.asmx", **about}

    async def say(self, count: int) -> None:
        from tests.fakes.mail import letter

        # What was taken is not looked at again, by nobody: a mailbox that somebody keeps tidy.
        self.server.items.clear()
        for number in range(count):
            self.server.deliver(letter(f"where is order {number}?").as_bytes(policy=SMTP))


class _XMPP(_Unprepared):
    async def start(self, stack: AsyncExitStack) -> Json:
        from tests.fakes.xmpp import BOT, PASSWORD, Person
        from tests.servers.prosody import Prosody

        server = await stack.enter_async_context(Prosody(accounts={"parley": PASSWORD, "alice": PASSWORD}))
        self.alice, self.bot, self.numbers = Person("alice", PASSWORD, server.port), BOT, itertools.count()
        await self.alice.enter()
        stack.push_async_callback(self.alice.leave)
        return {"jid": BOT, "password": PASSWORD, "port": server.port}

    async def say(self, count: int) -> None:
        for at in range(0, count, 20):
            for number in range(at, min(at + 20, count)):
                self.alice.client.send_raw(
                    f"<message to='{self.bot}' type='chat' id='bench-{next(self.numbers)}'>"
                    f"<body>where is order {number}?</body></message>"
                )
            await asyncio.sleep(0)


class _Hook:
    """A service that calls: over HTTP/1.1 with as little work of its own as can be."""

    def __init__(self, request: Callable[[int], HookRequest], about: Json) -> None:
        self.request, self.about = request, about
        self.numbers = itertools.count(1)
        self.calls: list[bytes] = []
        self.url = ""

    async def start(self, stack: AsyncExitStack) -> Json:
        return self.about

    async def prepare(self, count: int, url: str) -> None:
        self.url = url
        self.calls += [self._over_http(self.request(next(self.numbers))) for _ in range(count)]

    async def say(self, count: int) -> None:
        if len(self.calls) < count:
            await self.prepare(count - len(self.calls), self.url)
        calls, self.calls = self.calls[:count], self.calls[count:]
        await asyncio.gather(*[self._call(calls[first::CONNECTIONS]) for first in range(CONNECTIONS)])

    async def _call(self, calls: list[bytes]) -> None:
        address = urlsplit(self.url)
        assert address.hostname
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        for call in calls:
            writer.write(call)
            head = await reader.readuntil(b"\r\n\r\n")
            status = int(head.split(b" ", 2)[1])
            assert 200 <= status < 300, head
            lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            for length in lengths:  # an answer 204 has none
                await reader.readexactly(int(length.partition(b":")[2]))
        writer.close()

    def _over_http(self, request: HookRequest) -> bytes:
        address = urlsplit(self.url)
        target = address.path + (f"?{request.query}" if request.query else "")
        headers = {"host": address.netloc, **request.headers, "content-length": str(len(request.body))}
        head = [f"POST {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join([*head, "", ""]).encode() + request.body


def _wecom() -> _Hook:
    from tests.fakes.wecom import AES_KEY, AGENT_ID, CORP_ID, TOKEN, WecomFake

    fake = WecomFake()

    def request(number: int) -> HookRequest:
        said = {"ToUserName": CORP_ID, "FromUserName": "alice", "CreateTime": "1760000000", "MsgType": "text"}
        return fake.request(
            {**said, "Content": f"where is order {number}?", "MsgId": str(number), "AgentID": str(AGENT_ID)}
        )

    about = {"corp_id": CORP_ID, "agent_id": AGENT_ID, "token": TOKEN, "aes_key": AES_KEY}
    return _Hook(request, about)


def _webhook() -> _Hook:
    from tests.fakes.webhook import SECRET, call

    def request(number: int) -> HookRequest:
        return call({"type": "order.late", "data": {"order": number, "text": f"Order {number} is late."}})

    return _Hook(request, {"secret": SECRET})


def _github() -> _Hook:
    from tests.fakes.github import SECRET, delivery

    return _Hook(
        lambda number: delivery("push", forge.push(), guid=f"00000000-0000-4000-8000-{number:012d}"),
        {"secret": SECRET},
    )


def _alertmanager() -> _Hook:
    from tests.fakes.alertmanager import TOKEN, delivery

    return _Hook(
        lambda number: delivery(alerting.call(alerting.alert(fingerprint=f"{number:016x}"))), {"token": TOKEN}
    )


SOURCES: Final[dict[str, Callable[[], Source]]] = {
    "slack": _Slack,
    "discord": _Discord,
    "mail": _Mail,
    "exchange": _Exchange,
    "xmpp": _XMPP,
    "wecom": _wecom,
    "wecom_bot": _WecomBot,
    "websocket": _WebSocket,
    "webhook": _webhook,
    "github": _github,
    "alertmanager": _alertmanager,
}


async def main() -> None:
    """Serve until the other side has gone."""
    source: Source | None = None
    async with AsyncExitStack() as stack:
        while line := await asyncio.to_thread(sys.stdin.readline):
            asked, told = json.loads(line), Json()
            if "start" in asked:
                await stack.aclose()
                source = SOURCES[asked["start"]]()
                told = await source.start(stack)
            elif source is not None and "prepare" in asked:
                await source.prepare(asked["prepare"], asked["url"])
            elif source is not None:
                await source.say(asked["say"])
            print(json.dumps(told), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
