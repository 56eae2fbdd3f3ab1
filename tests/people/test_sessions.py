"""Sessions: found by their secret alone, ended by time, by number, and with the person."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.messages.model import now
from parley.people import principals, sessions
from parley.people.lifetime import Lifetime
from parley.people.sealing import Keyring
from parley.people.sessions import Kind, Origin
from parley.store import schema
from parley.store.engine import Store

LIFETIME = Lifetime()
CHROME = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/140.0.0.0 Safari/537.36"


@pytest.fixture(scope="module")
def keyring() -> Keyring:
    return Keyring.generate()


async def person(store: Store, name: str = "ann") -> str:
    return await store.write(lambda conn: principals.add_principal(conn, name))


async def begin(store: Store, keyring: Keyring, who: str, **origin: Any) -> str:
    made = Origin(**{"kind": Kind.CODE, "agent": CHROME} | origin)
    return await store.write(lambda conn: sessions.begin(conn, keyring, who, made, LIFETIME))


async def found(store: Store, keyring: Keyring, secret: str, lifetime: Lifetime = LIFETIME) -> Any:
    return await store.read(lambda conn: sessions.find(conn, keyring, secret, lifetime))


async def change(store: Store, **values: Any) -> None:
    await store.write(lambda conn: conn.execute(sa.update(schema.session).values(**values)))


async def test_only_the_whole_secret_finds_it_and_the_row_holds_none_of_it(
    store: Store, keyring: Keyring
) -> None:
    ann = await person(store)
    secret = await begin(store, keyring, ann)
    session = await found(store, keyring, secret)
    assert (session.principal_id, session.kind, session.agent) == (ann, Kind.CODE, "Chrome, Linux")
    for wrong in (secret[:-1], secret + "a", secret[:-1] + "\ud800", "", "parley_", secret.swapcase()):
        assert await found(store, keyring, wrong) is None
    (row,) = await store.read(rows)
    proof = secret.removeprefix(sessions.PREFIX)[sessions.SELECTOR :]
    assert len(proof) == 43
    assert proof not in str(row)
    # The hash is keyed: who only has the database cannot make one for a secret of their own.
    assert await found(store, Keyring.generate(), secret) is None


async def test_a_clock_that_is_set_back_makes_no_sign_in_recent(store: Store, keyring: Keyring) -> None:
    secret = await begin(store, keyring, await person(store))
    for begun, recent in ((0, True), (14, True), (-0.5, True), (15.5, False), (-2, False), (-600, False)):
        await change(store, created_at=now() - timedelta(minutes=begun))
        session = await found(store, keyring, secret)
        assert session.is_recent is recent, begun


async def rows(conn: AsyncConnection) -> list[Any]:
    return list((await conn.execute(sa.select(schema.session))).all())


async def test_it_ends_unused_and_in_any_case(store: Store, keyring: Keyring) -> None:
    secret = await begin(store, keyring, await person(store))
    await change(store, used_at=now() - LIFETIME.idle - timedelta(seconds=1))
    assert await found(store, keyring, secret) is None
    await change(store, used_at=now(), created_at=now() - LIFETIME.longest + timedelta(minutes=1))
    assert await found(store, keyring, secret) is not None
    assert await found(store, keyring, secret, Lifetime(longest=timedelta(days=1))) is None
    await change(store, expires_at=now())
    assert await found(store, keyring, secret) is None
    # The next one to begin sweeps it out.
    await begin(store, keyring, await person(store, "bea"))
    assert len(await store.read(rows)) == 1


async def test_disabling_ends_all_and_enabling_brings_none_back(store: Store, keyring: Keyring) -> None:
    ann, bea = await person(store), await person(store, "bea")
    secret, other = await begin(store, keyring, ann), await begin(store, keyring, bea)
    await store.write(lambda conn: principals.disable(conn, ann))
    await store.write(lambda conn: principals.enable(conn, ann))
    assert await found(store, keyring, secret) is None
    assert await found(store, keyring, other) is not None


async def test_with_one_too_many_the_one_unused_for_longest_ends(store: Store, keyring: Keyring) -> None:
    ann = await person(store)
    secrets = [await begin(store, keyring, ann) for _ in range(sessions.MOST)]
    oldest = await found(store, keyring, secrets[3])
    await store.write(
        lambda conn: conn.execute(
            sa.update(schema.session)
            .where(schema.session.c.id == oldest.id)
            .values(used_at=now() - timedelta(hours=1))
        )
    )
    secrets.append(await begin(store, keyring, ann))
    alive = [await found(store, keyring, secret) is not None for secret in secrets]
    assert alive == [True] * 3 + [False] + [True] * (sessions.MOST - 3)


async def test_a_passkey_and_a_provider_take_what_they_opened(store: Store, keyring: Keyring) -> None:
    ann = await person(store)
    by_key = await begin(store, keyring, ann, kind=Kind.PASSKEY, passkey_id="k1")
    there = {"kind": Kind.OIDC, "issuer": "https://id.example", "subject": "a", "provider_session": "s1"}
    first = await begin(store, keyring, ann, **there)
    second = await begin(store, keyring, ann, **there | {"provider_session": "s2"})
    kept = await begin(store, keyring, ann, **there | {"issuer": "https://other.example"})

    async def end(conn: AsyncConnection, **which: Any) -> list[str]:
        return await sessions.end_of_provider(conn, "https://id.example", **which)

    assert await store.write(lambda conn: end(conn, subject=None, provider_session=None)) == []
    assert await store.write(lambda conn: end(conn, subject="b", provider_session="s1")) == []
    assert await store.write(lambda conn: end(conn, subject=None, provider_session="s1")) == ["ann"]
    assert await found(store, keyring, first) is None
    assert await found(store, keyring, second) is not None
    assert await store.write(lambda conn: end(conn, subject="a", provider_session=None)) == ["ann"]
    assert await store.write(lambda conn: sessions.end_all(conn, ann, passkey_id="k1")) == 1
    assert [await found(store, keyring, secret) is not None for secret in (by_key, second, kept)] == [
        False,
        False,
        True,
    ]


@pytest.mark.parametrize(
    ("agent", "said"),
    [
        (CHROME, "Chrome, Linux"),
        (CHROME + " Edg/140.0", "Edge, Linux"),
        (
            "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) Version/18.0 Safari/604.1",
            "Safari, iPhone",
        ),
        ("curl/8.0", ""),
        ("<script>" * 10_000, ""),
    ],
)
def test_of_a_browser_little_is_kept(agent: str, said: str) -> None:
    assert sessions.coarse(agent) == said
