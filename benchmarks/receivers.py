"""Our connectors of `connector.*`, each as it is held by a listener: connected, and handing events to an `accept`."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route as Address

from parley.messages import Accept, Connector, HookRequest
from tests.stack import free_ports

Json = dict[str, Any]

ACCOUNT: Final = "bench"

Handler = Callable[[HookRequest], Any]
"""Awaited with one call; returns status and body."""


def connector(name: str, about: Json) -> Connector:
    """The connector of this platform, pointed at its source."""
    return _MAKERS[name](about)


@asynccontextmanager
async def listening(name: str, about: Json, accept: Accept) -> AsyncIterator[str]:
    """Our connector at work; yields the address that its service calls, if any."""
    made = connector(name, about)
    try:
        if made.capabilities.hooks and name not in NO_HOOK:

            async def taken(request: HookRequest) -> tuple[int, bytes]:
                answer = await made.handle_hook(request, accept)
                return answer.status, answer.body

            async with called(taken) as url:
                yield url
            return
        task = asyncio.create_task(made.listen(accept))
        try:
            yield ""
            if task.done():
                await task
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
    finally:
        await made.aclose()


@asynccontextmanager
async def called(take: Handler) -> AsyncIterator[str]:
    """The server that the hooks' port has, with one address: the same for ours and theirs."""

    async def hook(request: Request) -> Response:
        body = await request.body()
        status, said = await take(
            HookRequest(
                method=request.method,
                path=request.url.path,
                query=request.url.query,
                headers=dict(request.headers),
                body=body,
            )
        )
        return Response(said, status)

    (port,) = free_ports(1)
    app = Starlette(routes=[Address("/hook", hook, methods=["POST"])])
    config = uvicorn.Config(
        app, host="127.0.0.1", port=port, log_config=None, access_log=False, lifespan="off"
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    try:
        async with asyncio.timeout(10):
            while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
                await asyncio.sleep(0.01)
        yield f"http://127.0.0.1:{port}/hook"
    finally:
        server.should_exit = True
        await serving


NO_HOOK: Final = frozenset({"slack", "discord"})
"""Platforms that can call a hook too, but are connected to here."""


def _slack(about: Json) -> Connector:
    from connectors.slack import Slack

    return Slack(
        ACCOUNT, bot_token=about["bot_token"], app_token=about["app_token"], base_url=about["base_url"]
    )


def _discord(about: Json) -> Connector:
    from connectors.discord import Discord

    return Discord(ACCOUNT, bot_token=about["token"], base_url=about["base_url"], identify_every=0.01)


def _mail(about: Json) -> Connector:
    from connectors.mail import Mail, MailSettings

    return Mail(
        ACCOUNT,
        MailSettings.model_validate(
            {
                "address": about["address"],
                "username": about["address"],
                "password": about["password"],
                "imap_host": "127.0.0.1",
                "imap_port": about["port"],
                "imap_security": "none",
                "smtp_host": "127.0.0.1",
                "smtp_port": 25,
                "smtp_security": "none",
                "since": datetime.now(UTC) - timedelta(hours=1),
            }
        ),
    )


def _exchange(about: Json) -> Connector:
    from connectors.exchange import Exchange, ExchangeSettings

    return Exchange(
        ACCOUNT,
        ExchangeSettings.model_validate(
            {
                "address": about["address"],
                "endpoint": about["endpoint"],
                "auth": "basic",
                "username": about["username"],
                "password": about["password"],
                "since": datetime.now(UTC) - timedelta(hours=1),
                "settle": 0,
            }
        ),
    )


def _xmpp(about: Json) -> Connector:
    from connectors.xmpp import XMPP, XMPPSettings

    return XMPP(
        ACCOUNT,
        XMPPSettings.model_validate(
            {
                "jid": about["jid"],
                "password": about["password"],
                "host": "127.0.0.1",
                "port": about["port"],
                "allow_plain_on_loopback": True,
                "catch_up_minutes": 0,
            }
        ),
    )


def _wecom(about: Json) -> Connector:
    from connectors.wecom import Wecom

    return Wecom(
        ACCOUNT,
        corp_id=about["corp_id"],
        agent_id=about["agent_id"],
        secret="never-used-here",  # noqa: S106 - nothing is sent
        token=about["token"],
        encoding_aes_key=about["aes_key"],
        base_url="http://127.0.0.1:9/cgi-bin/",
    )


def _wecom_bot(about: Json) -> Connector:
    from connectors.wecom_bot import WecomBot

    return WecomBot(
        ACCOUNT,
        bot_id=about["bot_id"],
        secret=about["secret"],
        bot_name=about["bot_name"],
        url=about["url"],
        ssl_context=ssl.create_default_context(cafile=about["ca_file"]),
    )


def _websocket(about: Json) -> Connector:
    from connectors.websocket import Protocol, WebSocket

    return WebSocket(
        ACCOUNT,
        url=about["url"],
        secret=about["secret"],
        login_by="line",
        protocol=Protocol(**about["protocol"]),
    )


def _webhook(about: Json) -> Connector:
    from connectors.webhook import Webhook

    return Webhook(ACCOUNT, secret=about["secret"])


def _github(about: Json) -> Connector:
    from connectors.github import GitHub

    return GitHub(ACCOUNT, secret=about["secret"])


def _alertmanager(about: Json) -> Connector:
    from connectors.alertmanager import Alertmanager

    return Alertmanager(ACCOUNT, token=about["token"])


_MAKERS: Final[dict[str, Callable[[Json], Connector]]] = {
    "slack": _slack,
    "discord": _discord,
    "mail": _mail,
    "exchange": _exchange,
    "xmpp": _xmpp,
    "wecom": _wecom,
    "wecom_bot": _wecom_bot,
    "websocket": _websocket,
    "webhook": _webhook,
    "github": _github,
    "alertmanager": _alertmanager,
}
