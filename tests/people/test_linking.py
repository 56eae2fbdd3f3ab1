"""Codes that link accounts: one use, ten minutes, five tries, and nothing of them that could be read in the store."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import sqlalchemy as sa

from parley.errors import PolicyError
from parley.messages.model import Assurance, now
from parley.people import linking, principals
from parley.people.linking import ALPHABET, LASTS, MOST_TRIES, CodeKind, Redeemed
from parley.people.principals import Role
from parley.people.sealing import Keyring
from parley.store import schema
from parley.store.engine import Store

KEYS = Keyring.generate()


async def add(store: Store, name: str = "ann") -> str:
    return await store.write(lambda conn: principals.add_principal(conn, name, role=Role.USER))


async def code_for(store: Store, who: str, kind: CodeKind = CodeKind.LINK) -> str:
    return await store.write(lambda conn: linking.issue(conn, KEYS, who, kind))


async def redeem(store: Store, said: str, user: str = "U1") -> Redeemed | None:
    return await store.write(lambda conn: linking.redeem(conn, KEYS, said, "slack", user))


async def rows(store: Store) -> list[Any]:
    async def fetch(conn: Any) -> list[Any]:
        return list((await conn.execute(sa.select(schema.link_code))).all())

    return await store.read(fetch)


def wrong(code: str) -> str:
    """The same selector, another secret."""
    return code[:-1] + next(letter for letter in ALPHABET if letter != code[-1])


async def test_a_code_links_once(store: Store) -> None:
    ann = await add(store)
    code = await code_for(store, ann)
    assert len(code.replace("-", "")) == 12
    assert set(code.replace("-", "")) <= set(ALPHABET)
    assert not set("01ILOZ25SB8UVG") & set(ALPHABET)
    done = await redeem(store, code)
    assert done is not None
    assert (done.principal.name, done.kind) == ("ann", CodeKind.LINK)
    link = await store.read(lambda conn: principals.find_by_identity(conn, "slack", "U1"))
    assert link is not None
    assert (link.principal.id, link.verified) == (ann, False)
    assert link.assurance(Assurance.CLAIMED) is Assurance.CLAIMED
    assert await redeem(store, code, "U2") is None
    assert await store.read(lambda conn: principals.find_by_identity(conn, "slack", "U2")) is None


@pytest.mark.parametrize("shape", ["{}", "  {} ", "`{}`"])
async def test_it_is_read_however_it_is_typed(store: Store, shape: str) -> None:
    code = await code_for(store, await add(store))
    assert await redeem(store, shape.format(code.lower().replace("-", " "))) is not None


async def test_of_two_who_come_at_once_one_is_linked(store: Store) -> None:
    code = await code_for(store, await add(store))
    done = await asyncio.gather(*(redeem(store, code, f"U{number}") for number in range(4)))
    assert len([one for one in done if one]) == 1


async def test_five_wrong_tries_end_it(store: Store) -> None:
    code = await code_for(store, await add(store))
    for _ in range(MOST_TRIES - 1):
        assert await redeem(store, wrong(code)) is None
    assert await store.read(lambda conn: linking.is_good(conn, KEYS, code))
    await store.write(lambda conn: linking.tried(conn, KEYS, wrong(code)))
    assert await redeem(store, code) is None


async def test_looking_counts_nothing_and_a_good_one_is_not_counted(store: Store) -> None:
    code = await code_for(store, await add(store))
    for _ in range(2 * MOST_TRIES):
        assert not await store.read(lambda conn: linking.is_good(conn, KEYS, wrong(code)))
        await store.write(lambda conn: linking.tried(conn, KEYS, code))
    assert await redeem(store, code) is not None


@pytest.mark.parametrize("kind", list(CodeKind))
async def test_it_is_good_for_so_long(store: Store, kind: CodeKind) -> None:
    code = await code_for(store, await add(store), kind)
    (row,) = await rows(store)
    assert abs((row.expires_at - now() - LASTS[kind]).total_seconds()) < 60
    await store.write(lambda conn: conn.execute(sa.update(schema.link_code).values(expires_at=now())))
    assert await redeem(store, code) is None


async def test_a_new_code_voids_the_one_before(store: Store) -> None:
    ann, bob = await add(store), await add(store, "bob")
    first, other = await code_for(store, ann), await code_for(store, bob)
    second = await code_for(store, ann)
    assert await redeem(store, first) is None
    assert await redeem(store, second) is not None
    assert await redeem(store, other, "U2") is not None


async def test_nobody_becomes_somebody_who_is_gone_or_somebody_elses(store: Store) -> None:
    ann, bob = await add(store), await add(store, "bob")
    code = await code_for(store, ann)
    await store.write(lambda conn: principals.disable(conn, ann))
    assert await redeem(store, code) is None
    await store.write(lambda conn: principals.link_identity(conn, bob, "slack", "U1"))
    carol = await add(store, "carol")
    code = await code_for(store, carol)
    with pytest.raises(PolicyError):
        await redeem(store, code)
    assert await redeem(store, code, "U3") is not None, "what was refused has not used it up"


async def test_what_others_have_read_is_void(store: Store) -> None:
    code = await code_for(store, await add(store))
    assert not await store.write(lambda conn: linking.void_said(conn, KEYS, wrong(code)))
    assert await store.write(lambda conn: linking.void_said(conn, KEYS, code))
    assert await redeem(store, code) is None


async def test_only_a_keyed_hash_is_kept(store: Store) -> None:
    code = (await code_for(store, await add(store))).replace("-", "")
    (row,) = await rows(store)
    assert code[4:] not in str(row)
    other = Keyring.generate()
    assert not await store.read(lambda conn: linking.is_good(conn, other, code))


@pytest.mark.parametrize(
    "said", ["", "x", "-" * 12, "A" * 12, "A" * 5000, "ＡＡＡＡ" * 3, "' OR 1=1 --", "\x00" * 12]
)
async def test_what_is_no_code_does_nothing(store: Store, said: str) -> None:
    await code_for(store, await add(store))
    assert await redeem(store, said) is None
    assert [row.tries for row in await rows(store)] == [0]
