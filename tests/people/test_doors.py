"""The ways in at the console, as programs that guess meet them: what is counted, for whom, at which door."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import Denied, ParleyError, PolicyError, RateLimited, Rejected, Unreachable
from parley.people import principals, sessions, tokens
from parley.people.audit import Audit
from parley.people.id_tokens import LOGOUT_EVENT
from parley.people.lifetime import Lifetime
from parley.people.oidc import Answer
from parley.people.oidc_provider import Call, Send
from parley.people.passkeys import Place
from parley.people.passwords import MOST_WAITING
from parley.people.principals import Principal
from parley.people.sealing import Keyring
from parley.people.sessions import Kind, Origin, Session
from parley.people.sign_in import SignIn
from parley.people.tokens import TokenKind
from parley.store import schema
from parley.store.engine import Store
from tests.people.authenticator import Authenticator
from tests.people.provider import REDIRECT, About, FakeProvider

PASSWORD = "seven quiet otters"
PLACE = Place("console.example.org", "https://console.example.org")
HERE: dict[str, Any] = {"address": "192.0.2.7"}


async def nobody(_call: Call) -> tuple[int, bytes]:
    """A provider that cannot be reached."""
    raise Unreachable("nobody answers")


class Rules:
    def __init__(self) -> None:
        self.lifetime = Lifetime()
        self.oidc: dict[str, About] = {"corp": About()}


class Doors:
    """Every way in, over one store."""

    def __init__(self, store: Store, send: Send | None = None) -> None:
        self.store, self.keyring = store, Keyring.generate()
        self.provider = FakeProvider()
        rules = Rules()
        self.sign_in = SignIn(
            store,
            self.keyring,
            Audit(self.keyring),
            rules=lambda: rules,
            lines=tuple,
            send=send or self.provider.send,
        )

    async def with_passkey(self, name: str) -> Authenticator:
        """Somebody's key."""

        async def make(conn: AsyncConnection) -> Any:
            who = await principals.get(conn, await principals.add_principal(conn, name))
            secret = await sessions.begin(conn, self.keyring, who.id, Origin(kind=Kind.CODE), Lifetime())
            return who, await sessions.find(conn, self.keyring, secret, Lifetime())

        who, session = await self.store.write(make)
        made = Authenticator(PLACE.rp_id, PLACE.origin)
        options, cookie = await self.sign_in.passkeys.ask_for_new(who, session, PLACE)
        await self.sign_in.passkeys.add(who, session, made.make(options), cookie, PLACE, "phone")
        return made

    async def enter_by_provider(self, address: str = HERE["address"]) -> str | None:
        """There and back; the session's secret."""
        where, cookie = await self.sign_in.oidc.begin("corp", REDIRECT, address=address)
        answer = Answer(**self.provider.sign_in(where))
        found = await self.sign_in.oidc.come_back("corp", answer, cookie, address=address, agent="")
        return found.secret if found else None

    async def rows(self, table: sa.Table) -> list[Any]:
        async def fetch(conn: AsyncConnection) -> list[Any]:
            return list((await conn.execute(sa.select(table))).all())

        return await self.store.read(fetch)

    async def person(self, name: str) -> str:
        return await self.store.write(lambda conn: principals.add_principal(conn, name))

    async def guess(self, name: str, password: str, address: str) -> tuple[str, str] | None:
        return await self.sign_in.passwords.sign_in(name, password, address=address, agent="", mark="")


@pytest.fixture
async def doors(store: Store) -> Doors:
    return Doors(store)


async def answer_of(asked: Any) -> Any:
    """What comes back, or the error."""
    try:
        return await asked
    except ParleyError as error:
        return error


async def test_what_waits_for_no_turn_uses_up_no_tries(doors: Doors) -> None:
    """Whoever asks for more than can be computed takes none of the tries of the names they ask for."""
    await doors.person("ann")
    await doors.sign_in.passwords.set_at_the_machine("ann", PASSWORD, actor="command line")
    assert await doors.guess("bea", "wrong guess 1", "192.0.2.1") is None
    tries = [answer_of(doors.guess("ann", "wrong guess 2", f"198.51.100.{n}")) for n in range(30)]
    done = await asyncio.gather(*tries)
    refused = [one for one in done if isinstance(one, RateLimited)]
    assert len(refused) >= 30 - MOST_WAITING - 1, "one may have had its turn meanwhile"
    assert {one.retry_after for one in refused} == {5}, "the queue refused them, not the name's tries"
    assert await doors.guess("ann", PASSWORD, "203.0.113.1") is not None


# -- every door for itself


async def refusals(asked: Any, times: int) -> list[Any]:
    """What comes of asking again and again, each answer once, in order."""
    answers = [await answer_of(asked()) for _ in range(times)]
    return list(dict.fromkeys(type(one) if isinstance(one, ParleyError) else one for one in answers))


async def test_wrong_codes_are_refused_after_some_and_a_right_one_opens_all_the_same(doors: Doors) -> None:
    """Behind a proxy everybody has one address: who tries codes there keeps nobody out."""
    ann = await doors.person("ann")

    async def code(kind: TokenKind) -> str:
        return await doors.store.write(lambda conn: tokens.issue(conn, ann, kind))

    assert await refusals(lambda: doors.sign_in.with_secret("x", **HERE), 150) == [None, RateLimited]
    assert await doors.sign_in.with_secret(await code(TokenKind.LOGIN), **HERE)
    once = await code(TokenKind.LOGIN)
    both = await asyncio.gather(*(answer_of(doors.sign_in.with_secret(once, **HERE)) for _ in range(2)))
    assert sum(isinstance(one, str) for one in both) == 1, "of two who come with it at once, one gets in"
    # The others do not hear of it.
    assert await doors.enter_by_provider() is not None
    assert doors.sign_in.passkeys.ask(PLACE)


async def test_wrong_passkeys_keep_no_passkey_out(doors: Doors) -> None:
    key = await doors.with_passkey("ann")
    desk = doors.sign_in.passkeys
    stranger = Authenticator(PLACE.rp_id, PLACE.origin, user=key.user)

    async def wrong() -> str | None:
        options, cookie = desk.ask(PLACE)
        return await desk.sign_in(stranger.sign(options), cookie, PLACE, agent="", **HERE)

    async def without_cookie() -> str | None:
        return await desk.sign_in(stranger.sign(desk.ask(PLACE)[0]), "", PLACE, agent="", **HERE)

    assert await refusals(wrong, 150) == [None, RateLimited]
    assert await refusals(without_cookie, 1) == [RateLimited]
    options, cookie = desk.ask(PLACE)
    assert await desk.sign_in(key.sign(options), cookie, PLACE, agent="", **HERE)


async def test_answers_that_nobody_asked_for_close_no_provider(doors: Doors) -> None:
    """What has no cookie of ours costs nothing and counts nothing; wrong codes of an asked question are counted."""
    desk = doors.sign_in.oidc

    async def unasked() -> object:
        return await desk.come_back("corp", Answer(code="c", state="s"), "", agent="", **HERE)

    assert await refusals(unasked, 100) == [None]
    assert await doors.enter_by_provider() is not None

    async def wrong() -> object:
        address, cookie = await desk.begin("corp", REDIRECT, **HERE)
        answer = doors.provider.sign_in(address) | {"code": "wrong"}
        return await desk.come_back("corp", Answer(**answer), cookie, agent="", **HERE)

    assert (await refusals(wrong, 150)) == [None, RateLimited]
    elsewhere = {"address": "198.51.100.1"}
    assert await doors.enter_by_provider(**elsewhere) is not None


async def test_many_may_go_to_a_provider_that_answers_and_few_to_one_that_does_not(doors: Doors) -> None:
    async def begin() -> str:
        await doors.sign_in.oidc.begin("corp", REDIRECT, **HERE)
        return "there"

    assert await refusals(begin, 100) == ["there"]
    down = Doors(doors.store, nobody)
    calls = await refusals(lambda: down.sign_in.oidc.begin("corp", REDIRECT, **HERE), 150)
    assert calls == [Unreachable, RateLimited]


async def test_a_logout_is_heard_whatever_strangers_send(doors: Doors) -> None:
    """A provider behind the same proxy: what left there leaves here."""
    desk = doors.sign_in.oidc
    secret = await doors.enter_by_provider()
    assert secret is not None
    assert await refusals(lambda: desk.end_there("corp", "a.b.c", **HERE), 200) == [Rejected]
    assert await refusals(lambda: doors.sign_in.with_secret("x", **HERE), 150) == [None, RateLimited]
    token = doors.provider.token(events={LOGOUT_EVENT: {}}, jti="j1")
    assert await desk.end_there("corp", token, **HERE) == 1
    assert await doors.sign_in.sessions.resolve(secret, touches=False) is None


async def test_a_provider_that_cannot_be_reached_is_not_asked_for_every_logout(doors: Doors) -> None:
    down = Doors(doors.store, nobody)
    asked = await refusals(lambda: down.sign_in.oidc.end_there("corp", "a.b.c", **HERE), 150)
    assert asked == [Unreachable, RateLimited]


# -- tokens, and what began with them


async def token_of(doors: Doors, who: str, **more: Any) -> str:
    return await doors.store.write(lambda conn: tokens.issue(conn, who, TokenKind.BEARER, **more))


async def session_of(doors: Doors, secret: str | None) -> Session | None:
    found = await doors.sign_in.sessions.resolve(secret or "", touches=False)
    return found[1] if found else None


async def test_a_revoked_token_ends_with_the_sessions_that_it_began_and_no_others(doors: Doors) -> None:
    ann, bea = await doors.person("ann"), await doors.person("bea")
    first, second = await token_of(doors, ann, label="laptop"), await token_of(doors, ann)
    hers = await token_of(doors, bea)
    code = await doors.store.write(lambda conn: tokens.issue(conn, ann, TokenKind.LOGIN))
    browsers = [await doors.sign_in.with_secret(one, **HERE) for one in (first, second, hers, code, first)]

    async def alive() -> list[bool]:
        return [await session_of(doors, one) is not None for one in browsers]

    desk = doors.sign_in.tokens
    listed = await desk.good_ones("ann")
    assert [(one.person, one.label) for one in listed] == [("ann", "laptop"), ("ann", None)]
    assert first not in str(listed)
    assert await alive() == [True] * 5
    assert await desk.revoke(listed[0].id[-8:], actor="command line") == 2
    assert await alive() == [False, True, True, True, False]
    assert await doors.sign_in.with_secret(first, **HERE) is None
    for wrong in (listed[0].id, "", "%", "________", "x" * 40, listed[0].id[-7:]):
        with pytest.raises(PolicyError):
            await desk.revoke(wrong, actor="command line")
    assert await desk.revoke_all("ann", actor="command line") == (1, 1)
    assert await alive() == [False, False, True, True, False]
    assert [one.person for one in await desk.good_ones()] == ["bea"]
    told = [row for row in await doors.rows(schema.audit) if row.phase == "outcome"]
    assert [(row.action, row.actor, row.subject) for row in told if row.actor == "command line"] == [
        ("token-revoked", "command line", "person:ann"),
        ("sessions-ended", "command line", "person:ann"),
    ] * 2


async def test_a_session_of_before_ends_with_any_token_and_one_with_its_token_in_time(doors: Doors) -> None:
    """Sessions that began before it was kept with which token could be of any."""
    ann = await doors.person("ann")
    secret = await token_of(doors, ann)
    browser = await doors.sign_in.with_secret(secret, **HERE)
    await doors.store.write(lambda conn: conn.execute(sa.update(schema.session).values(subject=None)))
    (one,) = await doors.sign_in.tokens.good_ones()
    assert await doors.sign_in.tokens.revoke(one.id, actor="command line") == 1
    assert await session_of(doors, browser) is None
    short = await token_of(doors, ann, ttl=timedelta(hours=1))
    found = await session_of(doors, await doors.sign_in.with_secret(short, **HERE))
    (row,) = await doors.sign_in.tokens.good_ones()
    assert found is not None
    assert found.expires_at == row.expires_at


@pytest.mark.parametrize("way", ["password", "passkey", "provider"])
async def test_a_token_changes_what_one_signs_in_with_only_where_there_is_nothing_else(
    doors: Doors, way: str
) -> None:
    """A token that leaked must not become a password that outlives it."""
    ann = await doors.person("ann")
    secret = await token_of(doors, ann)

    async def by_token() -> tuple[Principal, Session]:
        found = await doors.sign_in.sessions.resolve(
            await doors.sign_in.with_secret(secret, **HERE) or "", touches=False
        )
        assert found is not None
        return found

    who, session = await by_token()
    assert session.is_recent
    if way == "password":
        await doors.sign_in.passwords.set(who, session, PASSWORD)
    elif way == "passkey":
        made = Authenticator(PLACE.rp_id, PLACE.origin)
        options, cookie = await doors.sign_in.passkeys.ask_for_new(who, session, PLACE)
        await doors.sign_in.passkeys.add(who, session, made.make(options), cookie, PLACE, "phone")
    else:
        desk = doors.sign_in.oidc
        where, cookie = await desk.begin("corp", REDIRECT, link=(who, session), **HERE)
        answer = Answer(**doors.provider.sign_in(where))
        assert await desk.come_back("corp", answer, cookie, agent="", **HERE)
    _, listed = await doors.sign_in.sessions.of(who)
    for late in ((await by_token())[1], listed[0]):
        assert not late.is_recent
        for change in (
            doors.sign_in.passwords.set(who, late, "eight loud herons!"),
            doors.sign_in.passwords.remove(who, late),
            doors.sign_in.passkeys.remove(who, late, "any"),
            doors.sign_in.oidc.disconnect(who, late, "corp"),
        ):
            assert isinstance(await answer_of(change), Denied)
    code = await doors.store.write(lambda conn: tokens.issue(conn, ann, TokenKind.LOGIN))
    by_code = await session_of(doors, await doors.sign_in.with_secret(code, **HERE))
    assert by_code is not None
    assert by_code.is_recent
