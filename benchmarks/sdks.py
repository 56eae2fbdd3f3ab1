"""The peers of `connector.*`: the vendor's SDK alone, as its documentation has it used, counting what it hears.

Each reads what a message says and from whom, acknowledges it where the platform is told, and does nothing else: no
check of doubles, no rights, no threads, no files, and no way on when something fails.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import Any, Final

from benchmarks import connector_alerts
from benchmarks.receivers import called
from parley.messages import HookRequest

Json = dict[str, Any]
Heard = Callable[[str, str], None]
"""Called with what was said and by whom."""

TAKEN: Final = "$ParleyTaken"
"""The keyword of our connector, so that neither hears what the other one has taken."""


@asynccontextmanager
async def slack(about: Json, heard: Heard) -> AsyncIterator[str]:
    """slack_sdk: its Socket Mode client on aiohttp, with a listener that acknowledges."""
    from slack_sdk.socket_mode.aiohttp import SocketModeClient
    from slack_sdk.socket_mode.async_client import AsyncBaseSocketModeClient
    from slack_sdk.socket_mode.request import SocketModeRequest
    from slack_sdk.socket_mode.response import SocketModeResponse
    from slack_sdk.web.async_client import AsyncWebClient

    client = SocketModeClient(
        app_token=about["app_token"],
        web_client=AsyncWebClient(token=about["bot_token"], base_url=about["base_url"]),
        logger=logging.getLogger("quiet"),
    )

    async def take(_: AsyncBaseSocketModeClient, request: SocketModeRequest) -> None:
        event = request.payload["event"]
        heard(event["text"], event["user"])
        await client.send_socket_mode_response(SocketModeResponse(envelope_id=request.envelope_id))

    client.socket_mode_request_listeners.append(take)
    await client.connect()  # type: ignore[no-untyped-call]
    try:
        yield ""
    finally:
        await client.close()  # type: ignore[no-untyped-call]


@asynccontextmanager
async def discord(about: Json, heard: Heard) -> AsyncIterator[str]:
    """discord.py: a Client with on_message, its addresses replaced by the fake's and nothing else."""
    import aiohttp
    import discord as sdk
    from discord.http import HTTPClient, Route

    class Redirected(HTTPClient):
        async def request(self, route: Route, **arguments: Any) -> Any:
            route.url = route.url.replace(Route.BASE, about["base_url"], 1)
            return await super().request(route, **arguments)

        async def ws_connect(self, url: str, *, compress: int = 0) -> aiohttp.ClientWebSocketResponse:
            there = url.replace("wss://gateway.discord.gg", about["gateway"], 1)
            return await super().ws_connect(there, compress=compress)

    class Bot(sdk.Client):
        def __init__(self) -> None:
            intents = sdk.Intents(guilds=True, guild_messages=True, dm_messages=True, message_content=True)
            super().__init__(intents=intents, guild_ready_timeout=0.05)
            self.http = self._connection.http = Redirected(self.loop)

        async def before_identify_hook(self, shard_id: int | None, *, initial: bool = False) -> None:
            """Do not wait five seconds: there is one bot."""

        async def on_message(self, message: sdk.Message) -> None:
            heard(message.content, str(message.author.id))

    bot = Bot()
    task = asyncio.create_task(bot.start(about["token"]))
    try:
        yield ""
    finally:
        await bot.close()
        with suppress(asyncio.CancelledError, sdk.DiscordException):
            await task


@asynccontextmanager
async def mail(about: Json, heard: Heard) -> AsyncIterator[str]:
    """IMAPClient: wait in IDLE, search, fetch and mark one after the other, in a thread; read with Python's parser."""
    from imapclient import IMAPClient

    loop, ended = asyncio.get_running_loop(), threading.Event()

    def work() -> None:
        with IMAPClient("127.0.0.1", about["port"], ssl=False, timeout=10) as client:
            client.login(about["address"], about["password"])
            client.select_folder("INBOX")
            while not ended.is_set():
                for uid in client.search(["UNKEYWORD", TAKEN]):
                    (found,) = client.fetch([uid], ["BODY.PEEK[]"]).values()
                    parsed = message_from_bytes(found[b"BODY[]"], policy=default)
                    assert isinstance(parsed, EmailMessage)
                    body = parsed.get_body(("plain", "html"))
                    text = body.get_content() if body else ""
                    loop.call_soon_threadsafe(heard, text, str(parsed["From"]))
                    client.add_flags([uid], [TAKEN], silent=True)
                client.idle()
                client.idle_check(timeout=0.2)
                client.idle_done()

    async with _in_a_thread(work, ended):
        yield ""


@asynccontextmanager
async def exchange(about: Json, heard: Heard) -> AsyncIterator[str]:
    """exchangelib: ask what is new since the sync state, fetch and mark twenty at once, in a thread."""
    from exchangelib import (
        BASIC,
        DELEGATE,
        Account,
        Configuration,
        Credentials,
        ExtendedProperty,
        FailFast,
        Message,
        Version,
    )
    from exchangelib.version import EXCHANGE_2016

    class BenchTaken(ExtendedProperty):  # type: ignore[misc]
        property_set_id = "2f6d7ad0-6d0c-4e0e-9a43-5b1f3a0c7e92"
        property_name = "BenchTaken"
        property_type = "String"

    loop, ended = asyncio.get_running_loop(), threading.Event()
    if not any(field.name == "bench_taken" for field in Message.FIELDS):
        Message.register("bench_taken", BenchTaken)

    def work() -> None:
        config = Configuration(
            service_endpoint=about["endpoint"],
            credentials=Credentials(about["username"], about["password"]),
            auth_type=BASIC,
            version=Version(build=EXCHANGE_2016),
            retry_policy=FailFast(),
            max_connections=2,
        )
        account = Account(about["address"], config=config, access_type=DELEGATE)
        try:
            while not ended.is_set():
                fields = ["item_class", "datetime_received", "size", "bench_taken"]
                changes = list(account.inbox.sync_items(only_fields=fields, max_changes_returned=512))
                new = [item for kind, item in changes if kind == "create" and not item.bench_taken]
                for begin in range(0, len(new), 20):
                    items = new[begin : begin + 20]
                    for whole in account.fetch(items, only_fields=["mime_content", "author"]):
                        parsed = message_from_bytes(whole.mime_content, policy=default)
                        assert isinstance(parsed, EmailMessage)
                        body = parsed.get_body(("plain", "html"))
                        text = body.get_content() if body else ""
                        loop.call_soon_threadsafe(heard, text, whole.author.email_address)
                    for item in items:
                        item.bench_taken = "yes"
                    _ = account.bulk_update(
                        items=[(item, ("bench_taken",)) for item in items],
                        conflict_resolution="AlwaysOverwrite",
                        message_disposition="SaveOnly",
                        send_meeting_invitations_or_cancellations="SendToNone",
                        suppress_read_receipts=True,
                    )
                _ = ended.wait(0.05)
        finally:
            account.protocol.close()

    async with _in_a_thread(work, ended):
        yield ""


@asynccontextmanager
async def xmpp(about: Json, heard: Heard) -> AsyncIterator[str]:
    """slixmpp: a ClientXMPP with its stream management and a handler of messages."""
    from slixmpp import ClientXMPP

    client = ClientXMPP(f"{about['jid']}/bench", about["password"])
    client.enable_starttls = client.enable_direct_tls = False
    client.enable_plaintext = True
    client.plugin["feature_mechanisms"].unencrypted_scram = True
    for plugin in ("xep_0030", "xep_0198", "xep_0199"):
        client.register_plugin(plugin)

    def take(message: Any) -> None:
        if message["type"] in ("chat", "normal") and message["body"]:
            heard(message["body"], message["from"].bare)

    client.add_event_handler("session_start", lambda _: client.send_presence())
    client.add_event_handler("message", take)
    _ = client.connect("127.0.0.1", about["port"])
    try:
        yield ""
    finally:
        await client.disconnect(wait=0)
        client._run_out_filters.cancel()  # type: ignore[union-attr]  # noqa: SLF001 - it outlives the client


@asynccontextmanager
async def wecom_bot(about: Json, heard: Heard) -> AsyncIterator[str]:
    """WeCom's own SDK for robots."""
    import aibot.api  # type: ignore[import-untyped]
    import aibot.ws  # type: ignore[import-untyped]
    from aibot import WSClient, WSClientOptions

    class Silence:
        def info(self, message: str, *_: Any) -> None:
            """Nothing."""

        debug = warn = error = info

    for module in (aibot.api, aibot.ws):
        module._SSL_CONTEXT.load_verify_locations(cafile=about["ca_file"])  # noqa: SLF001 - no setting
    options = WSClientOptions(
        bot_id=about["bot_id"], secret=about["secret"], ws_url=about["url"], logger=Silence()
    )
    client = WSClient(options)
    client.on("error", lambda *_: None)
    client.on(
        "message", lambda frame: heard(frame["body"]["text"]["content"], frame["body"]["from"]["userid"])
    )
    await client.connect()
    try:
        yield ""
    finally:
        client.disconnect()
        async with asyncio.timeout(10):
            while client.is_connected:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.01)


@asynccontextmanager
async def websocket(about: Json, heard: Heard) -> AsyncIterator[str]:
    """websockets: a client that logs in, reads frames and acknowledges each."""
    from websockets.asyncio.client import connect

    async with connect(about["url"], proxy=None) as socket:

        async def work() -> None:
            await socket.send(json.dumps({"type": "login", "as": "parley", "token": about["secret"]}))
            async for raw in socket:
                said = json.loads(raw)
                if said["type"] == "message":
                    heard(said["data"]["text"], said["data"]["from"]["id"])
                    await socket.send(json.dumps({"type": "taken", "ids": [said["id"]]}))

        task = asyncio.create_task(work())
        try:
            yield ""
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


@asynccontextmanager
async def wecom(about: Json, heard: Heard) -> AsyncIterator[str]:
    """wechatpy: WeChatCrypto verifies and decrypts, parse_message reads."""
    from urllib.parse import parse_qs

    from wechatpy.enterprise import parse_message  # type: ignore[import-untyped]
    from wechatpy.enterprise.crypto import WeChatCrypto  # type: ignore[import-untyped]

    crypto = WeChatCrypto(about["token"], about["aes_key"], about["corp_id"])

    async def take(request: HookRequest) -> tuple[int, bytes]:
        query = {key: values[0] for key, values in parse_qs(request.query).items()}
        plain = crypto.decrypt_message(
            request.body, query["msg_signature"], query["timestamp"], query["nonce"]
        )
        said = parse_message(plain)
        heard(said.content, said.source)
        return 200, b""

    async with called(take) as url:
        yield url


@asynccontextmanager
async def webhook(about: Json, heard: Heard) -> AsyncIterator[str]:
    """standardwebhooks: verify."""
    from standardwebhooks.webhooks import Webhook

    library = Webhook(about["secret"])

    async def take(request: HookRequest) -> tuple[int, bytes]:
        said = library.verify(request.body, dict(request.headers))
        heard(said["data"]["text"], said["type"])
        return 200, b""

    async with called(take) as url:
        yield url


@asynccontextmanager
async def github(about: Json, heard: Heard) -> AsyncIterator[str]:
    """GitHub has no SDK for Python: the function that its documentation shows, and json."""

    async def take(request: HookRequest) -> tuple[int, bytes]:
        made = hmac.new(about["secret"].encode(), request.body, hashlib.sha256).hexdigest()
        assert hmac.compare_digest(f"sha256={made}", request.headers["x-hub-signature-256"])
        said = json.loads(request.body)
        heard(said["head_commit"]["message"], said["sender"]["login"])
        return 200, b""

    async with called(take) as url:
        yield url


@asynccontextmanager
async def alertmanager(about: Json, heard: Heard) -> AsyncIterator[str]:
    """Alertmanager has no SDK for Python: the token compared, the alerts read and said as its own library does."""

    async def take(request: HookRequest) -> tuple[int, bytes]:
        assert hmac.compare_digest(f"Bearer {about['token']}", request.headers["authorization"])
        for alert in connector_alerts.alerts(request.body):
            heard(alert.text(), alert.labels["alertname"])
        return 200, b""

    async with called(take) as url:
        yield url


@asynccontextmanager
async def _in_a_thread(work: Callable[[], None], ended: threading.Event) -> AsyncIterator[None]:
    task = asyncio.create_task(asyncio.to_thread(work))
    try:
        yield
    finally:
        ended.set()
        await task


PEERS: Final[dict[str, tuple[str, Callable[[Json, Heard], AbstractAsyncContextManager[str]]]]] = {
    "slack": ("slack_sdk SocketModeClient", slack),
    "discord": ("discord.py Client", discord),
    "mail": ("IMAPClient", mail),
    "xmpp": ("slixmpp ClientXMPP", xmpp),
    "wecom": ("wechatpy", wecom),
    "wecom_bot": ("WeCom's aibot SDK", wecom_bot),
    "exchange": ("exchangelib", exchange),
    "websocket": ("websockets", websocket),
    "webhook": ("standardwebhooks", webhook),
    "github": ("hmac and json", github),
    "alertmanager": ("hmac, json, its alerts", alertmanager),
}
"""What runs beside each of our connectors, by the connector's name."""
