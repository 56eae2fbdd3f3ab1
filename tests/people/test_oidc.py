"""Signing in by an OpenID provider: the honest way in, and what is forged, borrowed, replayed or for others."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from joserfc.jwk import RSAKey
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import BadArguments, Denied, ParleyError, Rejected
from parley.messages.model import now
from parley.people import leaving, linking, principals, sessions
from parley.people.audit import Audit
from parley.people.group_lines import GroupLine
from parley.people.id_tokens import LOGOUT_EVENT
from parley.people.lifetime import Lifetime
from parley.people.linking import CodeKind
from parley.people.oidc import ACCOUNT, Answer, Entered
from parley.people.principals import Principal, Role
from parley.people.sealing import Keyring
from parley.people.sessions import Kind, Origin, Session
from parley.people.sign_in import SignIn
from parley.store import schema
from parley.store.engine import Store
from tests.people.provider import CLIENT, ISSUER, REDIRECT, About, FakeProvider

HERE: dict[str, Any] = {"address": "192.0.2.7"}
LINES = (GroupLine(source="oidc", group="ops", roles=("operator",)),)


class Rules:
    def __init__(self) -> None:
        self.lifetime = Lifetime()
        self.oidc: dict[str, About] = {"corp": About()}


class Bench:
    """A provider and the desk."""

    def __init__(self, store: Store, keyring: Keyring) -> None:
        self.store, self.keyring = store, keyring
        self.provider = FakeProvider()
        self.rules = Rules()
        self.sign_in = SignIn(
            store,
            keyring,
            Audit(keyring),
            rules=lambda: self.rules,
            lines=lambda: LINES,
            send=self.provider.send,
            reserved=lambda: ["carol"],
        )
        self.desk = self.sign_in.oidc

    def configure(self, **values: Any) -> None:
        self.rules.oidc["corp"] = replace(About(), **values)

    async def back(self, answer: Mapping[str, Any], cookie: str, name: str = "corp") -> Entered | None:
        return await self.desk.come_back(name, Answer(**answer), cookie, agent="", **HERE)

    async def enter(self) -> Principal | None:
        """There and back; who is signed in then."""
        address, cookie = await self.desk.begin("corp", REDIRECT, **HERE)
        found = await self.back(self.provider.sign_in(address), cookie)
        if found is None:
            return None
        assert found.secret
        resolved = await self.sign_in.sessions.resolve(found.secret, touches=False)
        assert resolved is not None
        assert resolved[1].kind is Kind.OIDC
        return resolved[0]

    async def person(self, name: str) -> tuple[Principal, Session]:
        async def make(conn: AsyncConnection) -> tuple[Principal, Session]:
            who = await principals.get(conn, await principals.add_principal(conn, name))
            secret = await sessions.begin(conn, self.keyring, who.id, Origin(kind=Kind.CODE), Lifetime())
            session = await sessions.find(conn, self.keyring, secret, Lifetime())
            assert session is not None
            return who, session

        return await self.store.write(make)

    async def rows(self, table: sa.Table) -> list[Any]:
        async def fetch(conn: AsyncConnection) -> list[Any]:
            return list((await conn.execute(sa.select(table))).all())

        return await self.store.read(fetch)


@pytest.fixture
async def bench(store: Store) -> Bench:
    return Bench(store, Keyring.generate())


# -- the honest way


async def test_somebody_new_joins_with_no_role_where_parley_toml_lets_them(bench: Bench) -> None:
    who = await bench.enter()
    assert who is not None
    assert (who.name, who.role) == ("ann", Role.NONE)
    again = await bench.enter()
    assert again is not None
    assert again.id == who.id, "known by issuer and subject"
    bench.provider.lies["sub"] = "subject-2"
    other = await bench.enter()
    assert other is not None
    assert (other.name, other.id == who.id) == ("ann-2", False), "a name is nobody"
    accounts = {(row.account, row.native_user_id) for row in await bench.rows(schema.identity)}
    assert accounts == {(ACCOUNT + ISSUER, "subject-1"), (ACCOUNT + ISSUER, "subject-2")}


@pytest.mark.parametrize(("said", "name"), [("Carol", "Carol-2"), ("Command line", "Command line-2")])
async def test_who_joins_gets_no_name_that_means_something(bench: Bench, said: str, name: str) -> None:
    """Neither the voice of somebody whom parley.toml lets approve, nor an actor of the audit."""
    bench.provider.lies["preferred_username"] = said
    who = await bench.enter()
    assert who is not None
    assert who.name == name


async def test_nobody_joins_by_default_nor_takes_a_name_that_is_there(bench: Bench) -> None:
    bench.configure(join=False)
    await bench.person("ann")
    assert await bench.enter() is None
    assert len(await bench.rows(schema.principal)) == 1
    refused = [row for row in await bench.rows(schema.audit) if row.action == "log-in-refused"]
    assert len(refused) == 2, "one intent, one outcome"


@pytest.mark.parametrize(
    ("mail", "verified", "account", "known"),
    [
        ("Ann@Example.org", True, "post", True),
        ("ann@example.org", False, "post", False),
        ("ann@example.org", None, "post", False),
        ("ann@example.org", "true", "post", False),
        ("ann@example.org", True, "", False),
        ("eve@example.org", True, "post", False),
    ],
)
async def test_a_mail_address_counts_only_verified_and_where_it_is_configured(
    bench: Bench, mail: str, verified: object, account: str, known: bool
) -> None:
    bench.configure(join=False, mail_account=account)
    ann, _ = await bench.person("ann")
    await bench.store.write(lambda conn: principals.link_identity(conn, ann.id, "post", "ann@example.org"))
    bench.provider.lies |= {"email": mail, "email_verified": verified}
    found = await bench.enter()
    assert (found is not None and found.id == ann.id) is known


@pytest.mark.parametrize("join", [False, True])
async def test_an_address_that_only_a_code_said_is_nobodys_to_a_provider(bench: Bench, join: bool) -> None:
    """Mallory mails her own code with the sender forged: what the provider says of boss is boss's, not hers."""
    bench.configure(join=join, mail_account="post", groups_claim="groups")
    mallory, _ = await bench.person("mallory")
    bench.provider.lies |= {"email": "boss@example.org", "email_verified": True, "groups": ["ops"]}

    async def say(*, proven: bool) -> None:
        async def redeem(conn: AsyncConnection) -> None:
            code = await linking.issue(conn, bench.keyring, mallory.id, CodeKind.LINK)
            said = ("post", "boss@example.org")
            assert await linking.redeem(conn, bench.keyring, code, *said, proven=proven)

        await bench.store.write(redeem)

    await say(proven=False)
    assert await bench.enter() is None
    assert [row.role for row in await bench.rows(schema.principal)] == ["none"]
    # By hand, or from a sender whom the platform vouches for, it counts.
    await bench.store.write(
        lambda conn: principals.link_identity(conn, mallory.id, "post", "boss@example.org")
    )
    found = await bench.enter()
    assert found is not None
    assert found.id == mallory.id
    await bench.store.write(lambda conn: conn.execute(sa.delete(schema.identity)))
    await say(proven=True)
    found = await bench.enter()
    assert found is not None
    assert found.id == mallory.id


@pytest.mark.parametrize(
    ("account", "address", "joins"),
    [
        ("post", {"email": "ann@example.org", "email_verified": True}, True),
        ("post", {"email": "ann@example.org", "email_verified": False}, False),
        ("post", {"email": "", "email_verified": True}, False),
        ("post", {}, False),
        ("", {}, True),
    ],
)
async def test_where_addresses_tell_who_is_known_nobody_joins_without_one(
    bench: Bench, account: str, address: dict[str, Any], joins: bool
) -> None:
    bench.configure(mail_account=account)
    bench.provider.lies |= address
    assert (await bench.enter() is not None) is joins


async def test_groups_of_the_claim_give_and_take_roles(bench: Bench) -> None:
    bench.configure(groups_claim="groups")
    bench.provider.lies["groups"] = ["ops", 7, "other"]
    who = await bench.enter()
    assert who is not None
    assert who.role is Role.OPERATOR
    bench.provider.lies["groups"] = []
    who = await bench.enter()
    assert who is not None
    assert who.role is Role.NONE
    bench.provider.lies["groups"] = ["x"] * 10_001
    assert await bench.enter() is None


async def test_what_is_not_in_the_token_comes_from_user_info_of_the_same_subject(bench: Bench) -> None:
    bench.configure(groups_claim="groups")
    bench.provider.info = {"sub": "subject-1", "groups": ["ops"], "nonce": "x", "preferred_username": "eve"}
    who = await bench.enter()
    assert who is not None
    assert (who.name, who.role) == ("ann", Role.OPERATOR), "the token comes before it"
    bench.provider.info["sub"] = "subject-2"
    assert await bench.enter() is None


async def test_who_is_disabled_stays_outside(bench: Bench) -> None:
    who = await bench.enter()
    assert who is not None
    await bench.store.write(lambda conn: principals.disable(conn, who.id))
    assert await bench.enter() is None


async def test_who_was_removed_stays_outside_and_joins_as_nobody_else(bench: Bench) -> None:
    bench.configure(groups_claim="groups")
    bench.provider.lies["groups"] = ["ops"]
    who = await bench.enter()
    assert who is not None
    await bench.person("bea")
    await bench.store.write(lambda conn: leaving.remove(conn, Audit(bench.keyring), who.id))
    assert await bench.enter() is None
    assert await bench.store.read(lambda conn: principals.identities(conn, who.id)) == []
    # Back in the directory they are the same person, who connects what is there once more.
    await bench.store.write(lambda conn: principals.enable(conn, who.id))
    assert await bench.enter() is None
    assert sorted(row.name for row in await bench.rows(schema.principal)) == ["ann", "bea"]
    # Let in anew by somebody who may, they connect it, and come and go and leave as others do.
    new, session = await bench.person("ann again")
    for _ in range(2):
        address, cookie = await bench.desk.begin("corp", REDIRECT, link=(new, session), **HERE)
        assert await bench.back(bench.provider.sign_in(address), cookie) is not None
        found = await bench.enter()
        assert found is not None
        assert found.id == new.id
        assert await bench.desk.disconnect(new, session, "corp")
        assert await bench.enter() is None, "and is no second person then"
    await bench.store.write(lambda conn: leaving.remove(conn, Audit(bench.keyring), new.id))
    assert await bench.enter() is None
    bench.provider.lies["sub"] = "subject-2"
    found = await bench.enter()
    assert found is not None
    assert found.name == "ann-2", "somebody else of that name"


@pytest.mark.parametrize("account", ["", "post"])
@pytest.mark.parametrize("verified", [True, False])
async def test_who_was_removed_is_known_by_the_address_too(
    bench: Bench, account: str, verified: bool
) -> None:
    """They never signed in by the provider before: it has their address, as we had."""
    bench.configure(mail_account=account)
    bench.provider.lies |= {"email": "Ann@example.org", "email_verified": verified}
    ann, _ = await bench.person("ann")
    for place, user in (("post", "ann@example.org"), ("slack", "U1"), ("matrix", "@ann:example.org")):
        await bench.store.write(
            lambda conn, place=place, user=user: principals.link_identity(conn, ann.id, place, user)  # type: ignore[misc]
        )
    await bench.store.write(lambda conn: leaving.remove(conn, Audit(bench.keyring), ann.id))
    assert await bench.enter() is None
    (left,) = await bench.rows(schema.identity)
    assert (left.native_user_id, left.direct) == ("ann@example.org", None)
    assert await bench.store.read(lambda c: principals.find_by_identity(c, "post", "ann@example.org")) is None
    # The address is somebody else's by now: who may say so has said so.
    bea, _ = await bench.person("bea")
    await bench.store.write(lambda conn: principals.link_identity(conn, bea.id, "post", "ann@example.org"))
    found = await bench.enter()
    assert (found is not None and found.id == bea.id) is (account == "post" and verified)


# -- what is forged

NOW = int(time.time())
CLAIMS: Mapping[str, dict[str, Any]] = {
    "another issuer": {"iss": "https://evil.example"},
    "a longer issuer": {"iss": ISSUER + "/"},
    "for somebody else": {"aud": "other"},
    "for nobody": {"aud": None},
    "for two, and nobody's": {"aud": [CLIENT, "other"]},
    "for two, another's": {"aud": [CLIENT, "other"], "azp": "other"},
    "another's": {"azp": "other"},
    "over": {"exp": NOW - 3600},
    "for ever": {"exp": None},
    "without a time": {"iat": None},
    "made long ago": {"iat": NOW - 3600},
    "made tomorrow": {"iat": NOW + 86_400},
    "not yet": {"nbf": NOW + 3600},
    "times that are none": {"exp": "tomorrow"},
    "true is no time": {"exp": True},
    "for ever and ever": {"exp": 1e300},
    "another question": {"nonce": "x" * 64},
    "no question": {"nonce": None},
    "a list of questions": {"nonce": ["x"]},
    "nobody": {"sub": None},
    "an empty name": {"sub": ""},
    "a number": {"sub": 7},
    "a long name": {"sub": "x" * 256},
    "a line break": {"sub": "a\nb"},
}


@pytest.mark.parametrize("lie", CLAIMS)
async def test_no_forged_claim_opens(bench: Bench, lie: str) -> None:
    bench.provider.lies |= CLAIMS[lie]
    assert await bench.enter() is None
    assert await bench.rows(schema.principal) == []
    bench.provider.lies.clear()
    assert await bench.enter() is not None, "and the honest token does"


SIGNATURES: Mapping[str, Callable[[FakeProvider], None]] = {
    "none at all": lambda p: p.header.update(alg="none"),
    "the public key as a secret": lambda p: p.header.update(alg="HS256"),
    "another key of the same name": lambda p: setattr(
        p, "signs_with", RSAKey.generate_key(2048, {"kid": "k1"})
    ),
    "a key that is not shown": lambda p: p.header.update(kid="k9"),
}


@pytest.mark.parametrize("lie", SIGNATURES)
async def test_no_forged_signature_opens(bench: Bench, lie: str) -> None:
    SIGNATURES[lie](bench.provider)
    assert await bench.enter() is None
    assert await bench.rows(schema.principal) == []


async def test_an_unknown_key_is_looked_for_once_a_minute_and_secrets_are_no_keys(bench: Bench) -> None:
    assert await bench.enter() is not None
    bench.provider.key = RSAKey.generate_key(2048, {"kid": "k2", "use": "sig"})
    bench.provider.header["kid"] = "k2"
    looked = [await bench.enter() for _ in range(3)]
    assert looked == [None, None, None], "it was asked for its keys a moment ago"
    assert sum(call.url.endswith("/jwks") for call in bench.provider.calls) == 1
    fresh = Bench(bench.store, bench.keyring)
    fresh.provider.keys = [{"kty": "oct", "k": "c2VjcmV0LW9mLWFsbC1vZi11cy1oZXJl", "kid": "k1"}]
    assert await fresh.enter() is None


# -- what is borrowed, replayed or for another


async def test_an_answer_counts_once_in_the_browser_that_asked(bench: Bench) -> None:
    address, cookie = await bench.desk.begin("corp", REDIRECT, **HERE)
    other_address, other_cookie = await bench.desk.begin("corp", REDIRECT, **HERE)
    answer = bench.provider.sign_in(address)
    foreign = bench.provider.sign_in(other_address)
    # Somebody else's answer put into my browser, mine in theirs, none, and what was changed on the way.
    assert await bench.back(foreign, cookie) is None
    assert await bench.back(answer, other_cookie) is None
    assert await bench.back(answer, "") is None
    assert await bench.back(answer | {"state": ""}, cookie) is None
    assert await bench.back(answer | {"state": answer["state"][:-1] + "é"}, cookie) is None
    assert await bench.back(answer, cookie, "other") is None
    assert await bench.back(answer, cookie) is not None
    again = bench.provider.sign_in(address)
    assert await bench.back(answer, cookie) is None, "the same once more"
    assert await bench.back(again, cookie) is None, "another code for the same question"
    assert len(await bench.rows(schema.session)) == 1


async def test_a_code_of_another_question_is_not_exchanged(bench: Bench) -> None:
    """A stolen code put into one's own answer: the verifier does not fit."""
    address, cookie = await bench.desk.begin("corp", REDIRECT, **HERE)
    stolen = bench.provider.sign_in((await bench.desk.begin("corp", REDIRECT, **HERE))[0])["code"]
    mine = bench.provider.sign_in(address)
    assert await bench.back(mine | {"code": stolen}, cookie) is None
    assert await bench.rows(schema.session) == []


async def test_an_answer_of_another_provider_does_not_count(bench: Bench) -> None:
    address, cookie = await bench.desk.begin("corp", REDIRECT, **HERE)
    answer = bench.provider.sign_in(address)
    assert await bench.back(answer | {"issuer": "https://evil.example"}, cookie) is None
    bench.provider.metadata["authorization_response_iss_parameter_supported"] = True
    strict = Bench(bench.store, bench.keyring)
    strict.provider.metadata["authorization_response_iss_parameter_supported"] = True
    address, cookie = await strict.desk.begin("corp", REDIRECT, **HERE)
    assert await strict.back(strict.provider.sign_in(address) | {"issuer": None}, cookie) is None


@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": "https://evil.example"},
        {"authorization_endpoint": "http://id.example.org/auth"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"authorization_endpoint": "https://id.example.org@evil.example/auth"},
        {"authorization_endpoint": None},
        {"authorization_endpoint": "https://id.example.org/auth#x"},
        {"authorization_endpoint": ["https://id.example.org/auth"]},
    ],
)
async def test_what_a_provider_says_of_itself_is_looked_at(bench: Bench, metadata: dict[str, Any]) -> None:
    bench.provider.metadata = metadata
    with pytest.raises(Rejected):
        await bench.desk.begin("corp", REDIRECT, **HERE)


async def test_only_the_issuers_own_host_may_be_inside(bench: Bench) -> None:
    """Where a provider says that its keys are: no way into our own networks."""
    bench.provider.metadata["jwks_uri"] = "https://10.0.0.1/jwks"
    await bench.enter()
    inside = {call.url: call.inside for call in bench.provider.calls}
    assert inside["https://10.0.0.1/jwks"] is False
    assert inside[f"{ISSUER}/token"] is True


async def test_there_is_no_provider_of_any_other_name(bench: Bench) -> None:
    with pytest.raises(BadArguments):
        await bench.desk.begin("other", REDIRECT, **HERE)


# -- connecting, and leaving there


async def test_somebody_who_is_signed_in_connects_their_account_and_takes_it_back(bench: Bench) -> None:
    bench.configure(join=False)
    ann, session = await bench.person("ann")
    address, cookie = await bench.desk.begin("corp", REDIRECT, link=(ann, session), **HERE)
    found = await bench.back(bench.provider.sign_in(address), cookie)
    assert found is not None
    assert found.secret is None, "no second session"
    who = await bench.enter()
    assert who is not None
    assert who.id == ann.id
    assert (await bench.desk.connections(ann))[0]["connected"] is True
    bea, hers = await bench.person("bea")
    address, cookie = await bench.desk.begin("corp", REDIRECT, link=(bea, hers), **HERE)
    assert await bench.back(bench.provider.sign_in(address), cookie) is None, "it is ann's already"
    assert await bench.desk.disconnect(ann, session, "corp")
    assert await bench.enter() is None
    assert [row.kind for row in await bench.rows(schema.session)] == ["code", "code"]


async def test_a_session_that_is_over_or_old_connects_nothing(bench: Bench) -> None:
    bench.configure(join=False)
    ann, session = await bench.person("ann")
    address, cookie = await bench.desk.begin("corp", REDIRECT, link=(ann, session), **HERE)
    await bench.store.write(lambda conn: sessions.end(conn, [session.id]))
    assert await bench.back(bench.provider.sign_in(address), cookie) is None
    assert await bench.rows(schema.identity) == []
    old = Session(
        id=session.id,
        principal_id=ann.id,
        kind=Kind.CODE,
        agent="",
        created_at=now() - timedelta(minutes=16),
        used_at=now(),
        expires_at=now() + timedelta(days=1),
    )
    with pytest.raises(Denied):
        await bench.desk.begin("corp", REDIRECT, link=(ann, old), **HERE)
    with pytest.raises(Denied):
        await bench.desk.disconnect(ann, old, "corp")


LOGOUT: dict[str, Any] = {"events": {LOGOUT_EVENT: {}}, "jti": "j1"}


async def test_who_leaves_there_leaves_here(bench: Bench) -> None:
    bench.provider.lies["sid"] = "s1"
    assert await bench.enter() is not None
    bench.provider.lies["sid"] = "s2"
    assert await bench.enter() is not None
    bench.provider.lies.clear()
    token = bench.provider.token(**LOGOUT, sid="s1")
    assert await bench.desk.end_there("corp", token, **HERE) == 1
    with pytest.raises(Rejected, match="before"):
        await bench.desk.end_there("corp", token, **HERE)
    assert [row.provider_session for row in await bench.rows(schema.session)] == ["s2"]
    assert await bench.desk.end_there("corp", bench.provider.token(**LOGOUT | {"jti": "j2"}), **HERE) == 1
    assert await bench.rows(schema.session) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"events": None},
        {"events": {"other": {}}},
        {"jti": None},
        {"nonce": "x"},
        {"sub": None},
        {"aud": "other"},
        {"iss": "https://evil.example"},
        {"exp": NOW - 3600},
        {"iat": NOW - 3600},
    ],
)
async def test_no_other_token_ends_anything(bench: Bench, wrong: dict[str, Any]) -> None:
    assert await bench.enter() is not None
    with pytest.raises(ParleyError):
        await bench.desk.end_there("corp", bench.provider.token(**LOGOUT | wrong), **HERE)
    for token in ("", "a.b.c", "é", "x" * 100_000, bench.provider.token()[:-2]):
        with pytest.raises(ParleyError):
            await bench.desk.end_there("corp", token, **HERE)
    bench.provider.header["alg"] = "none"
    with pytest.raises(ParleyError):
        await bench.desk.end_there("corp", bench.provider.token(**LOGOUT), **HERE)
    assert len(await bench.rows(schema.session)) == 1
