"""Sessions of the console over a hub that lives: the cookie, `/sessions`, REST, and their end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from parley.messages.model import ConversationKind, now
from parley.people import tokens
from parley.people.principals import Principal, Role
from parley.people.tokens import TokenKind
from parley.store import schema
from parley.web.wire import API
from tests.hub.rooms import World, world_in

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


@pytest.fixture
async def world(home: Path) -> AsyncIterator[World]:
    async with world_in(home) as living:
        yield living


def base(world: World) -> str:
    return f"http://127.0.0.1:{world.hub.settings.port}"


Enter = Callable[[Principal], Awaitable[httpx.AsyncClient]]


@pytest.fixture
async def signed_in(world: World) -> AsyncIterator[Enter]:
    """Opens a browser that comes by a link."""
    async with AsyncExitStack() as stack:

        async def enter(who: Principal) -> httpx.AsyncClient:
            secret = await world.hub.store.write(lambda conn: tokens.issue(conn, who.id, TokenKind.LOGIN))
            headers = {"origin": base(world), "user-agent": FIREFOX}
            browser = await stack.enter_async_context(
                httpx.AsyncClient(base_url=base(world), headers=headers, trust_env=False)
            )
            entered = await browser.get("/login", params={"code": secret})
            assert entered.status_code == 200
            return browser

        yield enter


async def told(world: World, text: str, person: str, **more: Any) -> str:
    """What is answered to somebody in a direct conversation."""
    before = len(world.platforms.calls)
    kind = more.pop("kind", ConversationKind.DIRECT)
    await world.platforms.say(f"slack:D-{person}", text, person=person, addressed=True, kind=kind, **more)
    await world.settled()
    return "\n".join(
        call.reply.text
        + ("\n".join(" ".join(row) for row in call.reply.table.rows) if call.reply.table else "")
        for call in world.platforms.calls[before:]
    )


async def test_people_see_and_end_theirs_and_an_owner_everybodys(world: World, signed_in: Enter) -> None:
    ann, bea = await world.person("ann", Role.USER), await world.person("bea", Role.OWNER)
    first, second = await signed_in(ann), await signed_in(ann)
    shown = await told(world, "/sessions", "ann")
    assert shown.count("Firefox, Linux") == 2
    assert shown.count("code") == 2
    assert "Only the owner" in await told(world, "/sessions bea", "ann")
    assert "Only the owner" in await told(world, "/sessions end all bea", "ann")
    assert "no such session" in await told(world, "/sessions end 3", "ann")
    assert "direct conversation" in await told(world, "/sessions", "ann", kind=ConversationKind.CHANNEL)

    assert "1 session(s) of ann ended" in await told(world, "/sessions end 1", "ann")
    assert (await first.get(f"{API}/me")).status_code == 401
    assert (await second.get(f"{API}/me")).json()["name"] == "ann"
    assert (await told(world, "/sessions ann", "bea")).count("Firefox, Linux") == 1
    assert "1 session(s) of ann ended" in await told(world, "/sessions end all ann", "bea")
    assert (await second.get(f"{API}/me")).status_code == 401
    assert (await second.get("/")).headers["location"] == "/login"
    rows = await world.rows(schema.audit, action="sessions-ended", phase="outcome")
    assert [(row.actor, row.subject) for row in rows] == [("ann", "person:ann"), ("bea", "person:ann")]
    await world.hub.store.write(
        lambda conn: conn.execute(
            sa.update(schema.principal).where(schema.principal.c.id == bea.id).values(language="zh")
        )
    )
    await signed_in(bea)
    assert "登录码" in await told(world, "/sessions", "bea")
    assert "已结束 bea 的 1 个会话" in await told(world, "/sessions 结束 全部", "bea")


async def test_over_rest_too_and_never_anothers(world: World, signed_in: Enter) -> None:
    ann, bea = await world.person("ann", Role.USER), await world.person("bea", Role.USER)
    mine, theirs = await signed_in(ann), await signed_in(bea)
    (one,) = (await mine.get(f"{API}/sessions")).json()
    assert (one["kind"], one["agent"]) == ("code", "Firefox, Linux")
    assert (await theirs.delete(f"{API}/sessions/{one['id']}")).status_code == 404
    assert (await theirs.delete(f"{API}/sessions/{one['id']}", params={"person": "ann"})).status_code == 403
    assert (await mine.get(f"{API}/sessions", params={"person": "bea"})).status_code == 403
    assert (await mine.delete(f"{API}/sessions/{one['id']}")).status_code == 204
    assert (await mine.get(f"{API}/sessions")).status_code == 401


async def test_a_sign_in_gives_a_new_secret_and_logging_out_ends_it(world: World) -> None:
    """Whoever put a cookie there before, or took one before the end, has nothing by it."""
    ann = await world.person("ann", Role.USER)
    secret = await world.hub.store.write(lambda conn: tokens.issue(conn, ann.id, TokenKind.LOGIN))
    name = f"parley_session_{world.hub.settings.port}"
    async with httpx.AsyncClient(base_url=base(world), headers={"origin": base(world)}) as browser:
        planted = {"cookie": f"{name}=parley_{'a' * 65}"}
        entered = await browser.get("/login", params={"code": secret}, headers=planted)
        (set_cookie,) = entered.headers.get_list("set-cookie")
        assert "HttpOnly" in set_cookie
        assert "SameSite=strict" in set_cookie
        stolen = browser.cookies[name]
        assert stolen != "parley_" + "a" * 65
        assert (await browser.get(f"{API}/me")).status_code == 200
        assert (await browser.get(f"{API}/me", headers=planted)).status_code == 401
        assert (await browser.post("/logout")).status_code == 303
    async with httpx.AsyncClient(base_url=base(world), cookies={name: stolen}) as thief:
        assert (await thief.get(f"{API}/me")).status_code == 401
    assert await world.rows(schema.session) == []


async def test_use_keeps_it_alive_and_is_written_now_and_then(world: World, signed_in: Enter) -> None:
    browser = await signed_in(await world.person("ann", Role.USER))

    async def used() -> Any:
        (row,) = await world.rows(schema.session)
        return row.used_at

    at = await used()
    await browser.get(f"{API}/me")
    assert await used() == at, "a write for every request is too much"
    before = now() - timedelta(hours=11)
    await world.hub.store.write(
        lambda conn: conn.execute(sa.update(schema.session).values(used_at=before, created_at=before))
    )
    assert (await browser.get(f"{API}/me")).status_code == 200
    assert await used() > at - timedelta(seconds=1)


async def test_who_is_removed_is_signed_out_at_once(world: World, signed_in: Enter) -> None:
    browser = await signed_in(await world.person("ann", Role.USER))
    assert (await browser.get(f"{API}/me")).status_code == 200
    await world.hub.people.remove("ann")
    assert (await browser.get(f"{API}/me")).status_code == 401
    assert await world.rows(schema.session) == []
