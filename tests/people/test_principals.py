from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial

import pytest
import sqlalchemy as sa

from parley.errors import PolicyError
from parley.messages.model import Assurance
from parley.people import principals, tokens
from parley.people.principals import PrincipalKind, Role
from parley.people.tokens import TokenKind
from parley.store.engine import Store
from parley.store.schema import token


async def add(store: Store, name: str, role: Role = Role.USER) -> str:
    return await store.write(lambda conn: principals.add_principal(conn, name, role=role))


async def test_there_is_one_owner_however_often_we_start(store: Store) -> None:
    ids = await asyncio.gather(
        *(store.write(lambda conn: principals.ensure_owner(conn, "owner")) for _ in range(3))
    )
    assert len(set(ids)) == 1
    (owner,) = await store.read(principals.list_principals)
    assert (owner.id, owner.name, owner.role, owner.enabled) == (ids[0], "owner", Role.OWNER, True)


async def test_a_principal_comes_back_as_it_was_added(store: Store) -> None:
    made = await store.write(
        lambda conn: principals.add_principal(
            conn,
            "alerts",
            kind=PrincipalKind.SERVICE,
            role=Role.OPERATOR,
            automations=["repair-*"],
            language="zh",
            time_zone="Asia/Shanghai",
        )
    )
    found = await store.read(lambda conn: principals.get_by_name(conn, " alerts "))
    assert found == await store.read(lambda conn: principals.get(conn, made))
    assert (found.kind, found.automations, found.language) == (PrincipalKind.SERVICE, ("repair-*",), "zh")


@pytest.mark.parametrize("name", ["", "  ", "x" * 65, "a\nb", "a\u202eb", "a\u200bb", "nul\x00"])
async def test_a_name_that_cannot_be_seen_is_refused(store: Store, name: str) -> None:
    with pytest.raises(PolicyError, match="visible"):
        await add(store, name)


async def test_a_name_is_taken_once(store: Store) -> None:
    await add(store, "ann")
    with pytest.raises(PolicyError, match="already somebody"):
        await add(store, "ann")
    with pytest.raises(PolicyError, match="already somebody"):
        await add(store, "\uff41nn")


async def test_nobody_is_anybody_until_linked(store: Store) -> None:
    ann = await add(store, "ann")
    assert await store.read(lambda conn: principals.find_by_identity(conn, "work", "U1")) is None
    await store.write(lambda conn: principals.link_identity(conn, ann, "work", "U1"))
    link = await store.read(lambda conn: principals.find_by_identity(conn, "work", "U1"))
    assert link is not None
    assert link.principal.id == ann
    for account, native in (("home", "U1"), ("work", "u1"), ("work", "U1 "), ("work", "ann")):
        assert (
            await store.read(partial(principals.find_by_identity, account=account, native_user_id=native))
            is None
        )
    assert await store.write(lambda conn: principals.unlink(conn, "work", "U1"))
    assert not await store.write(lambda conn: principals.unlink(conn, "work", "U1"))
    assert await store.read(lambda conn: principals.find_by_identity(conn, "work", "U1")) is None


async def test_a_claimed_sender_counts_only_when_its_link_is_verified(store: Store) -> None:
    ann = await add(store, "ann")
    for verified, known in ((False, Assurance.CLAIMED), (True, Assurance.VERIFIED)):
        await store.write(
            partial(
                principals.link_identity,
                principal_id=ann,
                account="mail",
                native_user_id="ann@example.org",
                verified=verified,
            )
        )
        link = await store.read(lambda conn: principals.find_by_identity(conn, "mail", "ann@example.org"))
        assert link is not None
        assert link.assurance(Assurance.CLAIMED) is known
        assert link.assurance(Assurance.VERIFIED) is Assurance.VERIFIED


async def test_an_identity_cannot_be_taken_from_somebody(store: Store) -> None:
    ann, bob = await add(store, "ann"), await add(store, "bob")
    await store.write(lambda conn: principals.link_identity(conn, ann, "work", "U1"))
    with pytest.raises(PolicyError, match="linked to ann"):
        await store.write(lambda conn: principals.link_identity(conn, bob, "work", "U1"))
    with pytest.raises(PolicyError):
        await store.write(lambda conn: principals.link_identity(conn, "nobody", "work", "U2"))


async def test_the_last_owner_stays(store: Store) -> None:
    first = await add(store, "first", Role.OWNER)
    for write in (
        lambda conn: principals.disable(conn, first),
        lambda conn: principals.set_role(conn, first, Role.USER),
    ):
        with pytest.raises(PolicyError, match="last owner"):
            await store.write(write)
    second = await add(store, "second", Role.OWNER)
    await store.write(lambda conn: principals.disable(conn, first))
    with pytest.raises(PolicyError, match="last owner"):
        await store.write(lambda conn: principals.disable(conn, second))
    assert await store.write(lambda conn: principals.ensure_owner(conn, "x")) == second


async def test_roles_and_globs_change(store: Store) -> None:
    ann = await add(store, "ann")
    await store.write(lambda conn: principals.set_role(conn, ann, Role.OPERATOR, automations=["a*"]))
    await store.write(lambda conn: principals.set_role(conn, ann, Role.AUDITOR))
    found = await store.read(lambda conn: principals.get(conn, ann))
    assert (found.role, found.automations) == (Role.AUDITOR, ("a*",))


async def test_a_token_speaks_for_its_principal_until_revoked(store: Store) -> None:
    ann = await add(store, "ann")
    secret = await store.write(lambda conn: tokens.issue(conn, ann, TokenKind.BEARER, "laptop"))
    assert secret.startswith(tokens.PREFIX)
    found = await store.read(lambda conn: tokens.resolve(conn, secret, {TokenKind.BEARER}))
    assert found is not None
    assert found.id == ann
    assert await store.read(lambda conn: tokens.resolve(conn, secret, {TokenKind.LOGIN})) is None
    assert await store.read(lambda conn: tokens.resolve(conn, secret, set())) is None
    assert await store.write(lambda conn: tokens.revoke(conn, secret))
    assert not await store.write(lambda conn: tokens.revoke(conn, secret))
    assert await store.read(lambda conn: tokens.resolve(conn, secret, {TokenKind.BEARER})) is None


@pytest.mark.parametrize("secret", ["", "parley_", "x" * 10_000, "\udcff", "' OR 1=1 --", "\x00"])
async def test_what_is_no_secret_is_nobody(store: Store, secret: str) -> None:
    ann = await add(store, "ann")
    await store.write(lambda conn: tokens.issue(conn, ann, TokenKind.BEARER))
    assert await store.read(lambda conn: tokens.resolve(conn, secret, set(TokenKind))) is None


async def test_the_store_never_holds_the_secret(store: Store) -> None:
    ann = await add(store, "ann")
    secret = await store.write(lambda conn: tokens.issue(conn, ann, TokenKind.BEARER, "laptop"))
    (row,) = await store.read(lambda conn: conn.execute(sa.select(token)))
    assert secret not in str(row)
    assert secret.removeprefix(tokens.PREFIX) not in str(row)


async def test_an_expired_token_is_nobody(store: Store) -> None:
    ann = await add(store, "ann")
    dead = await store.write(lambda conn: tokens.issue(conn, ann, TokenKind.LOGIN, ttl=timedelta(seconds=-1)))
    good = await store.write(lambda conn: tokens.issue(conn, ann, TokenKind.LOGIN, ttl=timedelta(hours=1)))
    assert await store.read(lambda conn: tokens.resolve(conn, dead, set(TokenKind))) is None
    assert await store.read(lambda conn: tokens.resolve(conn, good, set(TokenKind))) is not None


async def test_a_login_secret_lets_in_one_of_two(store: Store) -> None:
    ann = await add(store, "ann")
    secret = await store.write(lambda conn: tokens.issue(conn, ann, TokenKind.LOGIN))
    entered = await asyncio.gather(*(store.write(lambda conn: tokens.redeem(conn, secret)) for _ in range(4)))
    assert [one.id for one in entered if one is not None] == [ann]


async def test_disabling_ends_every_token_and_enabling_brings_none_back(store: Store) -> None:
    ann = await add(store, "ann")
    secret = await store.write(lambda conn: tokens.issue(conn, ann, TokenKind.BEARER))
    for change in (principals.disable, principals.enable):
        await store.write(partial(change, principal_id=ann))
        assert await store.read(lambda conn: tokens.resolve(conn, secret, set(TokenKind))) is None


async def test_all_of_a_kind_are_revoked(store: Store) -> None:
    ann = await add(store, "ann")
    for kind in (TokenKind.LOGIN, TokenKind.LOGIN, TokenKind.BEARER):
        await store.write(partial(tokens.issue, principal_id=ann, kind=kind))
    assert await store.write(lambda conn: tokens.revoke_all(conn, ann, {TokenKind.LOGIN})) == 2
    assert await store.write(lambda conn: tokens.revoke_all(conn, ann)) == 1


async def test_roles_of_the_file_come_with_the_person(store: Store) -> None:
    ann, bob = await add(store, "ann"), await add(store, "bob")
    for role in ("night-shift", "day-shift"):
        assert await store.write(partial(principals.give_role, principal_id=ann, role=role))
    assert not await store.write(partial(principals.give_role, principal_id=ann, role="day-shift"))
    await store.write(
        partial(principals.link_identity, principal_id=ann, account="slack", native_user_id="U1")
    )
    link = await store.read(partial(principals.find_by_identity, account="slack", native_user_id="U1"))
    assert link is not None
    assert link.principal.roles == ("day-shift", "night-shift")
    assert [one.roles for one in await store.read(principals.list_principals)] == [link.principal.roles, ()]
    assert await store.read(partial(principals.identities, principal_id=ann)) == [("slack", "U1", False)]
    assert await store.write(partial(principals.take_role, principal_id=ann, role="day-shift"))
    assert not await store.write(partial(principals.take_role, principal_id=bob, role="night-shift"))
    assert (await store.read(partial(principals.get, principal_id=ann))).roles == ("night-shift",)
    for role in Role:
        with pytest.raises(PolicyError):
            await store.write(partial(principals.give_role, principal_id=ann, role=role.value))
