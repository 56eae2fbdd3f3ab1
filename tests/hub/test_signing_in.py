"""Signing in with a password and with a passkey, over a hub that lives: from hostile programs, and from Chromium."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from parley.messages.model import now
from parley.people import tokens
from parley.people.principals import Role
from parley.people.tokens import TokenKind
from parley.store import schema
from parley.web.wire import API
from tests.hub.rooms import World, world_in
from tests.web.devtools import Page, browser, chromium

PASSWORD = "seven quiet otters"
OTHER = "eight loud herons!"


@pytest.fixture
async def world(home: Path) -> AsyncIterator[World]:
    async with world_in(home) as living:
        yield living


Open = Callable[[], Awaitable[httpx.AsyncClient]]


@pytest.fixture
async def fresh(world: World) -> AsyncIterator[Open]:
    """Opens a browser that nobody is signed in with, on our own page."""
    async with AsyncExitStack() as stack:

        async def make() -> httpx.AsyncClient:
            base = f"http://localhost:{world.hub.settings.port}"
            client = httpx.AsyncClient(base_url=base, headers={"origin": base}, trust_env=False, timeout=30)
            return await stack.enter_async_context(client)

        yield make


async def link(world: World, name: str) -> str:
    (row,) = await world.rows(schema.principal, name=name)
    secret = await world.hub.store.write(lambda conn: tokens.issue(conn, row.id, TokenKind.LOGIN))
    return f"/login?code={secret}"


async def enter(client: httpx.AsyncClient, name: str, password: str, **more: Any) -> httpx.Response:
    return await client.post("/login", data={"name": name, "password": password}, **more)


async def with_password(world: World, fresh: Open, name: str = "ann") -> httpx.AsyncClient:
    """Somebody's browser, in which they came by a link and set a password."""
    await world.person(name, Role.USER)
    client = await fresh()
    await client.get(await link(world, name))
    said = await client.post("/account/password", json={"password": PASSWORD})
    assert said.status_code == 204, said.text
    return client


async def test_a_password_is_set_after_a_code_and_opens_from_then_on(world: World, fresh: Open) -> None:
    mine = await with_password(world, fresh)
    other = await fresh()
    done = await enter(other, " ANN ", PASSWORD)
    assert (done.status_code, done.headers["location"]) == (303, "/")
    cookies = done.headers.get_list("set-cookie")
    assert len(cookies) == 2
    assert all("HttpOnly" in one and "SameSite=strict" in one for one in cookies)
    assert (await other.get(f"{API}/me")).json()["name"] == "ann"
    state = (await other.get("/account/state")).json()
    assert state["password"] is True
    assert [one["kind"] for one in state["sessions"]] == ["code", "password"]
    # A change ends every other session, and only these.
    assert (await mine.post("/account/password", json={"password": OTHER})).status_code == 204
    assert (await other.get(f"{API}/me")).status_code == 401
    assert (await mine.get(f"{API}/me")).status_code == 200
    assert (await enter(other, "ann", PASSWORD)).status_code == 401
    assert (await enter(other, "ann", OTHER)).status_code == 303
    assert (await other.delete("/account/password")).status_code == 204
    assert (await mine.get(f"{API}/me")).status_code == 401
    assert (await enter(await fresh(), "ann", OTHER)).status_code == 401


async def test_what_is_wrong_is_not_told_and_nothing_of_it_is_kept(world: World, fresh: Open) -> None:
    await with_password(world, fresh)
    stranger = await fresh()
    answers = [
        await enter(stranger, name, guess)
        for name, guess in (("ann", "wrong guess 123"), ("nobody", PASSWORD), ("ann", ""), ("", ""))
    ]
    assert {one.status_code for one in answers} == {401}
    assert len({one.text for one in answers}) == 1
    assert all("set-cookie" not in one.headers for one in answers)
    rows = await world.rows(schema.audit, action="log-in-refused", phase="outcome")
    assert {(row.actor, row.subject) for row in rows} == {
        ("stranger", "person:ann"),
        ("stranger", "console"),
    }
    assert "wrong guess" not in str(rows)
    assert "nobody" not in str(rows)
    (kept,) = await world.rows(schema.password)
    assert b"argon2" not in bytes(kept.hash_sealed)


async def test_guesses_run_out_for_strangers_and_not_for_a_browser_that_is_known(
    world: World, fresh: Open
) -> None:
    await with_password(world, fresh)
    known = await fresh()
    assert (await enter(known, "ann", PASSWORD)).status_code == 303
    stranger = await fresh()
    codes = [(await enter(stranger, "ann", f"guess number {n}")).status_code for n in range(11)]
    assert codes[-1] == 429
    late = await enter(stranger, "ann", PASSWORD)
    assert late.status_code == 429, "the right one neither"
    assert 0 < int(late.headers["retry-after"]) <= 60
    assert re.search(r"Come again in \d+ seconds", late.text)
    assert "秒后重试" in (await enter(stranger, "ann", "x", headers={"accept-language": "zh"})).text
    assert (await enter(known, "ann", PASSWORD)).status_code == 303
    # A code always opens: nobody is locked out.
    assert (await stranger.get(await link(world, "ann"))).status_code == 200


async def test_a_bad_password_is_refused_with_the_reason_and_without_itself(
    world: World, fresh: Open
) -> None:
    mine = await with_password(world, fresh)
    for bad in ("short", "password1234", "x" * 900, "x" * 5000):
        said = await mine.post("/account/password", json={"password": bad})
        assert said.status_code in (400, 422), said.text
        assert bad not in said.text
    assert (await enter(mine, "ann", PASSWORD)).status_code == 303


async def test_an_old_session_has_to_sign_in_once_more(world: World, fresh: Open) -> None:
    mine = await with_password(world, fresh)
    then = now() - timedelta(minutes=16)
    await world.hub.store.write(lambda conn: conn.execute(sa.update(schema.session).values(created_at=then)))
    for method, path, body in (
        ("POST", "/account/password", {"password": OTHER}),
        ("DELETE", "/account/password", None),
        ("POST", "/account/passkeys/options", None),
    ):
        said = await mine.request(method, path, json=body)
        assert (said.status_code, "Sign in once more" in said.text) == (403, True), path
    assert (await enter(mine, "ann", PASSWORD)).status_code == 303


async def test_another_page_and_a_token_change_nothing(world: World, fresh: Open) -> None:
    mine = await with_password(world, fresh)
    owner = await world.hub.store.write(lambda conn: tokens.issue(conn, world.hub.owner_id, TokenKind.BEARER))
    for method, path in (
        ("POST", "/login"),
        ("POST", "/login/passkey/options"),
        ("POST", "/login/passkey"),
        ("POST", "/account/password"),
        ("DELETE", "/account/password"),
        ("POST", "/account/passkeys/options"),
        ("POST", "/account/passkeys"),
        ("DELETE", "/account/passkeys/x"),
    ):
        for origin in ("https://evil.example", "null", ""):
            said = await mine.request(method, path, headers={"origin": origin}, content=b"{}")
            assert said.status_code == 403, (method, path, origin)
        if path.startswith("/account"):
            async with httpx.AsyncClient(base_url=mine.base_url, trust_env=False) as program:
                said = await program.request(method, path, headers={"authorization": f"Bearer {owner}"})
                assert said.status_code == 401, (method, path)
    assert (await mine.get("/account/state")).json()["password"] is True
    # Nowhere is a way on to somebody else's page.
    done = await enter(mine, "ann", PASSWORD, params={"next": "https://evil.example", "returnTo": "//evil"})
    assert done.headers["location"] == "/"


async def test_from_the_machine_a_password_is_set_and_sessions_are_ended(world: World, fresh: Open) -> None:
    mine = await with_password(world, fresh)
    await world.hub.admin.run("person_password", {"name": "ann", "password": OTHER})
    assert (await mine.get(f"{API}/me")).status_code == 401
    assert (await enter(mine, "ann", OTHER)).status_code == 303
    (one,) = await world.hub.admin.run("person_sessions", {"name": "ann"})
    assert one["by"] == "password"
    assert await world.hub.admin.run("person_sessions_end", {"name": "ann"}) == 1
    assert (await mine.get(f"{API}/me")).status_code == 401
    await world.hub.people.remove("ann")
    assert await world.rows(schema.password) == []


async def test_from_the_machine_tokens_are_listed_and_revoked_with_what_they_opened(
    world: World, fresh: Open
) -> None:
    await world.person("ann", Role.USER)
    admin = world.hub.admin
    made = await admin.run("token", {"as_name": "ann", "label": "laptop", "days": 30})
    mine = await fresh()
    assert (await mine.post("/login", data={"secret": made["token"]})).status_code == 303
    async with httpx.AsyncClient(base_url=mine.base_url, trust_env=False) as program:
        program.headers["authorization"] = f"Bearer {made['token']}"
        assert (await program.get(f"{API}/me")).json()["name"] == "ann"
        (row,) = await admin.run("tokens", {"name": "ann"})
        assert (row["person"], row["kind"], row["label"]) == ("ann", "bearer", "laptop")
        assert made["token"] not in str(row)
        assert await admin.run("token_revoke", {"code": row["code"]}) == 1
        assert (await program.get(f"{API}/me")).status_code == 401
    assert (await mine.get(f"{API}/me")).status_code == 401
    assert await admin.run("tokens", {"name": "ann"}) == []
    assert await admin.run("tokens_revoke_all", {"name": "ann"}) == {"tokens": 0, "sessions": 0}
    rows = await world.rows(schema.audit, action="token-revoked", phase="outcome")
    assert [(row.actor, row.subject) for row in rows] == [("command line", "person:ann")]


async def test_a_passkey_is_not_for_an_address(world: World, fresh: Open) -> None:
    base = f"http://127.0.0.1:{world.hub.settings.port}"
    async with httpx.AsyncClient(base_url=base, headers={"origin": base}, trust_env=False) as client:
        said = await client.post("/login/passkey/options")
    assert said.status_code == 400
    assert "localhost" in said.text


# -- a real browser

needs_chromium = pytest.mark.skipif(chromium() is None, reason="Chromium is not here: make test-servers")


@pytest.fixture
async def page() -> AsyncIterator[Page]:
    async with browser("--lang=en-US", "--accept-lang=en-US") as opened:
        yield opened


async def virtual_key(page: Page, *, verifies: bool = True) -> str:
    await page.command("WebAuthn.enable")
    made = await page.command(
        "WebAuthn.addVirtualAuthenticator",
        options={
            "protocol": "ctap2",
            "transport": "internal",
            "hasResidentKey": True,
            "hasUserVerification": True,
            "isUserVerified": verifies,
            "automaticPresenceSimulation": True,
        },
    )
    return str(made["authenticatorId"])


@pytest.mark.browser
@pytest.mark.servers
@needs_chromium
async def test_a_person_signs_in_with_a_password_and_a_passkey_in_a_browser(world: World, page: Page) -> None:
    """By a link, then a password and a passkey are set on the page; each opens after logging out."""
    await world.person("ann", Role.USER)
    base = f"http://localhost:{world.hub.settings.port}"
    await virtual_key(page)
    await page.go(base + await link(world, "ann"))
    await page.until("location.pathname === '/' && !!document.querySelector('a[href=\"/account\"]')")
    await page.go(f"{base}/account")
    await page.until("document.querySelector('#who').textContent === 'ann'")
    await page.look("document.querySelector('#password').focus()")
    await page.type(PASSWORD)
    await page.enter()
    await page.until("document.querySelector('#password-state').textContent === 'You have a password.'")
    await page.look("document.querySelector('#passkey-name').focus()")
    await page.type("laptop")
    await page.enter()
    await page.until("document.querySelector('#passkeys').textContent.includes('laptop')")

    log_out = "fetch('/logout', {method: 'POST'}).then(() => location.assign('/login'))"
    await page.look(log_out)
    await page.until("location.pathname === '/login' && !document.querySelector('#passkey').hidden")
    await page.look("document.querySelector('#passkey').click()")
    await page.until("location.pathname === '/' && document.querySelector('#name')?.textContent === 'ann'")
    assert [row.kind for row in await world.rows(schema.session)] == ["passkey"]

    await page.look(log_out)
    await page.until("location.pathname === '/login' && !!document.querySelector('#name')")
    await page.look("document.querySelector('#name').focus()")
    await page.type("ann")
    await page.look("document.querySelector('#password').focus()")
    await page.type(PASSWORD)
    await page.enter()
    await page.until("location.pathname === '/' && document.querySelector('#name')?.textContent === 'ann'")
    assert [row.kind for row in await world.rows(schema.session)] == ["password"]

    await page.go(f"{base}/account")
    await page.until("document.querySelectorAll('#passkeys button').length === 1")
    await page.look("document.querySelector('#passkeys button').click()")
    await page.until("document.querySelector('#passkeys').textContent === 'You have no passkey.'")
    assert await world.rows(schema.passkey) == []
    await page.look("document.querySelector('#end-all').click()")
    await page.until("location.pathname === '/login'")
    assert await world.rows(schema.session) == []


@pytest.mark.browser
@pytest.mark.servers
@needs_chromium
async def test_a_key_that_verifies_nobody_opens_nothing(world: World, page: Page) -> None:
    await world.person("ann", Role.USER)
    base = f"http://localhost:{world.hub.settings.port}"
    key = await virtual_key(page)
    await page.go(base + await link(world, "ann"))
    await page.until("location.pathname === '/'")
    await page.go(f"{base}/account")
    await page.until("document.querySelector('#who').textContent === 'ann'")
    await page.look("document.querySelector('#passkey-name').focus()")
    await page.type("laptop")
    await page.enter()
    await page.until("document.querySelector('#passkeys').textContent.includes('laptop')")
    await page.command("WebAuthn.setUserVerified", authenticatorId=key, isUserVerified=False)
    await page.look("fetch('/logout', {method: 'POST'}).then(() => location.assign('/login'))")
    await page.until("location.pathname === '/login' && !document.querySelector('#passkey').hidden")
    await page.look("document.querySelector('#passkey').click()")
    await page.until("!document.querySelector('#failed').hidden")
    assert await world.rows(schema.session) == []
