"""Passkeys: an honest key gets in, and every lie, replay and borrowed challenge stays outside."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import BadArguments, Denied, SealError
from parley.messages.model import now
from parley.people import principals, sessions
from parley.people.audit import Audit
from parley.people.lifetime import Lifetime
from parley.people.oidc_provider import Call
from parley.people.passkeys import Place
from parley.people.principals import Principal
from parley.people.sealing import Keyring
from parley.people.sessions import Kind, Origin, Session
from parley.people.sign_in import SignIn
from parley.store import schema
from parley.store.engine import Store
from tests.people.authenticator import PRESENT, Authenticator, text

PLACE = Place("console.example.org", "https://console.example.org")
HERE = {"address": "192.0.2.7"}


class Rules:
    lifetime = Lifetime()
    oidc: Mapping[str, Any] = {}


async def nothing(_call: Call) -> tuple[int, bytes]:
    raise AssertionError("there is no provider here")


class Bench:
    """Somebody who is signed in, and the desk."""

    def __init__(self, store: Store, keyring: Keyring, who: Principal, session: Session) -> None:
        self.store, self.keyring = store, keyring
        self.who, self.session = who, session
        self.sign_in = SignIn(store, keyring, Audit(keyring), rules=Rules, lines=tuple, send=nothing)
        self.desk = self.sign_in.passkeys

    async def register(self, name: str = "phone", **lie: Any) -> Authenticator:
        made = Authenticator(PLACE.rp_id, PLACE.origin)
        options, cookie = await self.desk.ask_for_new(self.who, self.session, PLACE)
        await self.desk.add(self.who, self.session, made.make(options, **lie), cookie, PLACE, name)
        return made

    async def enter(self, device: Authenticator, /, **lie: Any) -> str | None:
        options, cookie = self.desk.ask(PLACE)
        return await self.desk.sign_in(device.sign(options, **lie), cookie, PLACE, agent="", **HERE)


async def person(store: Store, keyring: Keyring, name: str) -> tuple[Principal, Session]:
    async def make(conn: AsyncConnection) -> tuple[Principal, Session]:
        who = await principals.get(conn, await principals.add_principal(conn, name))
        secret = await sessions.begin(conn, keyring, who.id, Origin(kind=Kind.CODE), Lifetime())
        session = await sessions.find(conn, keyring, secret, Lifetime())
        assert session is not None
        return who, session

    return await store.write(make)


@pytest.fixture
async def bench(store: Store) -> Bench:
    keyring = Keyring.generate()
    return Bench(store, keyring, *await person(store, keyring, "ann"))


async def test_one_is_made_used_and_taken_away_with_what_it_opened(bench: Bench) -> None:
    phone, other = await bench.register(), await bench.register("key ring")
    secret, kept = await bench.enter(phone), await bench.enter(other)
    assert secret is not None
    assert kept is not None
    found = await bench.sign_in.sessions.resolve(secret, touches=False)
    assert found is not None
    assert (found[0].name, found[1].kind) == ("ann", Kind.PASSKEY)
    mine = await bench.desk.of(bench.who)
    assert [one.name for one in mine] == ["phone", "key ring"]
    assert mine[0].used_at is not None
    assert await bench.desk.remove(bench.who, bench.session, mine[0].id)
    assert await bench.sign_in.sessions.resolve(secret, touches=False) is None
    assert await bench.sign_in.sessions.resolve(kept, touches=False) is not None
    assert await bench.enter(phone) is None
    actions = sa.select(schema.audit.c.action).where(schema.audit.c.phase == "outcome")

    async def told(conn: AsyncConnection) -> list[str]:
        return list((await conn.execute(actions.order_by(schema.audit.c.sequence))).scalars())

    assert await bench.store.read(told) == [
        "passkey-added",
        "passkey-added",
        "log-in",
        "log-in",
        "passkey-removed",
        "sessions-ended",
        "log-in-refused",
    ]


LIES: Mapping[str, dict[str, Any]] = {
    "another challenge": {"challenge": text(b"x" * 32)},
    "another page": {"origin": "https://evil.example"},
    "a page below": {"origin": "https://a.console.example.org"},
    "another site's name": {"rp_id": "evil.example"},
    "nobody verified": {"flags": PRESENT},
    "nobody present": {"flags": 0x04},
    "made, not used": {"type": "webauthn.create"},
    "another key": {"key": ec.generate_private_key(ec.SECP256R1())},
    "another person": {"user": text(b"somebody-else")},
    "nobody's": {"user": None},
    "a counter that stands still": {"count": 1},
    "a counter that goes back": {"count": 0},
}


@pytest.mark.parametrize("lie", LIES)
async def test_no_lie_opens(bench: Bench, lie: str) -> None:
    phone = await bench.register()
    assert await bench.enter(phone) is not None
    assert await bench.enter(phone, **LIES[lie]) is None
    phone.count = 5
    assert await bench.enter(phone) is not None, "the honest one gets in afterwards"


@pytest.mark.parametrize(
    "lie",
    ["another challenge", "another page", "another site's name", "nobody verified"],
)
async def test_no_lie_makes_a_passkey(bench: Bench, lie: str) -> None:
    lies = LIES[lie] | ({"flags": 0x41} if "flags" in LIES[lie] else {})
    with pytest.raises(BadArguments):
        await bench.register(**lies)
    assert await bench.desk.of(bench.who) == []


async def test_a_challenge_is_good_once_and_in_its_own_browser(bench: Bench) -> None:
    phone = await bench.register()
    options, cookie = bench.desk.ask(PLACE)
    answer = phone.sign(options)
    _, foreign = bench.desk.ask(PLACE)
    for wrong in (
        "",
        foreign,
        cookie[:-1],
        cookie + "a",
        "é.é",
        "W10.",
        "a" * 5000,
        cookie.replace(".", ".."),
    ):
        assert await bench.desk.sign_in(answer, wrong, PLACE, agent="", **HERE) is None, wrong
    # Another place of the same installation: the browser bound it to this one.
    elsewhere = Place("other.example.org", "https://other.example.org")
    assert await bench.desk.sign_in(answer, cookie, elsewhere, agent="", **HERE) is None
    assert await bench.desk.sign_in(answer, cookie, PLACE, agent="", **HERE) is not None
    assert await bench.desk.sign_in(phone.sign(options), cookie, PLACE, agent="", **HERE) is None


async def test_a_challenge_for_one_thing_is_none_for_another_nor_in_another_session(bench: Bench) -> None:
    phone = Authenticator(PLACE.rp_id, PLACE.origin)
    options, cookie = await bench.desk.ask_for_new(bench.who, bench.session, PLACE)
    answer = phone.make(options)
    bea, session = await person(bench.store, bench.keyring, "bea")
    with pytest.raises(BadArguments):
        await bench.desk.add(bea, session, answer, cookie, PLACE, "phone")
    _, login = bench.desk.ask(PLACE)
    with pytest.raises(BadArguments):
        await bench.desk.add(bench.who, bench.session, answer, login, PLACE, "phone")
    assert await bench.desk.sign_in(answer, cookie, PLACE, agent="", **HERE) is None
    await bench.desk.add(bench.who, bench.session, answer, cookie, PLACE, "phone")
    with pytest.raises(BadArguments):
        await bench.desk.add(bench.who, bench.session, answer, cookie, PLACE, "again")


async def test_a_session_that_is_old_changes_nothing(bench: Bench) -> None:
    phone = await bench.register()
    assert await bench.enter(phone)
    (one,) = await bench.desk.of(bench.who)
    old = Session(
        id=bench.session.id,
        principal_id=bench.who.id,
        kind=Kind.CODE,
        agent="",
        created_at=now() - timedelta(minutes=16),
        used_at=now(),
        expires_at=now() + timedelta(days=1),
    )
    with pytest.raises(Denied):
        await bench.desk.ask_for_new(bench.who, old, PLACE)
    with pytest.raises(Denied):
        await bench.desk.remove(bench.who, old, one.id)
    bea, session = await person(bench.store, bench.keyring, "bea")
    assert not await bench.desk.remove(bea, session, one.id)
    assert len(await bench.desk.of(bench.who)) == 1


async def test_who_writes_rows_gives_themselves_nobodys_rights(bench: Bench) -> None:
    """A row moved to another person, or a public key put in its place, opens nothing."""
    bea, session = await person(bench.store, bench.keyring, "bea")
    phone = await bench.register()
    theirs = Bench(bench.store, bench.keyring, bea, session)
    mallory = await theirs.register("mallory's")
    table = schema.passkey

    async def change(**values: Any) -> None:
        mine = table.c.credential_id == text(mallory.credential)
        await bench.store.write(lambda conn: conn.execute(sa.update(table).where(mine).values(**values)))

    await change(principal_id=bench.who.id)
    assert await bench.enter(mallory, user=phone.user) is None
    assert await bench.enter(mallory) is None
    await change(principal_id=bea.id)
    assert await bench.enter(mallory) is not None

    async def sealed(conn: AsyncConnection) -> bytes:
        query = sa.select(table.c.key_sealed).where(table.c.credential_id == text(phone.credential))
        return bytes((await conn.execute(query)).scalar_one())

    await change(key_sealed=await bench.store.read(sealed))
    with pytest.raises(SealError):
        await bench.enter(mallory)


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"id": 1},
        {"id": "é"},
        {"id": "a" * 2000},
        {"id": None, "response": None},
        {"id": "ok", "response": {"userHandle": {"a": 1}}},
        {"id": "ok", "response": {"clientDataJSON": "%%%"}},
        json.loads('{"id": ' + "[" * 500 + "]" * 500 + "}"),
    ],
)
async def test_what_is_no_answer_opens_nothing(bench: Bench, answer: dict[str, Any]) -> None:
    phone = await bench.register()
    _, cookie = bench.desk.ask(PLACE)
    answer = {**answer, "id": text(phone.credential)} if answer.get("id") == "ok" else answer
    assert await bench.desk.sign_in(answer, cookie, PLACE, agent="", **HERE) is None


async def test_the_cookie_holds_no_challenge(bench: Bench) -> None:
    options, cookie = bench.desk.ask(PLACE)
    body = base64.urlsafe_b64decode(cookie.partition(".")[0] + "==")
    challenge = base64.urlsafe_b64decode(options["challenge"] + "==")
    assert challenge.hex().encode() not in body
    assert challenge not in body
