"""Whoever makes us call an address reaches nothing inside: not this machine, not one's networks, not a cloud's keys."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import httpx
import pytest
import yarl
from pydantic import ValidationError

from blocks.rest_api import RestApi
from connectors._discord_messages import Messages
from connectors._discord_rest import Rest
from connectors._hook_post import Poster, target_of
from connectors._wecom_bot_media import NotToBeHad, client, fetch
from connectors._wecom_bot_read import Media
from connectors.slack import Slack
from parley.errors import ConfigurationError, Unreachable
from parley.people.oidc_provider import Call
from parley.processes.provider_calls import ProviderCalls
from parley.web.guarded_http import Forbidden, Guard, guarded_client
from tests.attacks.addresses import NAMES, Canary, Resolver, canary, spellings

ROOT: Final = Path(__file__).parents[2]

OUTGOING: Final = {
    "parley/web/guarded_http.py": "is the guard itself",
    "connectors/_hook_post.py": "guarded",
    "connectors/_wecom_bot_media.py": "guarded",
    "blocks/_rest_client.py": "guarded",
    "parley/processes/provider_calls.py": "guarded",
    "connectors/slack.py": "Slack's own hosts, or the one of its settings",
    "connectors/_discord_rest.py": "Discord's own hosts, or the one of its settings",
    "connectors/_wecom_http.py": "the address in its settings, and paths of ours",
    "connectors/_xmpp_files.py": "the place that our own server names for files, and no other",
    "connectors/_exchange_discover.py": "hosts of the mailbox's own domain, over TLS",
    "parley/web/client.py": "our own API, at the address that its user gives",
    "parley/runs/prefect_api.py": "Prefect, at the address of the settings",
    "parley/runs/container_gate.py": "Prefect, at the address of the settings",
}
"""Every file that makes an HTTP client, and why it leads to nobody that it should not."""

MAKES_A_CLIENT: Final = re.compile(
    r"httpx\.(?:Async)?Client\(|ClientSession\(|guarded_client\(|urlopen\(|requests\.(?:get|post|request|Session)\b"
)

Fetch = Callable[[str], Awaitable[object]]


def test_every_file_that_calls_out_is_known() -> None:
    found = {
        str(path.relative_to(ROOT))
        for package in ("parley", "connectors", "blocks", "flows")
        for path in (ROOT / package).rglob("*.py")
        if MAKES_A_CLIENT.search(path.read_text(encoding="utf-8"))
    }
    assert found == set(OUTGOING)


async def by_webhook(url: str) -> object:
    poster = Poster(target_of(url, "url"), "public")
    try:
        return await poster.post(b"{}", {})
    finally:
        await poster.aclose()


async def by_rest_api(url: str) -> object:
    called = RestApi(base_url=url).client()
    try:
        return await called.call("GET", "/x")
    finally:
        await called.aclose()


async def by_wecom_bot(url: str) -> object:
    async with client(None) as http:
        return await fetch(http, Media("file", url, ""))


async def by_provider(url: str) -> object:
    calls = ProviderCalls()
    try:
        return await calls.send(Call("GET", url, inside=False))
    finally:
        await calls.aclose()


async def by_guard(url: str) -> object:
    async with guarded_client(Guard(), timeout=httpx.Timeout(5)) as http:
        return await http.get(url)


PLACES: Final[dict[str, Fetch]] = {
    "webhook": by_webhook, "rest_api": by_rest_api, "wecom_bot": by_wecom_bot, "guard": by_guard,
    "provider": by_provider,
}  # fmt: skip

REFUSED: Final = (
    Forbidden,
    ConfigurationError,
    ValidationError,
    NotToBeHad,
    httpx.InvalidURL,
    httpx.UnsupportedProtocol,
)


async def is_refused(fetch_it: Fetch, url: str) -> bool:
    """Whether nothing was tried: a connection that was would end in another error, or in none."""
    try:
        await fetch_it(url)
    except NotToBeHad as error:
        return "ConnectError" not in str(error) and "Timeout" not in str(error)
    except Unreachable as error:
        return "cannot be found" in str(error) or isinstance(error.__cause__, REFUSED)
    except REFUSED:
        return True
    return False


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("place", PLACES)
async def test_no_spelling_leads_inside(place: str, scheme: str) -> None:
    async with canary() as here:
        urls = spellings(scheme, here.port)
        assert len(urls) >= 60
        tried = [url for url in urls if not await is_refused(PLACES[place], url)]
        assert tried == []
        assert here.arrived == 0
        assert await reaches(here), "the canary hears nobody: this test would see nothing"


async def reaches(here: Canary) -> bool:
    """Whether somebody without a guard reaches the canary."""
    with pytest.raises(httpx.HTTPError):
        async with httpx.AsyncClient(trust_env=False) as http:
            await http.get(f"http://127.0.0.1:{here.port}/")
    return here.arrived == 1


@pytest.mark.parametrize("name", NAMES)
async def test_no_name_leads_inside(name: str) -> None:
    """Also one that says something else the second time: the address that was looked at is the one that is called."""
    resolver = Resolver()
    async with canary() as here:
        poster = Poster(f"https://{name}:{here.port}/x", "public", look_up=resolver)
        for _ in range(2):
            with pytest.raises((Forbidden, Unreachable)):
                await poster.post(b"{}", {})
        await poster.aclose()
        assert here.arrived == 0


# -- those that call their platform's own hosts only

DISGUISED: Final = (
    "https://{host}.evil.example/x", "https://evil{host}/x", "https://evil.example/{host}",
    "https://evil.example#{host}",
    "https://evil.example?{host}", "https://evil.example\\.{host}/x", "https://evil.example\\@{host}.evil.example/x",
    "https://{host}@evil.example/x", "https://{host}:443@evil.example/x", "https://{host}%2eevil.example/x",
    "https://{host}\x00.evil.example/x", "https://{host}\n.evil.example/x", "https://{host}。evil.example/x",
    "https://evil.example／.{host}/x", "https://{host}:444/x", "http://{host}/x", "//{host}/x", "ftp://{host}/x",
    "https://{host}../x", "https://127.0.0.1/{host}", "https://[::1]/{host}", "https://{host}:0/x", "https:/{host}/x",
    "https:{host}", "https://.{host}.evil.example", "https://{host}%00.evil.example",
    "https://{host}\t@evil.example/",
)  # fmt: skip


def discord(url: str) -> bool:
    return Messages._is_discords(_OfDiscord(), url)  # type: ignore[arg-type]


class _OfDiscord:
    _rest = Rest("t")


def slack(url: str) -> bool:
    return Slack("a", bot_token="xoxb-1")._may_have_token(url)


@pytest.mark.parametrize(("may", "host", "family"), [
    (slack, "files.slack.com", "slack.com"), (discord, "cdn.discordapp.com", "cdn.discordapp.com"),
])  # fmt: skip
def test_no_disguise_passes_for_a_platforms_own_host(
    may: Callable[[str], bool], host: str, family: str
) -> None:
    """What passes is called by yarl's reading of it, which therefore has to name the platform's host too."""
    assert may(f"https://{host}/x")
    for template in DISGUISED:
        url = template.format(host=host)
        if not may(url):
            continue
        try:
            called = yarl.URL(url).host or ""
        except ValueError:
            continue  # nobody is called
        assert called == family or called.endswith(f".{family}"), url
